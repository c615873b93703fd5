"""A cluster on a virtual clock: real state machines, simulated links and devices."""
