"""Feeds mutated inputs to every parser of foreign bytes (`make fuzz`)."""
