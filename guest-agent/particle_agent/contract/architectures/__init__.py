"""The architectures that images are made for: one record each, which host and agent share."""
