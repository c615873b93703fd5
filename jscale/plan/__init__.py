"""Every decision as a pure function: the cut, the multicast, the pipelines."""
