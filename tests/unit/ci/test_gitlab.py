"""The scripts of templates/build.yml, run as GitLab's runner runs them, in each end of a job."""

import fnmatch
import json
import os
import re
import signal

import pytest
from particle_os import __version__

from ...runners import gitlab, played
from ...waiting import until
from . import results

pytestmark = pytest.mark.slow


@pytest.fixture
def runner(tmp_path):
    played.install(tmp_path)
    project = tmp_path / "project of ours"
    project.mkdir()
    return gitlab.Runner(project, {})


def prepared(runner, ends, **given):
    """The job, for a recipe whose build ends so; the program is in a directory of the test."""
    place = runner.project.parent
    venv = {"PARTICLE_OS_VENV": str(place / "venv")}
    runner.environment = {**played.environment(place, ends), **venv}
    (job,) = gitlab.filled({"recipe": "leaky.yml", **given})[1].values()
    return job


def end(runner, job, cancel=None):
    """Runs the parts of the job as the runner does; returns the exit status and the log."""
    process = runner.start(job, ["before_script", "script"])
    if cancel is not None:
        cancel(process)
    log = process.communicate()[0]
    after = runner.start(job, ["after_script"])
    after.communicate()
    assert after.returncode == 0
    return process.returncode, log


def artifacts(runner, job):
    """The files that the runner uploads, by their names in the project."""
    files = [str(p.relative_to(runner.project)) for p in runner.project.rglob("*") if p.is_file()]
    patterns = [f"{pattern}*" if pattern[-1] == "/" else pattern for pattern in paths(job)]
    return {file for file in files if any(fnmatch.fnmatch(file, p) for p in patterns)}


def paths(job):
    return [*job["artifacts"]["paths"], job["artifacts"]["reports"]["junit"]]


def left(runner):
    return results.left_behind(runner.project / "out", runner.project / ".cache/particle-os")


@pytest.mark.parametrize("ends", results.TABLE)
def test_exit_status_junit_and_result_agree(runner, ends):
    status, cases, _, _, told = results.TABLE[ends]
    job = prepared(runner, ends)
    found, log = end(runner, job)
    assert found == status, log
    assert results.of_junit(runner.project / "out/boot.xml") == cases
    place = "out" if ends == "good" else "out/leaky.failed"
    result = json.loads((runner.project / place / "leaky.result.json").read_text())
    assert result["status"] == told
    wanted = {f"{place}/leaky.{ending}" for ending in ("result.json", "report.html", "log")}
    assert {"out/boot.xml", *wanted} <= artifacts(runner, job)
    assert left(runner) == []


def test_packages_and_program_are_installed_before_the_build(runner):
    _, log = end(runner, prepared(runner, "good"))
    lines = log.splitlines()
    assert lines[0] == "apt-get update"
    assert lines[1].startswith("apt-get install -y --no-install-recommends ca-certificates ")
    assert {"qemu-system-x86", "ovmf"} <= {*lines[1].split()}
    assert not {"qemu-system-arm", "qemu-efi-aarch64"} & {*lines[1].split()}
    assert not any("git" in line.split() for line in lines)
    arguments = (runner.project.parent / "venv/bin/pip.arguments").read_text().split()
    assert arguments[-1] == f"particle-os=={__version__}"


def test_an_architecture_beside_that_of_the_runner_gets_its_packages(runner):
    job = prepared(runner, "good", architectures="arm64")
    _, log = end(runner, job)
    installed = {*log.splitlines()[1].split()}
    assert {"qemu-system-x86", "ovmf", "qemu-system-arm", "qemu-efi-aarch64"} <= installed


def test_an_unknown_architecture_ends_the_job_of_gitlab(runner):
    inputs, _ = gitlab.filled({"recipe": "given"})
    allowed = inputs["architectures"]["regex"]
    for text in ("", "arm64", "amd64 arm64"):
        assert re.search(allowed, text)
    assert not re.search(allowed, "arm46")
    # A variable of the pipeline is not compared with it.
    job = prepared(runner, "good")
    job["variables"]["PARTICLE_OS_ARCHITECTURES"] = "arm46"
    process = runner.start(job, ["before_script", "script"])
    log = process.communicate()[0]
    assert process.returncode == 2
    assert "makes no images of arm46" in log


def test_a_source_in_git_installs_git(runner):
    job = prepared(runner, "good")
    job["variables"]["PARTICLE_OS_SOURCE"] = "git+https://git.example.org/particle-os.git"
    _, log = end(runner, job)
    assert "apt-get install -y --no-install-recommends git" in log.splitlines()


@pytest.mark.parametrize("ends", ["wait", "deaf"])
def test_a_cancelled_job_leaves_its_logs_and_nothing_else(runner, ends):
    """SIGTERM comes to all processes; then the container is removed, which kills what is left."""

    def cancel(process):
        until((runner.project.parent / "started").exists)
        for number in (signal.SIGTERM, *([signal.SIGKILL] if ends == "deaf" else [])):
            for pid in gitlab.ending(process.pid):
                os.kill(pid, number)

    job = prepared(runner, ends)
    status, log = end(runner, job, cancel)
    assert status in (128 + signal.SIGTERM, -signal.SIGTERM, -signal.SIGKILL)
    assert left(runner) == []
    if ends == "wait":
        assert "error: ended by SIGTERM" in log
        assert results.of_junit(runner.project / "out/boot.xml") == ["error"]
        assert "out/leaky.failed/leaky.log" in artifacts(runner, job)
