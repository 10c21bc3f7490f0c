"""The client of a farm: the command `build --on`."""
