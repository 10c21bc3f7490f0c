"""Settings for all tests."""

import gc

from hypothesis import settings

# A slow example is no failure: the machine may run virtual machines at the same time.
settings.register_profile("particle-os", deadline=None)
settings.load_profile("particle-os")


def pytest_collection_finish():
    """Lets the garbage collector pass over all that is imported: no test frees it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)
