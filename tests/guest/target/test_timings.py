import threading

import pytest
from particle_agent.target import timings
from particle_agent.target.timings import Timings


@pytest.fixture
def clock(monkeypatch):
    """A clock that only `clock.pass_(seconds)` advances."""

    class Clock:
        now = 100.0

        def pass_(self, seconds):
            self.now += seconds

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(timings, "time", clock)
    return clock


def test_each_package_gets_the_time_until_the_next_one(clock):
    times = Timings()
    with times.part("apt-get"):
        clock.pass_(1)
        times.hear("Unpacking udev (257-1) ...")
        clock.pass_(2)
        times.hear("  a line of its script")
        clock.pass_(1)
        times.hear("Setting up udev:amd64 (257-1) ...")
        clock.pass_(5)
        times.hear("Processing triggers for libc-bin (2.41) ...")
        clock.pass_(4)
    assert times.longest() == [
        ("apt-get", 13.0),
        ("Setting up udev:amd64", 5.0),
        ("Processing triggers for libc-bin", 4.0),
        ("Unpacking udev", 3.0),
    ]


def test_the_same_part_adds_up_and_short_ones_are_left_out(clock):
    times = Timings()
    for seconds in (1, 2, 0):
        with times.part("useradd"):
            clock.pass_(seconds)
    with times.part("true"):
        clock.pass_(0.01)
    assert times.longest() == [("useradd", 3.0)]


def test_a_part_that_fails_counts_too(clock):
    times = Timings()
    with pytest.raises(ValueError), times.part("false"):
        clock.pass_(1)
        raise ValueError
    assert times.longest() == [("false", 1.0)]


def test_at_most_so_many_parts_are_reported(clock):
    times = Timings()
    for number in range(100):
        with times.part(str(number)):
            clock.pass_(number)
    assert len(times.longest()) == timings.MOST
    assert times.longest()[0] == ("99", 99.0)


def test_what_runs_beside_dpkg_does_not_end_its_step(clock):
    times = Timings()

    def beside():
        with times.part("depmod"):
            clock.pass_(3)

    with times.part("apt-get"):
        times.hear("Setting up locales (2.41) ...")
        other = threading.Thread(target=beside)
        other.start()
        other.join()
        clock.pass_(2)
    took = {"apt-get": 5.0, "Setting up locales": 5.0, "depmod": 3.0}
    assert dict(times.longest()) == took


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (["/usr/bin/tar", "xf", "-"], "tar"),
        (["ostree", "admin", "deploy", "--sysroot=/scratch", "debian/13"], "ostree admin deploy"),
        (["ostree", "pull-local", "--repo=/scratch/archive", "/scratch/made"], "ostree pull-local"),
        (["ostree", "--version"], "ostree"),
    ],
)
def test_the_verbs_of_ostree_are_parts_of_their_own(argv, name):
    assert timings.name_of(argv) == name
