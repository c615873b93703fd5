"""Version 1 of the public endpoint; generated from `jscale.proto` by `make proto`."""
