"""The notation of systemd.time(7), as far as the host knows it."""

import shutil
import subprocess

import pytest
from particle_agent.stages.settings.calendar_event import fault

# Most of them are from systemd.time(7).
EVENTS = [
    "Sat,Thu,Mon..Wed,Sat..Sun", "Mon,Sun 12-*-* 2,1:23", "Wed *-1", "Wed, 17:48",
    "Wed..Sat,Tue 12-10-15 1:2:3", "*-*-7 0:0:0", "10-15", "monday *-12-* 17:00",
    "12,14,13,12:20,10,30", "mon,fri *-1/2-1,3 *:30:45", "05:40", "05:40:23.4200004/3.1700005",
    "2003-02..04-05", "2003-03-05 05:40 UTC", "hourly", "DAILY", "weekly Pacific/Auckland",
    "*:2/3", "*-*~3", "*~07/1", "Mon *-05~07/1", "semiannually", "@1395716396", "Mon",
    "Mon..Fri 22:30 Europe/Berlin", "*-*-* 00,12:00:00", "0/2:00:00",
]  # fmt: skip
WRONG = [
    "everyday", "every day", "daily 03:00", "3am", "0 3 * * *", "noon", "Monn", "nightly",
    "tomorrow", "5min", "daily daily", "UTC", "03:00 Mon", "Mon *-*-*03:00", "2-3-4-5", "midnight",
    "*", "12", "Mon,Tue Wed", "10:30pm", "1 Jan", "mon..",
]  # fmt: skip


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_of_the_manual_has_no_fault(event):
    assert fault(event) is None


@pytest.mark.parametrize("event", WRONG)
def test_another_text_has_one(event):
    assert "systemd.time(7) has no" in fault(event)


TOO_LARGE = [
    "25:00", "12:60", "*-*-* 24:00:00", "23:59:60", "*-13-01", "*-02..13-05", "2026-1,14-3",
    "*-*-32", "Mon 10,24:00", "0..24:00", "99999999999999999999:00",
]  # fmt: skip


@pytest.mark.parametrize("event", TOO_LARGE)
def test_a_number_that_is_too_large_is_named(event):
    assert "is the most" in fault(event)


@pytest.mark.parametrize(
    ("event", "meant"),
    [("everyday", "daily"), ("Dayly", "daily"), ("houry", "hourly"), ("nightly 3", "daily")],
)
def test_the_word_that_was_meant_is_named(event, meant):
    assert fault(event).endswith(f"did you mean '{meant}'?")
    assert fault("0 3 * * *").endswith("write 'daily', or 'Mon *-*-* 03:00'")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")
def test_systemd_agrees():
    def accepts(event):
        done = subprocess.run(["systemd-analyze", "calendar", "--", event], capture_output=True)
        return done.returncode == 0

    assert all(map(accepts, EVENTS))
    assert not any(map(accepts, [*WRONG, *TOO_LARGE]))
