"""The key of the entry that tests write."""

KEY = "ab" * 20
