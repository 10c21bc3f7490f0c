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
    assert build.outputs() == {"status": "passed", "image": "", "report": ""}
