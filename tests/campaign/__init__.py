"""The fault campaign: real builds, each disturbed by one fault at a random moment."""
