"""Measures what the tests notice: `make mutants`. tests/README.md explains it."""
