"""Manager and worker: pure state machines, and the I/O around them."""
