"""Tests of one boot, with a simulated machine and a simulated watch."""

import base64
import inspect
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from particle_os.architecture import AMD64
from particle_os.boot import attempt, files, probe, questioning
from particle_os.boot.evidence import Evidence
from particle_os.boot.frameworks import suites
from particle_os.boot.observation import screen, time_limit
from particle_os.boot.observation.time_limit import check_host
from particle_os.boot.observation.verdict import BootProgress, CheckResult
from particle_os.boot.request import BootRequest
from particle_os.errors import InfrastructureError, NotEnoughSpace
from particle_os.recipe.checks.system import RebootCheck
from particle_os.system.gate import Gate
from particle_os.vm import accel

from ... import samples

NONCE = "0" * 32
PHASES = {"kernel": 2.5, "answer": 9.0}


def answer(state):
    facts = base64.b64encode(f"\x1estate\n{state}\n\x1efailed\n".encode()).decode()
    lines = (probe.begin_marker(NONCE).decode(), f"facts {facts}", probe.end_marker(NONCE).decode())
    return "\n".join(lines).encode()


@pytest.fixture
def boot(tmp_path, monkeypatch):
    """Boots once; the watch returns `until_answer` and `until_off`."""

    def run(
        until_answer=None, until_off=None, state="running", shut_down=False, reboots=False,
        image_format="raw", disk_error=None, goss=None, alive=True, suite=None, checks=(),
        waits=0.0,
    ):  # fmt: skip
        done, order, machines = [], [], []
        device = SimpleNamespace(data=answer(state), send=done.append)
        firmware = SimpleNamespace()
        transcript = SimpleNamespace(tail=lambda: ["the last line"], last_line=lambda: "hello")
        console = SimpleNamespace(is_alive=lambda: alive, transcript=transcript)
        watch = SimpleNamespace(
            progress=BootProgress(PHASES, restarts=1),
            until_answer=lambda: until_answer,
            until_off=lambda: until_off,
        )

        @contextmanager
        def running(spec, **options):
            monitor = SimpleNamespace(
                disk_error=lambda: disk_error, run=lambda _: order.append("run")
            )
            machine = SimpleNamespace(console=console, monitor=monitor, directory=tmp_path)
            machines.append(machine)
            yield machine

        def of_goss(tests, file, machine, answer, factor):
            if file is not None:
                done.append(file)
            return (CheckResult(name="goss", passed=file is None, detail="no"),) if file else ()

        monkeypatch.setattr(attempt, "running", running)
        for module in (attempt, time_limit):
            monkeypatch.setattr(module, "waited", lambda machine: waits)

        def connected(directory, name, *more):
            order.append(name)
            return nullcontext(device if name == attempt.PROBE_SOCKET else firmware)

        monkeypatch.setattr(attempt, "connected", connected)
        watching = inspect.signature(attempt.Watch)

        def watch_of(*arguments, **options):
            given = watching.bind(*arguments, **options).arguments
            given.pop("on_phase")("loader", 1.0)
            given.pop("on_output")()
            assert [done.pop(), done.pop()] == ["hello", "loader"]
            limit = given.pop("deadline")
            assert limit.at - request.seconds <= given.pop("started")
            assert limit.waited() == waits
            assert given == {
                "machine": machines[0], "probe": device, "firmware": firmware,
                "begin": probe.begin_marker(NONCE), "end": probe.end_marker(NONCE),
                "emergency": probe.emergency_marker(NONCE), "memory": request.memory,
                "vm": AMD64.vm, "uefi": False, "console_only": request.console_only,
                "most_restarts": request.most_restarts,
            }  # fmt: skip
            return watch

        monkeypatch.setattr(attempt, "Watch", watch_of)
        monkeypatch.setattr(attempt.secrets, "token_hex", lambda size: NONCE)
        monkeypatch.setattr(Evidence, "take_screen", lambda self, machine: done.append("screen"))
        monkeypatch.setattr(screen, "lines", lambda machine, vm: ["on the screen"])
        monkeypatch.setattr(suites, "results", suite or of_goss)
        monkeypatch.setattr(questioning, "check_results", lambda *arguments, **options: checks)
        monkeypatch.setattr(files, "fetch", lambda *more, with_plot: done.append("files"))
        request = BootRequest(
            image=tmp_path / "x.raw", format=image_format, acceleration=accel.TCG,
            processors=accel.Processors(1, x2apic=False),
            checks=[RebootCheck(reboot=True)] if reboots else [],
            evidence=Evidence(tmp_path / "evidence", Path("x.raw"), plot=False, gate=Gate()),
            memory=1 << 30, seconds=10, on_phase=lambda phase, seconds: done.append(phase),
            on_line=done.append, console_only=False,
            goss=goss,
        )  # fmt: skip
        request.evidence.clear()
        overlay, directory = tmp_path / "overlay", tmp_path / "machine"
        found = attempt.boot_once(request, overlay, directory, shut_down=shut_down)
        assert order == [attempt.PROBE_SOCKET, attempt.FIRMWARE_SOCKET, "run"]
        return found, done

    return run


def test_a_failure_that_a_busy_host_may_cause_is_no_verdict(boot):
    """A system gives up waiting for a device or a service, by its own clock."""
    failure = ("emergency-mode", "the console says: You are in emergency mode")
    with pytest.raises(attempt.Undecided, match="too busy for a verdict") as raised:
        boot(until_answer=failure, waits=3600.0)
    assert raised.value.verdict.status == "infrastructure"
    assert failure[1] in raised.value.brief


def test_so_are_units_that_fail_on_a_busy_host(boot):
    with pytest.raises(attempt.Undecided, match="units-failed: "):
        boot(state="degraded", waits=3600.0)


@pytest.mark.parametrize("failure", [None, ("kernel-panic", "it panics")])
def test_a_busy_host_makes_no_other_verdict_doubtful(boot, failure):
    found, _ = boot(until_answer=failure, waits=3600.0)
    assert found.status == (failure[0] if failure else "passed")


@pytest.mark.parametrize(("waits", "raises"), [(0.0, False), (75.0, False), (76.0, True)])
def test_a_machine_has_too_little_when_it_waits_for_three_quarters(waits, raises):
    with pytest.raises(InfrastructureError) if raises else nullcontext():
        check_host(("root-not-found", "Gave up waiting for root"), waits, 100.0)


def test_a_boot_that_passes_needs_no_console(boot):
    found, done = boot()
    assert (found.status, found.console_tail, found.progress.phases) == ("passed", (), PHASES)
    assert found.screen == ()
    assert found.facts["state"] == "running"
    assert done == ["screen", "files"]


@pytest.mark.parametrize(
    ("results", "until_off", "status"),
    [
        ((True,), None, "passed"),
        ((True, False), None, "checks-failed"),
        ((True,), ("timed-out", "it hangs"), "timed-out"),
    ],
)
def test_the_results_of_the_checks_stay_to_the_end(boot, results, until_off, status):
    checks = tuple(CheckResult(name="port 22", passed=passed, detail="x") for passed in results)
    found, _ = boot(checks=checks, until_off=until_off, shut_down=True)
    assert (found.status, found.checks) == (status, checks)


def test_a_system_that_is_degraded_shows_its_console_and_its_journal(boot):
    found, done = boot(state="degraded", shut_down=True)
    assert (found.status, found.console_tail) == ("units-failed", ("the last line",))
    assert done == ["screen", "files"]


def test_a_system_that_does_not_answer_is_asked_for_nothing_more(boot):
    found, done = boot(until_answer=("kernel-panic", "the console says: ..."), shut_down=True)
    assert (found.status, found.message) == ("kernel-panic", "the console says: ...")
    assert (found.facts, found.checks, found.console_tail) == ({}, (), ("the last line",))
    verdict = found.verdict("bios", "")
    assert (verdict.console_tail, verdict.screen) == (("the last line",), ("on the screen",))
    assert done == ["screen"]


def test_a_system_that_passes_is_shut_down_when_it_boots_again(boot):
    found, done = boot(shut_down=True)
    assert (found.status, found.console_tail) == ("passed", ())
    assert done == ["screen", b"poweroff\n"]


def test_a_test_of_another_framework_fails_as_a_check_does(boot):
    found, done = boot(goss=b"file")
    assert (found.status, found.message) == ("checks-failed", "goss: no")
    assert [check.name for check in found.checks] == ["goss"]
    assert done == ["screen", "tests", b"file", "files"]


@pytest.mark.parametrize(
    ("reboots", "shut_down", "tested"),
    [(True, True, False), (True, False, True), (False, True, True)],
    ids=["the first of two boots", "the second boot", "a boot of an update"],
)
def test_the_tests_of_other_frameworks_run_at_the_second_boot(boot, reboots, shut_down, tested):
    found, done = boot(goss=b"file", reboots=reboots, shut_down=shut_down)
    expected = ["screen", "tests", b"file", "files"] if tested else ["screen", b"poweroff\n"]
    assert (found.status, done) == ("checks-failed" if tested else "passed", expected)


def test_the_output_of_pytest_is_evidence_even_if_pytest_fails(boot, tmp_path, monkeypatch):
    def fail(*arguments):
        (tmp_path / "pytest.txt").write_text("no such option")
        raise InfrastructureError("pytest failed")

    with pytest.raises(attempt.Undecided, match="pytest failed"):
        boot(suite=fail, goss=b"file")
    assert (tmp_path / "evidence/pytest.txt").read_text() == "no such option"


def test_no_test_runs_in_a_system_that_is_in_emergency_mode(boot):
    found, done = boot(goss=b"file", state="maintenance")
    assert (found.status, done) == ("emergency-mode", ["screen", "files"])


def test_a_machine_that_has_ended_has_no_files(boot):
    _, done = boot(alive=False)
    assert done == ["screen"]


def test_a_system_that_does_not_shut_down_fails(boot):
    found, done = boot(until_off=("timed-out", "it takes more than 10 s"), shut_down=True)
    assert found.status == "timed-out"
    assert found.message == "during shutdown: it takes more than 10 s"
    assert (found.facts["state"], found.console_tail) == ("running", ("the last line",))
    assert done == ["screen", b"poweroff\n"]


def test_an_image_from_which_nothing_starts_is_named(boot, tmp_path):
    samples.write("crypto_LUKS", tmp_path / "x.raw")
    found, _ = boot(until_answer=("no-bootable-device", "the firmware found no bootable device"))
    assert "the whole image is a LUKS container (encrypted)" in found.message


PANIC = ("kernel-panic", "the console says: ...")


@pytest.mark.parametrize(
    ("image_format", "error"),
    [("raw", InfrastructureError("the disk")), ("qcow2", NotEnoughSpace("the disk is full"))],
)
def test_a_disk_of_the_host_that_fails_is_no_fault_of_the_image(boot, image_format, error):
    with pytest.raises(attempt.Undecided, match="the disk") as raised:
        boot(until_answer=PANIC, image_format=image_format, disk_error=error)
    assert raised.value.verdict.status == "infrastructure"


def test_a_damaged_image_looks_like_a_disk_that_fails_and_is_rejected(boot):
    error = InfrastructureError("the disk")
    found, _ = boot(until_answer=PANIC, image_format="qcow2", disk_error=error)
    assert found.status == "kernel-panic"


def test_a_system_that_passes_in_spite_of_a_disk_error_passes(boot):
    assert boot(disk_error=NotEnoughSpace("the disk is full"))[0].passed


def test_an_undecided_boot_keeps_all_of_its_error(tmp_path):
    error = InfrastructureError("b", hint="h", where="w", tail=["t"], log=tmp_path / "log")
    found = attempt.Undecided(error, None)
    for name in ("brief", "hint", "where", "tail", "log"):
        assert getattr(found, name) == getattr(error, name)
