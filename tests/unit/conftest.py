import itertools
import signal

import pytest
from particle_os.sandbox import helper
from particle_os.system import deadline
from particle_os.vm import accel

from ..waiting import Clock, plenty


@pytest.fixture(scope="session")
def unused_places(tmp_path_factory):
    """Paths where nothing is yet: thousands of tests need no directory there."""
    top = tmp_path_factory.mktemp("own")
    return (top / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def own_home(unused_places, monkeypatch):
    """Gives each test an empty cache and no settings, instead of those of the user."""
    home = next(unused_places)
    monkeypatch.setenv("XDG_CACHE_HOME", f"{home}/cache")
    monkeypatch.setenv("XDG_CONFIG_HOME", f"{home}/config")
    return home


@pytest.fixture(autouse=True)
def no_helper(monkeypatch):
    """Making a helper VM takes a minute and a mirror: a unit test that needs one has a defect."""

    def make(*arguments):
        raise AssertionError("a unit test makes a helper VM")

    monkeypatch.setattr(helper, "_make", make)


@pytest.fixture
def asked_anew():
    """The version that a program shows in this test is not that of another test."""
    accel.version_of.cache_clear()
    yield
    accel.version_of.cache_clear()


@pytest.fixture
def own_cache(own_home):
    return own_home / "cache/particle-os"


@pytest.fixture
def own_settings(own_home):
    """The place of the settings that a test can write."""
    return own_home / "config/particle-os/config.toml"


@pytest.fixture
def signals_restored():
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture
def clock(monkeypatch):
    """Replaces the clock of all deadlines by one that stands still until the test moves it."""
    clock = Clock()
    monkeypatch.setattr(deadline, "time", clock)
    return clock


@pytest.fixture
def soon():
    """A deadline that a working program never reaches."""
    return plenty()
