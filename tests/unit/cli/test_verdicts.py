import tempfile
from pathlib import Path

import pytest
from particle_os.cli import verdicts
from particle_os.cli.command import OutputStyle
from particle_os.errors import StageFailed, UsageError
from particle_os.report.ci.github import Workflow
from particle_os.system.gate import Gate


def test_a_file_that_can_be_written_is_left_as_it_was(tmp_path):
    there, missing = tmp_path / "there.xml", tmp_path / "missing.xml"
    there.write_text("of last time")
    for file in (there, missing, Path("/dev/stdout")):
        verdicts.check_writable(file)
    assert there.read_text() == "of last time"
    assert not missing.exists()
    verdicts.make_writable(tmp_path / "a/b")
    assert list((tmp_path / "a/b").iterdir()) == []


def test_two_results_do_not_go_to_one_file(tmp_path):
    file = tmp_path / "result"
    verdicts.ResultFiles(junit=file).check_writable([tmp_path / "image.raw"])
    with pytest.raises(UsageError, match="this command needs it for something else"):
        verdicts.ResultFiles(junit=file, summary=file).check_writable()


def test_an_open_file_of_this_process_is_written_to(tmp_path):
    with (tmp_path / "out").open("wb") as file:
        file.write(b"before\n")
        file.flush()
        for name in ("/dev/fd", "/proc/self/fd"):
            verdicts.check_writable(Path(name, str(file.fileno())))
            files = verdicts.ResultFiles(junit=Path(name, str(file.fileno())))
            files.hand_over_failure("x", StageFailed("it failed"))
    text = (tmp_path / "out").read_text()
    assert text.startswith("before\n<?xml")
    assert text.count('message="it failed"') == 2


def test_a_directory_in_which_no_file_can_be_made_is_no_place(tmp_path, monkeypatch):
    """Permissions prove nothing to root, so a file is tried."""
    verdicts.make_writable(None)

    def refuse(**options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(UsageError, match="a cannot be written: Permission denied"):
        verdicts.make_writable(tmp_path / "a")
    with pytest.raises(UsageError, match=r"x\.xml cannot be written: Permission denied"):
        verdicts.check_writable(tmp_path / "x.xml")


def test_no_file_of_a_failed_build_shows_a_secret(tmp_path):
    """The annotations, the JUnit file and the summary are written before the error is shown."""
    secret = "hunter2-of-the-stage"
    said = []
    output = OutputStyle(
        gate=Gate([secret.encode()]), workflow=Workflow(said.append, {"GITHUB_ACTIONS": "true"})
    )
    files = verdicts.ResultFiles(junit=tmp_path / "boot.xml", summary=tmp_path / "summary.md")
    error = StageFailed(f"no {secret}", hint=f"use {secret}", tail=[f"it was {secret}"])
    verdicts.hand_over_failure(output, "x", error, files)
    texts = [*said, *(file.read_text() for file in files.wanted)]
    assert len(texts) == 3
    for text in texts:
        assert "***" in text
        assert secret not in text
