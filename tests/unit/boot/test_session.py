"""What a boot test makes of the answer."""

import json
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from particle_os.boot import session
from particle_os.boot.evidence import Evidence
from particle_os.boot.verdict import CheckResult, Verdict
from particle_os.cli import cli
from particle_os.errors import UsageError
from particle_os.recipe.checks.base import Reply
from particle_os.recipe.checks.contents import CommandCheck, FileCheck
from particle_os.recipe.checks.system import LocaleCheck, MemoryCheck, MountCheck, TimezoneCheck
from particle_os.vm import accel
from particle_os.vm.console import QemuEnded

GOOD = {"state": "running", "failed": "", "machine-id": "a" * 32, "ssh-host-keys": "k"}
REBOOT = CheckResult(name="reboot", passed=True, detail="")
UNIT = CheckResult(name="unit x.service", passed=True, detail="x.service is active")


def judged(facts, *results):
    return session._judge({**GOOD, **facts}, results)


def test_a_pass_needs_a_settled_system_no_failed_unit_and_every_check():
    bad = UNIT.model_copy(update={"passed": False, "detail": "x.service is failed"})
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
    return Verdict(
        status=status, seconds=seconds, message="it is up", checks=checks, facts={**GOOD, **facts},
        phases={"answer": seconds},
    )  # fmt: skip


def test_the_same_machine_came_up_again():
    verdict = session._compared(booted(), booted(seconds=5.0))
    assert (verdict.status, verdict.seconds) == ("passed", 15)
    assert verdict.phases == {"answer": 10}
    assert verdict.checks[0].detail == "it came up again, the same machine"


def test_another_machine_came_up():
    later = booted(**{"machine-id": "b" * 32, "ssh-host-keys": "other"})
    verdict = session._compared(booted(), later)
    assert verdict.status == "checks-failed"
    assert verdict.checks[0].detail == "machine-id, ssh-host-keys changed"


@pytest.mark.parametrize("known_at_first", [True, False])
def test_what_is_unknown_is_not_the_same(known_at_first):
    first, second = booted(), booted(**{"ssh-host-keys": "other"})
    del second.facts["machine-id"]
    if not known_at_first:
        del first.facts["machine-id"]
    verdict = session._compared(first, second)
    assert verdict.status == "checks-failed"
    assert verdict.checks[0].detail == "machine-id is unknown; ssh-host-keys changed"


def test_a_second_boot_that_fails_says_so():
    verdict = session._compared(booted(), booted("emergency-mode", checks=()))
    assert verdict.status == "emergency-mode"
    assert verdict.message.startswith("at the second boot: ")


def test_what_a_check_has_not_been_told_does_not_hold():
    checks = [
        FileCheck(file="/x", exists=False), TimezoneCheck(timezone="UTC"), LocaleCheck(locale="C"),
        MountCheck(mount="/"),
    ]  # fmt: skip
    found = session._results(checks, b"", "0" * 32, None)
    assert [(each.passed, each.detail) for each in found] == [
        (False, "the system has not answered that")
    ] * 4


def test_a_missing_file_is_one_that_stat_misses():
    check = FileCheck(file="/x", exists=False)
    assert check.judge([Reply(1, "stat: cannot statx '/x': No such file or directory")]).holds
    for status in (124, 127, 137):
        assert not check.judge([Reply(status, "")]).holds


def test_more_memory_than_a_check_allows_is_refused(tmp_path):
    with pytest.raises(UsageError, match="512 MiB"):
        session.boot(
            tmp_path, None, format="raw", directory=tmp_path / "x",
            evidence=SimpleNamespace(clear=lambda: None),
            checks=[MemoryCheck(memory="512M")], memory=1 << 30,
        )  # fmt: skip


def test_what_commands_may_take_is_granted_to_the_boot():
    checks = [CommandCheck(command=("a",)), CommandCheck(command=("b",), timeout=600)]
    assert session._granted(checks) == 570


def test_a_unit_that_fails_at_the_second_boot_hides_nothing():
    later = booted("units-failed", **{"machine-id": "b" * 32, "failed": "x.service"})
    verdict = session._compared(booted(), later)
    assert verdict.status == "units-failed"
    assert verdict.message == "at the second boot: failed units: x.service"
    assert verdict.checks[0].detail == "machine-id changed"


def test_a_check_that_fails_at_the_second_boot_counts():
    bad = UNIT.model_copy(update={"passed": False, "detail": "x.service is failed"})
    verdict = session._compared(booted(), booted("checks-failed", checks=(REBOOT, bad)))
    assert verdict.status == "checks-failed"
    assert verdict.message == "unit x.service: x.service is failed"


@pytest.fixture
def qemu_dies(monkeypatch):
    """Machines whose QEMU ends with a status of its own once the kernel runs."""
    started = []

    def play(status):
        @contextmanager
        def running(spec, *, directory, transcript, deadline):
            transcript.write_text("SeaBIOS\r\n\x1b[2J[ 0.0] Linux version 6.12\r\n")
            started.append(directory)
            yield SimpleNamespace(console=SimpleNamespace(is_alive=lambda: False))

        def watch(*arguments, **options):
            def until_answer():
                raise QemuEnded(status, ["qemu: it broke"])

            return SimpleNamespace(
                phases={"kernel": 2.5}, restarts=1, new_starts=0, until_answer=until_answer
            )

        monkeypatch.setattr(session, "running", running)
        monkeypatch.setattr(session, "connect_unix", lambda *arguments: None)
        monkeypatch.setattr(session, "Channel", lambda c: SimpleNamespace(close=lambda: None))
        monkeypatch.setattr(session, "Watch", watch)
        return started

    return play


@pytest.mark.usefixtures("signals_restored")
def test_what_was_seen_before_qemu_failed_is_told_everywhere(tmp_path, qemu_dies):
    qemu_dies(1)
    image, junit, page = (tmp_path / name for name in ("x.raw", "x.xml", "x.html"))
    image.write_bytes(bytes(1024))
    argv = ["boot-test", image, "--accel", "tcg", "--json", "--junit", junit, "--report", page]
    result = CliRunner().invoke(cli, [str(argument) for argument in argv])
    assert result.exit_code == 5
    assert "it broke" in result.stderr
    verdict = json.loads(result.stdout)
    assert (verdict["status"], verdict["phases"]) == ("infrastructure", {"kernel": 2.5})
    assert verdict["restarts"] == 1
    assert verdict["console_tail"] == ["SeaBIOS", "[ 0.0] Linux version 6.12"]
    assert "Linux version 6.12" in junit.read_text()
    assert "Linux version 6.12" in page.read_text()
    assert "kernel" in page.read_text()


@pytest.mark.usefixtures("signals_restored")
def test_a_qemu_that_aborts_is_tried_again(tmp_path, qemu_dies):
    started = qemu_dies(-6)
    (tmp_path / "x.raw").write_bytes(bytes(1024))
    result = CliRunner().invoke(cli, ["boot-test", str(tmp_path / "x.raw"), "--accel", "tcg"])
    assert (result.exit_code, len(started)) == (5, session.ATTEMPTS)


@pytest.mark.parametrize("x2apic", [True, False])
def test_ticks_that_a_busy_host_lost_are_not_the_image_s_fault(tmp_path, monkeypatch, x2apic):
    def boot_once(wanted, directory):
        tried.append(wanted.processors)
        return verdicts.pop(0)

    tried = []
    panic = f"the console says: Kernel panic - not syncing: {session.LOST_TIMER}"
    lost = booted().model_copy(update={"status": "kernel-panic", "message": panic})
    verdicts = [lost, booted()]
    monkeypatch.setattr(accel, "_emulates_x2apic", lambda: x2apic)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr(session, "_boot_and_reboot", boot_once)
    (tmp_path / "evidence").mkdir()
    verdict = session.boot(
        tmp_path / "x.raw",
        accel.TCG,
        format="raw",
        directory=tmp_path / "work",
        evidence=Evidence(tmp_path / "evidence", Path("x.raw"), plot=False),
    )
    assert verdict.passed == x2apic
    one = accel.Processors(1, x2apic=False)
    assert tried == ([accel.Processors(2, x2apic=True), one] if x2apic else [one])
