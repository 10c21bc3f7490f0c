"""What holds for all tests."""

from hypothesis import settings

# A machine that runs virtual machines beside the tests is slow at times; that is no failure.
settings.register_profile("particle-os", deadline=None)
settings.load_profile("particle-os")
