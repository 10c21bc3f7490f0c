"""Tests of the sequence of boots, and of the report when QEMU fails."""

import json
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from particle_os.boot import attempt, session
from particle_os.boot.evidence import Evidence
from particle_os.boot.files import NAMES
from particle_os.boot.observation.verdict import BootProgress, Observation
from particle_os.boot.request import BootRequest
from particle_os.cli import cli
from particle_os.errors import UsageError
from particle_os.system.gate import Gate
from particle_os.vm import accel
from particle_os.vm.console import QemuEnded


@pytest.fixture
def qemu_dies(monkeypatch):
    """Machines whose QEMU ends with a given status once the kernel runs."""
    started = []

    def play(status):
        @contextmanager
        def running(spec, *, directory, transcript, deadline):
            transcript.path.write_text("SeaBIOS\r\n\x1b[2J[ 0.0] Linux version 6.12\r\n")
            started.append(directory)
            console = SimpleNamespace(is_alive=lambda: False, transcript=None)
            yield SimpleNamespace(
                console=console, monitor=SimpleNamespace(run=lambda deadline: None)
            )

        def watch(*arguments, **options):
            def until_answer():
                raise QemuEnded(status, ["qemu: it broke"])

            return SimpleNamespace(
                progress=BootProgress({"kernel": 2.5}, restarts=1), until_answer=until_answer
            )

        monkeypatch.setattr(attempt, "running", running)
        monkeypatch.setattr(attempt, "connected", lambda *arguments: nullcontext())
        monkeypatch.setattr(attempt, "Watch", watch)
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
    def boot_and_reboot(request, directory):
        tried.append(request.processors)
        return found.pop(0)

    tried = []
    panic = f"the console says: Kernel panic - not syncing: {session.LOST_TIMER}"
    found = [
        Observation("kernel-panic", panic, seconds=10, progress=BootProgress()),
        Observation("passed", "it is up", seconds=10, progress=BootProgress()),
    ]
    monkeypatch.setattr(accel, "_emulates_x2apic", lambda qemu: x2apic)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr(session, "_boot_and_reboot", boot_and_reboot)
    (tmp_path / "evidence").mkdir()
    verdict = boot(
        tmp_path, Evidence(tmp_path / "evidence", Path("x.raw"), plot=False, gate=Gate())
    )
    assert verdict.passed == x2apic
    one = accel.Processors(1, x2apic=False)
    assert tried == ([accel.Processors(2, x2apic=True), one] if x2apic else [one])


def test_nothing_of_an_earlier_boot_is_evidence_and_no_verdict_shows_a_secret(
    tmp_path, monkeypatch
):
    def boot_and_reboot(request, directory):
        assert list(evidence.iterdir()) == []
        assert directory.parent.stat().st_mode & 0o777 == 0o700
        return Observation("passed", "it says token-value", seconds=1, progress=BootProgress())

    evidence = tmp_path / "evidence"
    evidence.mkdir()
    for name in ("console.log", "screen.png", "boot.sh", *NAMES):
        (evidence / name).write_text("of an earlier boot")
    monkeypatch.setattr(session, "_boot_and_reboot", boot_and_reboot)
    gate = Gate([b"token-value"])
    verdict = boot(tmp_path, Evidence(evidence, Path("x.raw"), plot=False, gate=gate))
    assert verdict.passed
    assert "token-value" not in repr(verdict)


def test_a_damaged_image_starts_no_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(session, "_boot_and_reboot", None)
    (tmp_path / "x.raw").write_bytes(b"QFI\xfb" + bytes(600))
    evidence = Evidence(tmp_path, Path("x.raw"), plot=False, gate=Gate())
    with pytest.raises(UsageError):
        boot(tmp_path, evidence, image_format="qcow2")
    assert not (tmp_path / "work").exists()


def boot(directory, evidence, image_format="raw"):
    image = directory / "x.raw"
    if not image.exists():
        image.write_bytes(bytes(1024))
    request = BootRequest(
        image=image,
        format=image_format,
        acceleration=accel.TCG,
        processors=accel.processors(accel.TCG, None),
        evidence=evidence,
        checks=[],
        memory=1 << 30,
        seconds=10,
        on_phase=lambda phase, seconds: None,
        on_line=lambda line: None,
        console_only=False,
    )
    return session.boot(request, directory / "work")
