"""Settings for all tests."""

from hypothesis import settings

# A slow example is no failure: the machine may run virtual machines at the same time.
settings.register_profile("particle-os", deadline=None)
settings.load_profile("particle-os")
