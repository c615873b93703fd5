"""Foreign checkpoints become block stores."""
