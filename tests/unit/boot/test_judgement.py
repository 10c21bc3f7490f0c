"""Tests of the judgement of one boot or of two boots."""

import pytest
from particle_os.boot import judgement
from particle_os.boot.observation.verdict import BootProgress, CheckResult, Observation
from particle_os.recipe.checks.base import Reply
from particle_os.recipe.checks.contents import FileCheck
from particle_os.recipe.checks.system import BootTimeCheck, LocaleCheck, MountCheck, TimezoneCheck

GOOD = {"state": "running", "failed": "", "machine-id": "a" * 32, "ssh-host-keys": "k"}
REBOOT = CheckResult(name="reboot", passed=True, detail="")
UNIT = CheckResult(name="unit x.service", passed=True, detail="x.service is active")


def judged(facts, *results):
    return judgement.judge({**GOOD, **facts}, results)


def test_a_pass_needs_a_settled_system_no_failed_unit_and_every_check():
    bad = CheckResult(name=UNIT.name, passed=False, detail="x.service is failed")
    assert judged({}, UNIT)[0] == "passed"
    assert judged({"system": ""})[1] == "the system is up, no unit failed"
    assert judged({"state": "starting"})[0] == "units-failed"
    assert judged({"state": "maintenance", "failed": "x.service"})[0] == "emergency-mode"
    status, message = judged({"state": "degraded", "failed": "x.service\ny.mount"}, bad)
    assert (status, message) == ("units-failed", "failed units: x.service, y.mount")
    status, message = judged({"crash-looping": "z.service"}, UNIT)
    assert (status, message) == ("units-failed", "crash-looping units: z.service")
    both = {"state": "degraded", "failed": "x.service", "crash-looping": "z.service"}
    assert judged(both)[1] == "failed units: x.service; crash-looping units: z.service"
    assert judged({}, UNIT, bad) == ("checks-failed", "unit x.service: x.service is failed")


def booted(status="passed", *, checks=(REBOOT, UNIT), seconds=10.0, **facts):
    return Observation(
        status=status, seconds=seconds, message="it is up", checks=checks, facts={**GOOD, **facts},
        progress=BootProgress({"answer": seconds}),
    )  # fmt: skip


def test_the_same_machine_came_up_again():
    found = judgement.compared(booted(), booted(seconds=5.0))
    assert (found.status, found.seconds) == ("passed", 15)
    assert found.progress.phases == {"answer": 10}
    assert found.checks[0].detail == "the system booted again as the same machine"


def test_another_machine_came_up():
    later = booted(**{"machine-id": "b" * 32, "ssh-host-keys": "other"})
    found = judgement.compared(booted(), later)
    assert found.status == "checks-failed"
    assert found.checks[0].detail == "machine-id, ssh-host-keys changed"


@pytest.mark.parametrize("known_at_first", [True, False])
def test_what_is_unknown_is_not_the_same(known_at_first):
    first, second = booted(), booted(**{"ssh-host-keys": "other"})
    del second.facts["machine-id"]
    if not known_at_first:
        del first.facts["machine-id"]
    found = judgement.compared(first, second)
    assert found.status == "checks-failed"
    assert found.checks[0].detail == "machine-id is unknown; ssh-host-keys changed"


def test_a_second_boot_that_fails_says_so():
    first, second = booted(), booted("emergency-mode", checks=())
    found = judgement.compared(first, second)
    assert found.status == "emergency-mode"
    assert found.seconds == first.seconds + second.seconds > second.seconds
    assert found.message.startswith("at the second boot: ")


def test_a_boot_that_fails_is_not_followed_by_another():
    found = judgement.not_rebooted(booted("units-failed"))
    assert (found.status, found.checks[1]) == ("units-failed", UNIT)
    assert (found.checks[0].passed, found.checks[0].detail) == (
        False, "the first boot did not pass",
    )  # fmt: skip


def test_what_a_check_has_not_been_told_does_not_hold():
    checks = [
        FileCheck(file="/x", exists=False), TimezoneCheck(timezone="UTC"), LocaleCheck(locale="C"),
        MountCheck(mount="/"),
    ]  # fmt: skip
    found = judgement.check_results(checks, b"", "0" * 32, None, emulated=False)
    assert [(each.passed, each.detail) for each in found] == [
        (False, "the system has not answered this check")
    ] * 4


def test_a_missing_file_is_one_that_stat_misses():
    check = FileCheck(file="/x", exists=False)
    assert check.judge([Reply(1, "stat: cannot statx '/x': No such file or directory")]).holds
    for status in (124, 127, 137):
        assert not check.judge([Reply(status, "")]).holds


def test_a_unit_that_fails_at_the_second_boot_hides_nothing():
    later = booted("units-failed", **{"machine-id": "b" * 32, "failed": "x.service"})
    found = judgement.compared(booted(), later)
    assert found.status == "units-failed"
    assert found.message == "at the second boot: failed units: x.service"
    assert found.checks[0].detail == "machine-id changed"


def test_a_check_that_fails_at_the_second_boot_counts():
    bad = CheckResult(name=UNIT.name, passed=False, detail="x.service is failed")
    found = judgement.compared(booted(), booted("checks-failed", checks=(REBOOT, bad)))
    assert found.status == "checks-failed"
    assert found.message == "unit x.service: x.service is failed"


@pytest.mark.parametrize("emulated", [True, False])
def test_a_boot_that_takes_too_long_under_emulation_says_so(monkeypatch, emulated):
    check = BootTimeCheck(systemd_analyze=10)
    monkeypatch.setattr(judgement.probe, "replies", lambda *a: [[Reply(0, "20000000")]])
    (found,) = judgement.check_results([check], b"", "0" * 32, None, emulated=emulated)
    assert found.detail.startswith("20.0 s, more than 10 s")
    assert ("emulated" in found.detail) == emulated
