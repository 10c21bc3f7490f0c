"""The campaign of faults against farms of processes."""
