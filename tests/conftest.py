"""Settings for all tests."""

import gc

import pytest
from hypothesis import settings

from .costly import LIST, function_of, listed

# A slow example is no failure: the machine may run virtual machines at the same time.
settings.register_profile("particle-os", deadline=None)
settings.load_profile("particle-os")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Marks what the list of costly tests names, before pytest selects by marks."""
    names = listed(LIST.read_text())
    for item in items:
        if function_of(item.nodeid) in names:
            item.add_marker("costly")


def pytest_collection_finish():
    """Lets the garbage collector pass over all that is imported: no test frees it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)
