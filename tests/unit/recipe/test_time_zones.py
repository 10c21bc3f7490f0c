"""Time zones that the host does not know."""

import pytest
from particle_os.recipe import dependencies

from .test_dependencies import KERNEL, load

ZONES = {"Europe/Berlin", "UTC", "EST"}
UNKNOWN = "this host knows no time zone"


@pytest.mark.parametrize(
    ("zone", "messages"),
    [
        ("Europe/Berlin", []),
        ("UTC", []),
        ("europe/berlin", [f"{UNKNOWN} 'europe/berlin': is 'Europe/Berlin' meant?"]),
        ("Europe/Berlim", [f"{UNKNOWN} 'Europe/Berlim': is 'Europe/Berlin' meant?"]),
        ("utc", [f"{UNKNOWN} 'utc': is 'UTC' meant?"]),
        ("CEST", [f"{UNKNOWN} 'CEST'. Time zones are named after places, such as Europe/Berlin."]),
        ("cest", [f"{UNKNOWN} 'cest'. Time zones are named after places, such as Europe/Berlin."]),
        ("Moon/Tycho", [f"{UNKNOWN} 'Moon/Tycho'"]),
    ],
)
def test_a_time_zone_that_the_host_does_not_know_is_reported(tmp_path, monkeypatch, zone, messages):
    monkeypatch.setattr("zoneinfo.available_timezones", lambda: ZONES)
    monkeypatch.setattr(dependencies, "_knows", lambda zone: zone in ZONES)
    tzdata = KERNEL.replace("systemd-sysv", "systemd-sysv, tzdata")
    notes = load(tmp_path, f"{tzdata}  - {{type: timezone, zone: {zone}}}\n").notes
    assert [note.message for note in notes] == messages
    assert all((note.code, note.line) == ("unknown-zone", 4) for note in notes)


def test_a_host_without_time_zones_reports_none(tmp_path, monkeypatch):
    monkeypatch.setattr("zoneinfo.available_timezones", set)
    monkeypatch.setattr(dependencies, "_knows", lambda zone: False)
    assert load(tmp_path, f"{KERNEL}  - {{type: timezone, zone: UTC}}\n").notes == ()


def test_a_name_that_is_no_file_is_no_zone():
    assert not dependencies._knows("Moon/Tycho")
    assert not dependencies._knows("Europe")
