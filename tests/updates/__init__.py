"""Breaks updates of an OSTree system in every known way, and cuts the power of machines."""
