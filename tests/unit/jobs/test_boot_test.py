"""The boot test of an existing image: its report is complete, whatever fails."""

from types import SimpleNamespace

import pytest
from particle_os.boot import files, session
from particle_os.boot.machines.variants import Variant
from particle_os.boot.observation.verdict import Verdict
from particle_os.errors import InfrastructureError
from particle_os.jobs.boot_tests import boot_test, series
from particle_os.jobs.boot_tests.wanted import BootTestJob
from particle_os.report.progress import Line, Progress
from particle_os.vm.accel import TCG


def report(tmp_path, accelerate=lambda work, progress: TCG, progress=None):
    image = tmp_path / "image.raw"
    image.touch()
    test = BootTestJob(image, "raw", (Variant("bios"), Variant("uefi")), ())
    return boot_test.run(test, accelerate, progress or Progress([]))


def passed(request, directory):
    return Verdict(
        status="passed", firmware=request.variant.firmware, seconds=1.0, message="it is up"
    )


def test_each_firmware_has_its_verdict(tmp_path, monkeypatch):
    monkeypatch.setattr(session, "boot", passed)
    found = report(tmp_path)
    assert [(v.firmware, v.status) for v in found.verdicts] == [
        ("bios", "passed"),
        ("uefi", "passed"),
    ]
    assert found.failure is None
    assert "it is up" in found.page


def test_the_page_shows_the_evidence_of_each_machine(tmp_path, monkeypatch):
    def boot(request, directory):
        request.evidence.directory.mkdir(parents=True)
        journal = request.evidence.directory / files.JOURNAL
        journal.write_text(f"the journal of {request.variant.firmware}")
        return passed(request, directory)

    monkeypatch.setattr(session, "boot", boot)
    page = report(tmp_path).page
    assert "the journal of bios" in page
    assert "the journal of uefi" in page


def test_the_last_line_of_the_console_is_an_event(tmp_path, monkeypatch):
    def boot(request, directory):
        request.on_line(f"starting on {request.variant.firmware}")
        return passed(request, directory)

    monkeypatch.setattr(session, "boot", boot)
    events = []
    sink = SimpleNamespace(emit=events.append)
    report(tmp_path, progress=Progress([sink]))
    lines = [event.text for event in events if isinstance(event, Line)]
    assert lines == ["starting on bios", "starting on uefi"]


def test_a_failure_of_the_host_is_the_last_verdict(tmp_path, monkeypatch):
    def boot(request, directory):
        if request.variant.firmware == "uefi":
            raise InfrastructureError("QEMU is gone")
        return passed(request, directory)

    monkeypatch.setattr(session, "boot", boot)
    found = report(tmp_path)
    expected = [("bios", "passed"), ("uefi", "infrastructure")]
    assert [(v.firmware, v.status) for v in found.verdicts] == expected
    assert found.failure.brief == "QEMU is gone"
    assert "QEMU is gone" in found.page


def test_a_host_without_an_accelerator_has_a_report_too(tmp_path, monkeypatch):
    def refuse(work, progress):
        raise InfrastructureError("no helper")

    monkeypatch.setattr(session, "boot", pytest.fail)
    found = report(tmp_path, refuse)
    (verdict,) = found.verdicts
    assert (verdict.firmware, verdict.status) == ("bios", "infrastructure")
    assert found.failure.brief == "no helper"


def test_an_image_that_does_not_boot_is_rejected_without_a_failure(tmp_path, monkeypatch):
    def boot(request, directory):
        firmware = request.variant.firmware
        status = "passed" if firmware == "bios" else "units-failed"
        return Verdict(status=status, firmware=firmware, seconds=1.0, message="so it is")

    monkeypatch.setattr(session, "boot", boot)
    found = report(tmp_path)
    assert found.failure is None
    assert "units-failed" in found.rejection.brief
    monkeypatch.setattr(session, "boot", passed)
    (tmp_path / "image.raw").unlink()
    assert report(tmp_path).rejection is None


def evidence_of_others(tmp_path):
    place = tmp_path / "evidence/bios"
    place.mkdir(parents=True)
    (place / "journal.txt").write_text("of another test")
    return tmp_path / "evidence"


@pytest.mark.parametrize("reason", ["no accelerator", "another user's"])
def test_evidence_that_is_not_of_this_test_is_in_no_report(tmp_path, monkeypatch, reason):
    def refuse(*arguments):
        raise InfrastructureError(reason)

    monkeypatch.setattr(session, "boot_once", pytest.fail)
    image = tmp_path / "image.raw"
    image.touch()
    place = evidence_of_others(tmp_path)
    if reason == "another user's":
        monkeypatch.setattr(series.Evidence, "clear", refuse)
    test = BootTestJob(image, "raw", (Variant(),), (), evidence=place)
    accelerate = refuse if reason == "no accelerator" else lambda work, progress: TCG
    found = boot_test.run(test, accelerate, Progress([]))
    assert found.failure.brief == reason
    assert "of another test" not in found.page
