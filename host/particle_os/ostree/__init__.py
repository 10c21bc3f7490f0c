"""Repositories of OSTree on the host: their commits, and a server for trying updates."""
