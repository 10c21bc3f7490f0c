"""host/ci/job.sh, with a stand-in for particle-os that ends as its recipe says."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ...runners import played
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
    # A link would find neither the packages of this Python nor particle-os.
    played.write_program(venv / "python", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
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


@pytest.mark.parametrize("name", ["output", "junit"])
def test_a_clone_is_no_directory_of_results(job, tmp_path, name):
    """Its files would be uploaded, or get another owner."""
    (tmp_path / "clone/.git").mkdir(parents=True)
    places = {"output": ("OUTPUT", "clone"), "junit": ("JUNIT", "clone/boot.xml")}
    variable, place = places[name]
    job |= {"PARTICLE_OS_RECIPE": "0", f"PARTICLE_OS_{variable}": str(tmp_path / place)}
    done = subprocess.run(
        ["sh", JOB, "build"], env=job, check=False, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"job.sh: {name}: {tmp_path}/clone is a clone; name a place")


@pytest.fixture
def kvm(job, tmp_path):
    """The script of a job with other paths for those of the system, and its /dev/kvm."""
    device = tmp_path / "dev/kvm"
    device.parent.mkdir()
    text = JOB.read_text()
    for place in ("/dev/kvm", "/run/udev", "/etc/udev/rules.d"):
        assert place in text
        text = text.replace(place, f"{tmp_path}{place}")
    # Only what opens the device, as a user who is not root.
    script = tmp_path / "allow.sh"
    script.write_text(text.partition("\nverb=")[0] + "\nallow_kvm\n")
    commands = tmp_path / "commands"
    for name, body in {
        "sudo": 'shift; exec "$@"',
        "udevadm": f'echo udevadm "$@" >>{tmp_path}/asked',
        "chmod": f'echo chmod "$@" >>{tmp_path}/asked',
    }.items():
        played.write_program(commands / name, f"#!/bin/sh\n{body}\n")
    return script, device


def asked(job, tmp_path, script):
    """The commands of root that the script has run."""
    subprocess.run(["sh", script], env=job, check=True)
    found = tmp_path / "asked"
    return found.read_text().splitlines() if found.exists() else []


def test_a_runner_with_udev_gets_a_rule_for_kvm(job, tmp_path, kvm):
    script, device = kvm
    device.touch(0o600)
    (tmp_path / "run/udev").mkdir(parents=True)
    rules = tmp_path / "etc/udev/rules.d"
    rules.mkdir(parents=True)
    # Root may write to each file.
    script.write_text(script.read_text().replace(f"-w {device}", "-w /proc/none"))
    assert asked(job, tmp_path, script) == [
        "udevadm control --reload-rules",
        "udevadm trigger --name-match=kvm --settle",
    ]
    rule = 'KERNEL=="kvm", GROUP="kvm", MODE="0666", OPTIONS+="static_node=kvm"\n'
    assert (rules / "99-particle-os-kvm.rules").read_text() == rule


def test_a_container_opens_the_kvm_that_it_was_given(job, tmp_path, kvm):
    script, device = kvm
    device.touch(0o600)
    script.write_text(script.read_text().replace(f"-w {device}", "-w /proc/none"))
    assert asked(job, tmp_path, script) == [f"chmod 0666 {device}"]


def test_a_kvm_that_is_open_or_missing_is_left_alone(job, tmp_path, kvm):
    script, device = kvm
    assert asked(job, tmp_path, script) == []
    device.touch(0o666)
    assert asked(job, tmp_path, script) == []


def test_a_job_that_ends_before_its_build_has_a_junit_file_too(job):
    """The runner cancels it between two steps; the output directory is not made yet."""
    done = subprocess.run(["sh", JOB, "report"], env=job, check=False, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b"<error" in Path(job["PARTICLE_OS_JUNIT"]).read_bytes()


def test_no_junit_file_is_written_through_a_link_of_the_build(job, tmp_path):
    """The report step may run as root, and the output directory is the build's."""
    output = Path(job["PARTICLE_OS_OUTPUT"])
    output.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (output / "results").symlink_to(tmp_path / "elsewhere")
    job["PARTICLE_OS_JUNIT"] = str(output / "results/boot.xml")
    done = subprocess.run(["sh", JOB, "report"], env=job, check=False, capture_output=True)
    assert b"a link leads out of" in done.stderr
    assert not list((tmp_path / "elsewhere").iterdir())
    (output / "results").unlink()
    subprocess.run(["sh", JOB, "report"], env=job, check=True, capture_output=True)
    assert b"<error" in Path(job["PARTICLE_OS_JUNIT"]).read_bytes()


@pytest.mark.parametrize(
    ("given", "words"),
    [("", []), ("arm64", ["arm64"]), ("amd64\narm64 ", ["amd64", "arm64"]), ("*", ["*"])],
)
def test_the_packages_of_the_wanted_architectures_are_installed(job, tmp_path, given, words):
    """The step of the action gives the names to setup.sh, as words and nothing else."""
    step = next(step for step in ACTION["runs"]["steps"] if step["name"] == "Install")
    assert step["env"]["PARTICLE_OS_ARCHITECTURES"] == "${{ inputs.architectures }}"
    tree = tmp_path / "tree"
    (tree / "host/ci").mkdir(parents=True)
    (tree / "host/ci/job.sh").write_text(JOB.read_text())
    # A failure ends the installation before pip.
    script = f"printf '%s\\n' \"$@\" >{tmp_path}/asked; exit 7\n"
    (tree / "host/setup.sh").write_text(script)
    job |= {"GITHUB_ACTION_PATH": str(tree), "PARTICLE_OS_ARCHITECTURES": given}
    done = subprocess.run(["sh", "-e", "-c", step["run"]], env=job, cwd=tmp_path, check=False)
    assert done.returncode == 7
    assert (tmp_path / "asked").read_text().splitlines() == ["packages", *words]
