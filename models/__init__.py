"""Flax models, cut into blocks that can be run alone."""
