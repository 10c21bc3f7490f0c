"""The steps of action.yml, run as the runners of GitHub and Forgejo run them, in each end of a job.

particle-os itself runs, with played VMs: exit code, JUnit, annotations, summary, outputs and the
files of the artifact must agree.
"""

import shutil
import signal
from pathlib import Path

import pytest

from ...runners import played
from ...runners.github import Runner
from ...waiting import is_running, until
from . import results

pytestmark = pytest.mark.slow

# The variables of the platforms, without the files and paths of a step.
PLATFORMS = {
    "github": {"GITHUB_SERVER_URL": "https://github.com"},
    # https://forgejo.org/docs/latest/user/actions/reference/
    "forgejo": {
        "GITHUB_SERVER_URL": "https://git.example.org", "FORGEJO_ACTIONS": "true",
        "GITEA_ACTIONS": "true",
    },
}  # fmt: skip
IMAGES = ("good", "check failed", "not booted", "defective")


@pytest.fixture
def platform():
    return "github"


@pytest.fixture
def runner(platform, tmp_path):
    played.install(tmp_path)
    environment = {**played.environment(tmp_path, ""), **PLATFORMS[platform]}
    return Runner(tmp_path / "machine", tmp_path / "stored", environment)


def job(runner, ends, cancel=None, **given):
    """Runs a job of the played recipe; returns the outputs of the action."""
    runner.environment = {**runner.environment, "PLAYED": ends}
    return runner.run({"recipe": "leaky.yml", **given}, cancel)


@pytest.mark.parametrize(
    ("platform", "ends"),
    [
        *(("github", ends) for ends in results.TABLE),
        ("forgejo", "good"),
        ("forgejo", "stage failed"),
    ],
)
def test_everything_that_a_job_shows_agrees(runner, ends):
    status, cases, annotation, heading, told = results.TABLE[ends]
    outputs = job(runner, ends)
    assert runner.steps["Build and boot"].status == status, runner.log
    assert results.of_junit(runner.artifact / "out/boot.xml") == cases
    assert results.annotations(runner.log) == [annotation]
    assert runner.summary.replace("&#45;", "-").startswith(f"### leaky: {heading}\n")
    place = "out" if ends == "good" else "out/leaky.failed"
    assert outputs == {
        "status": told,
        "image": f"{place}/leaky.raw" if ends in IMAGES else "",
        "report": f"{place}/leaky.report.html",
    }
    assert f"{place}/leaky.result.json" in runner.uploaded()
    assert f"{place}/leaky.log" in runner.uploaded()
    if ends in ("good", "check failed", "not booted"):
        assert f"{place}/leaky.evidence/bios/console.log" in runner.uploaded()
    assert left(runner) == []


@pytest.mark.parametrize("ends", results.TWO_IMAGES)
def test_everything_that_a_job_of_two_images_shows_agrees(runner, ends):
    """The second image is built last, and its result is the newest one."""
    status, cases, shown, heading = results.TWO_IMAGES[ends]
    cancel = ended_by(runner, signal.SIGTERM) if ends == "wait" else None
    outputs = job(runner, f"{ends}, good", cancel, arguments="other.yml\n--jobs\n1")
    assert runner.steps["Build and boot"].status == status, runner.log
    assert results.of_junit(runner.artifact / "out/boot.xml") == cases
    assert results.annotations(runner.log) == shown
    assert runner.summary.startswith(f"## {heading}\n")
    assert outputs == {
        "status": heading.rpartition(": ")[2],
        "image": {"good": "out/leaky.raw", "stage failed": "out/other.raw", "wait": ""}[ends],
        "report": "out/particle-os.report.html",
    }
    assert left(runner) == []


def test_a_build_that_ends_before_it_has_a_result_has_a_status_too(runner):
    outputs = job(runner, "no mirror")
    assert runner.steps["Build and boot"].status == 5
    assert outputs == {"status": "infrastructure", "image": "", "report": ""}
    assert results.of_junit(runner.artifact / "out/boot.xml") == ["error"]
    assert results.annotations(runner.log) == ["error infrastructure"]
    assert runner.summary.startswith("### leaky: infrastructure\n")


def begun(runner):
    """Waits until the build is in the middle of a stage; returns its process."""
    until(Path(runner.environment["STARTED"]).exists)
    return int((runner.temp / "particle-os-venv/build.pid").read_text().split()[0])


def ended_by(runner, *signals):
    """Sends signals to the process of the step, and waits for its end."""

    def cancel(process):
        assert begun(runner) == process.pid
        for number in signals:
            process.send_signal(number)
        process.wait()

    return cancel


def left(runner):
    cache = runner.temp / "particle-os-cache/particle-os"
    return results.left_behind(runner.workspace / "out", cache)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_cancelled_job_leaves_its_logs_and_nothing_else(runner, number):
    outputs = job(runner, "wait", ended_by(runner, number))
    assert runner.steps["Build and boot"].status == 128 + number
    assert results.of_junit(runner.artifact / "out/boot.xml") == ["error"]
    assert results.annotations(runner.log) == ["error cancelled"]
    assert runner.summary.startswith("### leaky: cancelled\n")
    assert f"ended by {number.name}" in runner.summary
    assert outputs == {"status": "cancelled", "image": "", "report": ""}
    assert "out/leaky.failed/leaky.log" in runner.uploaded()
    assert left(runner) == []


def test_a_build_that_no_signal_ends_is_killed_and_leaves_its_logs(runner):
    """As after 7.5 s and 2.5 s more."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
    outputs = job(runner, "deaf", ended_by(runner, *signals))
    assert runner.steps["Build and boot"].status == -signal.SIGKILL
    assert outputs == {"status": "cancelled", "image": "", "report": ""}
    assert runner.summary.replace("&#45;", "-").startswith("### particle-os: cancelled\n")
    assert results.annotations(runner.log) == ["error cancelled"]
    assert results.of_junit(runner.artifact / "out/boot.xml") == ["error"]
    assert "out/leaky.failed/leaky.log" in runner.uploaded()
    assert runner.outcome("Upload") == "success"
    assert left(runner) == []


@pytest.mark.parametrize("ends", ["wait", "deaf"])
def test_a_build_in_a_container_ends_although_no_signal_reaches_it(runner, monkeypatch, ends):
    """The runner ends its own docker exec, and then runs the steps with always()."""
    pids = []
    # The script waits for 30 s before it kills; a sleep that does not sleep counts faster.
    sleep = "exit 0" if ends == "deaf" else 'exec /bin/sleep "$@"'
    played.write_program(runner.temp.parents[1] / "commands/sleep", f"#!/bin/sh\n{sleep}\n")
    outputs = job(runner, ends, lambda process: pids.append(begun(runner)))
    assert "the build still runs; it ends now" in runner.log
    until(lambda: not is_running(pids[0]))
    assert outputs["status"] == "cancelled"
    assert "out/leaky.failed/leaky.log" in runner.uploaded()
    assert results.of_junit(runner.artifact / "out/boot.xml") == ["error"]
    assert left(runner) == []


def test_the_result_of_an_earlier_build_does_not_stand_for_one_that_was_killed(runner):
    assert job(runner, "good")["status"] == "passed"
    runner.steps.clear()
    outputs = job(runner, "deaf", ended_by(runner, signal.SIGKILL))
    assert outputs == {"status": "cancelled", "image": "", "report": ""}
    assert results.of_junit(runner.workspace / "out/boot.xml") == ["error"]


def test_a_job_whose_installation_fails_says_so(runner, tmp_path):
    for name in ("pip", "particle-os"):
        (tmp_path / "venv-to-be/bin" / name).unlink()
    played.write_program(tmp_path / "venv-to-be/bin/pip", "#!/bin/sh\nexit 7\n")
    outputs = job(runner, "good")
    assert runner.steps["Install"].status == 7
    assert runner.outcome("Build and boot") == "skipped"
    assert runner.outcome("Report") == "success"
    assert "particle-os was not installed" in runner.log
    assert outputs == {"status": "", "image": "", "report": ""}
    assert runner.outcome("Save the cache") == "skipped"


def fill(runner, *names):
    for name in names:
        path = runner.temp / "particle-os-cache/particle-os" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_the_cache_is_saved_when_its_content_has_changed_and_only_then(runner, tmp_path):
    job(runner, "good")
    assert runner.outcome("Save the cache") == "skipped"
    fill(runner, "helpers/one", "packages/a_1_amd64.deb", "helpers/one.lock")
    job(runner, "stage failed")
    (first,) = runner.saved()
    # Another machine, with the same paths: what the first one saved is there.
    shutil.rmtree(runner.directory)
    other = Runner(runner.directory, runner.stored, runner.environment)
    job(other, "good")
    assert (other.temp / "particle-os-cache/particle-os/helpers/one").is_file()
    assert other.steps["Restore the cache"].outputs == {"cache-matched-key": first}
    assert other.outcome("Save the cache") == "skipped"


def test_a_job_without_a_cache_neither_restores_nor_saves(runner):
    fill(runner, "helpers/one")
    job(runner, "good", cache="false", artifact="", junit="")
    assert runner.saved() == []
    assert [runner.outcome(name) for name in ("Restore the cache", "Save the cache", "Upload")] == (
        ["skipped"] * 3
    )
