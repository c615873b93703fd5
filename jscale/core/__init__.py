"""Ids, blocks, chunks, units and errors: the words that every floor shares."""
