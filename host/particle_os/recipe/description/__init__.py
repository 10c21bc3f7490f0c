"""Describes recipes to people and to editors: the reference, and the JSON schema."""
