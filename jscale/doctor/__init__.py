"""What a machine offers to a worker, looked at and told."""
