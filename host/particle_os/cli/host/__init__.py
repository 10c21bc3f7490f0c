"""The commands about the host."""
