"""Many workers run one model: stages, activations, hand-over."""
