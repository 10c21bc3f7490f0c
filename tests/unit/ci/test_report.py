"""host/ci/report.py reads the directory of a build's user, as root: a link there leads nowhere."""

import importlib.util
import json
import os
import sys

import pytest

from ...runners.github import TOP
from ..report.pages import result

spec = importlib.util.spec_from_file_location("report_of_ci", TOP / "host/ci/report.py")
report = importlib.util.module_from_spec(spec)


@pytest.fixture
def build(tmp_path, monkeypatch):
    """The files of a build that was killed, and a secret of another user."""
    # Its data classes look for their module.
    monkeypatch.setitem(sys.modules, "report_of_ci", report)
    spec.loader.exec_module(report)
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv/build.pid").touch()
    hidden = tmp_path / "out/.particle-os-1"
    hidden.mkdir(parents=True)
    (hidden / "server.log").write_text("the log")
    (hidden / "server.console.log").write_text("the console")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/server.log").write_text("a secret")
    (tmp_path / "secret/server.result.json").write_text(result("x", []).model_dump_json())
    environment = {
        "PARTICLE_OS_OUTPUT": str(tmp_path / "out"), "PARTICLE_OS_VENV": str(tmp_path / "venv"),
    }  # fmt: skip
    return report.Build(environment)


def contents(build):
    failed = build.directory / "server.failed"
    return {path.name: path.read_text() for path in failed.iterdir()} if failed.is_dir() else {}


def test_the_logs_of_a_build_that_was_killed_are_kept(build):
    build.rescue()
    build.rescue()
    assert contents(build) == {"server.log": "the log", "server.console.log": "the console"}


@pytest.mark.parametrize("what", ["hidden directory", "log", "FIFO"])
def test_no_log_is_read_through_a_link(build, tmp_path, what):
    hidden = build.directory / ".particle-os-1"
    log = hidden / "server.log"
    if what == "hidden directory":
        hidden.rename(tmp_path / "elsewhere")
        hidden.symlink_to(tmp_path / "secret")
    else:
        log.unlink()
        os.mkfifo(log) if what == "FIFO" else log.symlink_to(tmp_path / "secret/server.log")
    build.rescue()
    assert "server.log" not in contents(build)


@pytest.mark.parametrize("what", ["directory", "log"])
def test_no_log_is_written_through_a_link(build, tmp_path, what, capsys):
    """As root, it could replace any file of the machine."""
    failed = build.directory / "server.failed"
    if what == "directory":
        failed.symlink_to(tmp_path / "secret")
    else:
        failed.mkdir()
        (failed / "server.log").symlink_to(tmp_path / "secret/server.log")
    build.rescue()
    assert (tmp_path / "secret/server.log").read_text() == "a secret"
    assert not (tmp_path / "secret/server.console.log").exists()
    assert ("is not kept" in capsys.readouterr().err) is (what == "directory")


@pytest.mark.parametrize("what", ["directory", "file", "summary"])
def test_no_result_is_read_through_a_link(build, tmp_path, what):
    if what == "directory":
        (build.directory / "server.failed").symlink_to(tmp_path / "secret")
    elif what == "file":
        target = tmp_path / "secret/server.result.json"
        (build.directory / "server.result.json").symlink_to(target)
    else:
        (tmp_path / "secret/server.log").write_text("### server: cancelled")
        (build.directory / "summary.md").symlink_to(tmp_path / "secret/server.log")
    assert build.outputs()["status"] == "unknown"
    assert "### server" not in "".join(build.summary())


@pytest.mark.parametrize("name", ["{}/secret/server.log", "../secret/server.log", "server.raw"])
def test_a_result_names_no_image_elsewhere(build, tmp_path, name):
    (build.directory / "server.raw").symlink_to(tmp_path / "secret/server.log")
    data = {"status": "passed", "artifacts": [{"path": name.format(tmp_path)}]}
    (build.directory / "server.result.json").write_text(json.dumps(data))
    (build.directory / "summary.md").write_text("### server: passed\n")
    assert build.outputs() == {"status": "passed", "image": "", "report": ""}


def results_of(build, **statuses):
    """Writes the results of images, one after the other."""
    for name, status in statuses.items():
        place = build.directory if status == "passed" else build.directory / f"{name}.failed"
        place.mkdir(exist_ok=True)
        (place / f"{name}.raw").touch()
        data = {"status": status, "artifacts": [{"path": f"{name}.raw"}]}
        (place / f"{name}.result.json").write_text(json.dumps(data))


@pytest.mark.parametrize("told", ["failed", "cancelled", "not-booted"])
def test_the_status_of_several_images_is_that_of_the_worst_one(build, told):
    results_of(build, a="failed", b="passed")
    (build.directory / "summary.md").write_text(f"## 1 of 2 images are good: {told}\n")
    (build.directory / "particle-os.report.html").touch()
    assert build.outputs() == {
        "status": told,
        "image": str(build.directory / "a.failed/a.raw"),
        "report": str(build.directory / "particle-os.report.html"),
    }


def test_an_image_that_is_good_is_not_the_end_of_a_build_that_was_killed(build):
    results_of(build, a="passed")
    build.environment["PARTICLE_OS_OUTCOME"] = "cancelled"
    assert build.outputs()["status"] == build.end().build_status == "cancelled"
    assert build.outputs()["image"] == str(build.directory / "a.raw")
