"""The commands: flags become a frozen config, and one call."""
