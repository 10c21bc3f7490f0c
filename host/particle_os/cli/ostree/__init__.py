"""The commands of `ostree`."""
