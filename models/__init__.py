"""Flax models, cut into blocks that can be run alone."""

if __name__ == "models":
    raise ImportError("this folder is the package jscale.models: import that")
