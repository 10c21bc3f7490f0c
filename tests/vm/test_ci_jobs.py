"""Whole jobs of CI, on machines as bare as a container: from nothing to a booted image.

The machines have neither user namespaces nor /dev/kvm nor any package beyond Debian's smallest
system with apt. The scripts are those of action.yml, templates/build.yml and docs/ci.md.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..runners import gitlab, jenkins
from ..runners.github import Runner
from ..runners.machines import PATH, Machines
from .conftest import TOP
from .test_failures import wait_until

pytestmark = [
    pytest.mark.weekly,
    pytest.mark.skipif(os.getuid() != 0, reason="only root makes a system in a directory"),
]
RECIPE = TOP / "recipes/minimal-test.yml"
PAGE = (TOP / "docs/ci.md").read_text()
# ProcessInvoker.cs of GitHub's runner.
INTERRUPT_SECONDS, TERMINATE_SECONDS = 7.5, 2.5


def proxies() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k.lower().endswith("_proxy")}


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    directory = tmp_path_factory.mktemp("machines")
    yield Machines.make(directory)
    shutil.rmtree(directory, ignore_errors=True)


def job(runner: Runner, **options: object) -> dict[str, str]:
    shutil.copy(RECIPE, runner.workspace)
    outputs = runner.run({"recipe": RECIPE.name}, **options)  # type: ignore[arg-type]
    # `pytest -s` shows the seconds of each step.
    print({name: (ended.outcome, round(ended.seconds)) for name, ended in runner.steps.items()})
    return outputs


@pytest.fixture(scope="module")
def first(machines: Machines) -> Iterator[tuple[Runner, dict[str, str]]]:
    """The first job of a repository, and its outputs. Its cache is stored for later jobs."""
    runner = machines.github("first", proxies())
    yield runner, job(runner)
    machines.remove("first")


@pytest.fixture(scope="module")
def second(
    machines: Machines, first: tuple[Runner, dict[str, str]]
) -> Iterator[tuple[Runner, dict[str, str]]]:
    """A later job, on another machine."""
    first[0].retire(machines.directory / "first-runner")
    runner = machines.github("second", proxies())
    yield runner, job(runner)
    machines.remove("second")


PASSED = {
    "status": "passed", "image": "out/minimal-test.raw",
    "report": "out/minimal-test.report.html",
}  # fmt: skip


def test_the_action_makes_a_booted_image_on_a_bare_machine(
    first: tuple[Runner, dict[str, str]],
) -> None:
    runner, outputs = first
    assert outputs["status"] == "passed", runner.log[-3000:]
    assert outputs == PASSED
    assert runner.summary.startswith("### minimal&#45;test: passed\n")
    assert "::notice title=boot test of minimal-test (bios)%3A passed::" in runner.log
    assert {"out/minimal-test.qcow2", "out/boot.xml", "out/SHA256SUMS"} <= runner.uploaded()
    result = json.loads((runner.workspace / "out/minimal-test.result.json").read_text())
    assert result["helper"]["accelerator"] == "tcg"
    assert runner.outcome("Save the cache") == "success"


def test_the_next_job_uses_the_cache_of_the_first(
    first: tuple[Runner, dict[str, str]], second: tuple[Runner, dict[str, str]]
) -> None:
    runner, outputs = second
    assert outputs == PASSED, runner.log[-3000:]
    assert runner.steps["Restore the cache"].outputs["cache-matched-key"]
    result = json.loads((runner.workspace / "out/minimal-test.result.json").read_text())
    before = json.loads((first[0].workspace / "out/minimal-test.result.json").read_text())
    # The phase makes a helper VM, or finds the one in the cache.
    assert result["phases"]["helper VM"] < before["phases"]["helper VM"] / 3
    # The same content has the same key.
    assert runner.outcome("Save the cache") == "skipped"


def cancelled_by(runner: Runner, words: str) -> object:
    """Cancels the build once its progress contains `words`, as GitHub's runner does."""

    def cancel(process: subprocess.Popen[bytes]) -> None:
        def told() -> bool:
            return any(words in path.read_text() for path in runner.temp.glob("*.log"))

        wait_until(told, 900)
        for number, seconds in (
            (signal.SIGINT, INTERRUPT_SECONDS),
            (signal.SIGTERM, TERMINATE_SECONDS),
        ):
            process.send_signal(number)
            try:
                process.wait(timeout=seconds)
                return
            except subprocess.TimeoutExpired:
                continue
        process.kill()
        process.wait()

    return cancel


def left(runner: Runner) -> list[Path]:
    """Processes, hidden directories and private files of a build that has ended."""
    found = [path for path in (runner.workspace / "out").iterdir() if path.name[0] == "."]
    work = runner.temp / "particle-os-cache/particle-os/work"
    found += [path for path in work.glob("*") if path.name != ".lock"]
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if str(runner.directory) in os.readlink(place / "cwd"):
                found.append(place)
        except OSError:
            continue
    return found


def test_a_cancelled_job_ends_in_time_and_leaves_its_logs_and_nothing_else(
    machines: Machines, second: tuple[Runner, dict[str, str]]
) -> None:
    runner = second[0]
    shutil.rmtree(runner.workspace / "out")
    shutil.rmtree(runner.artifact)
    runner.steps.clear()
    outputs = job(runner, cancel=cancelled_by(runner, "stage 1/"))
    assert runner.steps["Build and boot"].status == 128 + signal.SIGINT
    assert outputs == {"status": "cancelled", "image": "", "report": ""}
    assert "### minimal&#45;test: cancelled" in runner.summary
    assert "out/minimal-test.failed/minimal-test.log" in runner.uploaded()
    assert "out/boot.xml" in runner.uploaded()
    wait_until(lambda: left(runner) == [], 5)


def test_the_component_of_gitlab_makes_a_booted_image(machines: Machines) -> None:
    root = machines.root("gitlab")
    project = machines.directory / "gitlab-project"
    project.mkdir()
    shutil.copy(RECIPE, project)
    environment = {"PATH": PATH, "HOME": "/root", **proxies()}
    runner = gitlab.Runner(project, environment, machines.enter(root, [project]))
    _, jobs = gitlab.filled({"recipe": RECIPE.name, "source": "/srv/particle-os"})
    (work,) = jobs.values()
    process = runner.start(work, ["before_script", "script"])
    log = process.communicate()[0]
    assert process.returncode == 0, log
    after = runner.start(work, ["after_script"])
    assert after.communicate()[0] == ""
    assert after.returncode == 0
    result = json.loads((project / "out/minimal-test.result.json").read_text())
    assert result["status"] == "passed"
    assert (
        '<testcase classname="minimal-test" name="boot"' in (project / "out/boot.xml").read_text()
    )
    for path in work["cache"]["paths"][:3]:
        assert list((project / path).iterdir()), path
    machines.remove("gitlab")


def test_the_pipeline_of_jenkins_makes_a_booted_image(machines: Machines) -> None:
    """Root installs as the page says, and an ordinary user, without any right, builds."""
    root = machines.root("jenkins")
    workspace = machines.directory / "jenkins-workspace"
    workspace.mkdir()
    shutil.copy(RECIPE, workspace / "image.yml")
    os.chown(workspace, 1000, 1000)
    section = PAGE.partition("\n## Other systems\n")[2]
    (install,) = re.findall(r"```sh\n(.*?)```", section.partition("\n## ")[0], re.DOTALL)
    install = install.replace("pip install particle-os", "pip install /srv/particle-os")
    environment = {"PATH": PATH, "HOME": "/home/builder", "LANG": "C.UTF-8", **proxies()}
    enter = machines.enter(root, [workspace])
    subprocess.run([*enter, "sh", "-ec", install], check=True, env=environment, timeout=1800)
    (script,) = jenkins.scripts(section)
    user = ("setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "--no-new-privs")
    as_user = f"exec {shlex.join(user)} --bounding-set=-all sh -xec {shlex.quote(script)}"
    built = subprocess.run(
        [*enter, "sh", "-c", f"cd {workspace} && {as_user}"], check=False, env=environment,
        capture_output=True, text=True, timeout=3600,
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    result = json.loads((workspace / "out/minimal-test.result.json").read_text())
    assert result["status"] == "passed"
    machines.remove("jenkins")
