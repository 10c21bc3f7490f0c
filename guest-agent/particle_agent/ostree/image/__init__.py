"""The content of an image before its commit: its layout, its faults, and what the stage adds."""
