"""Recipes of OSTree commits."""
