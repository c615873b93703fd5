"""Bytes in motion: connections, framing, and the multicast that uses them."""
