"""Bytes at rest: block files, the manifest, the arena and what is in it."""
