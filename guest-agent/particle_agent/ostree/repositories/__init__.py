"""Repositories of OSTree: of the new commit, of its parent, and the published one."""
