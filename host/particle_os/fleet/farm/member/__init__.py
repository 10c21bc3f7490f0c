"""The members of a farm that run for long: the scheduler and the workers."""
