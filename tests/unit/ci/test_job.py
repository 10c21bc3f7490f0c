"""host/ci/job.sh, with a stand-in for particle-os that ends as its recipe says."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ...runners.github import ACTION, TOP
from ...waiting import until

JOB = TOP / "host/ci/job.sh"


# Stands for the installed program: writes its arguments, and ends as its recipe says.
PROGRAM = """\
#!/bin/sh
trap 'exit 143' TERM
printf '%s\\n' "$XDG_CACHE_HOME" "$@" >"$STARTED.new"
mv "$STARTED.new" "$STARTED"
case $2 in
wait) sleep 60 & wait ;;
*) exit "$2" ;;
esac
"""


@pytest.fixture
def job(tmp_path):
    """The environment of a job whose program is a stand-in, and the file that it writes."""
    venv = tmp_path / "venv/bin"
    venv.mkdir(parents=True)
    (venv / "particle-os").write_text(PROGRAM)
    (venv / "particle-os").chmod(0o755)
    (venv / "python").symlink_to(sys.executable)
    commands = tmp_path / "commands"
    commands.mkdir()
    # Root would build as another user; the script asks id(1) who it is.
    (commands / "id").write_text("#!/bin/sh\necho 1000\n")
    (commands / "id").chmod(0o755)
    return {
        "PATH": f"{commands}:{os.environ['PATH']}",
        "PARTICLE_OS_VENV": str(tmp_path / "venv"),
        "PARTICLE_OS_CACHE": str(tmp_path / "cache"),
        "PARTICLE_OS_OUTPUT": str(tmp_path / "out"),
        "PARTICLE_OS_ACCELERATOR": "tcg",
        "PARTICLE_OS_JUNIT": str(tmp_path / "results/boot.xml"),
        "STARTED": str(tmp_path / "started"),
    }


@pytest.mark.parametrize("status", [0, 3, 4, 5])
def test_a_job_ends_as_the_build_does(job, status):
    job["PARTICLE_OS_RECIPE"] = str(status)
    done = subprocess.run(["sh", JOB, "build", "--set", "a=b c"], env=job, check=False)
    assert done.returncode == status
    out = job["PARTICLE_OS_OUTPUT"]
    assert Path(job["STARTED"]).read_text().splitlines() == [
        job["PARTICLE_OS_CACHE"],
        *("build", str(status), "--output", out, "--accel", "tcg", "--progress", "plain"),
        "--no-save-memory",
        *("--summary", f"{out}/summary.md", "--set", "a=b c"),
        *("--junit", job["PARTICLE_OS_JUNIT"]),
    ]
    assert Path(job["PARTICLE_OS_JUNIT"]).parent.is_dir()


def test_the_arguments_of_the_action_are_divided_at_line_ends_alone(job, tmp_path):
    step = next(step for step in ACTION["runs"]["steps"] if step["name"] == "Build and boot")
    hostile = "--set\na=$(touch bad); `touch bad` *\n--max-age\n12"
    job |= {
        "PARTICLE_OS_RECIPE": "0", "GITHUB_ACTION_PATH": str(TOP), "PARTICLE_OS_ARGUMENTS": hostile,
    }  # fmt: skip
    subprocess.run(["sh", "-e", "-c", step["run"]], env=job, check=True, cwd=tmp_path)
    words = Path(job["STARTED"]).read_text().splitlines()
    assert words[-6:-2] == hostile.split("\n")
    assert not (tmp_path / "bad").exists()


def test_the_signal_of_a_cancelled_job_reaches_the_build(job):
    job["PARTICLE_OS_RECIPE"] = "wait"
    process = subprocess.Popen(["sh", JOB, "build"], env=job)
    until(Path(job["STARTED"]).exists)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 143
