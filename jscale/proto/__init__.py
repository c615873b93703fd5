"""Wire types of the public endpoint."""
