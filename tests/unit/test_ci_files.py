"""The files for CI systems: valid for each system, and safe whatever their inputs are."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema

from ..waiting import until

TOP = Path(__file__).parents[2]
JOB = TOP / "host/ci/job.sh"
ACTION = yaml.safe_load((TOP / "action.yml").read_text())
STEPS = ACTION["runs"]["steps"]
COMPONENT = (TOP / "templates/build.yml").read_text()
PAGE = (TOP / "docs/ci.md").read_text()
# https://docs.gitlab.com/ci/jobs/#job-names
RESERVED = {
    "image", "services", "stages", "before_script", "after_script", "variables", "cache", "include",
    "true", "false", "nil", "default", "workflow", "spec", "pages:deploy",
}  # fmt: skip


def examples(heading, language):
    """The code blocks of a language in a section of docs/ci.md."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


def check(document, schema):
    jsonschema.Draft7Validator(get_builtin_schema(f"vendor.{schema}")).validate(document)


def filled():
    """The component as GitLab makes it of its inputs; those without a default are 'given'."""
    head = next(yaml.safe_load_all(COMPONENT))
    inputs = head["spec"]["inputs"]

    def value(found):
        return str(inputs[found[1]].get("default", "given"))

    text = COMPONENT.partition("\n---\n")[2]
    return inputs, yaml.safe_load(re.sub(r"\$\[\[ inputs\.([a-z-]+) \]\]", value, text))


def test_the_action_is_valid():
    check(ACTION, "github-actions")
    used = set(re.findall(r"inputs\.([a-z-]+)", (TOP / "action.yml").read_text()))
    assert used == set(ACTION["inputs"])
    assert all(step["shell"] == "sh" for step in STEPS if "run" in step)


def test_no_input_of_the_action_becomes_shell():
    """The runner puts the text of an expression into the script, whatever it is."""
    assert [step["name"] for step in STEPS if "${{" in step.get("run", "")] == []


def test_the_files_are_named_and_uploaded_whatever_the_build_ends_with():
    build = next(i for i, step in enumerate(STEPS) if step["name"] == "Build and boot")
    later = STEPS[build + 1 :]
    assert later
    assert all("always()" in step["if"] for step in later)
    upload = next(step for step in STEPS if step["name"] == "Upload")["with"]["path"]
    for name in ("*.failed/", "*.evidence/", "*.report.html", "*.log"):
        assert name in upload


def test_the_component_of_gitlab_is_valid():
    inputs, jobs = filled()
    check(jobs, "gitlab-ci")
    assert not RESERVED & set(jobs)
    assert set(re.findall(r"inputs\.([a-z-]+)", COMPONENT)) == set(inputs)
    (job,) = jobs.values()
    # GitLab puts the text of an input into the file: in a script it would be shell.
    scripts = COMPONENT.partition("before_script:")[2].partition("artifacts:")[0]
    assert "$[[" not in scripts
    assert job["artifacts"]["when"] == "always"


def test_the_reserved_names_are_detected():
    with pytest.raises(jsonschema.ValidationError):
        check({"image": {"image": "debian:trixie", "script": ["true"]}}, "gitlab-ci")


@pytest.mark.parametrize("heading", ["GitHub Actions", "Forgejo Actions"])
def test_the_workflows_of_the_page_are_valid(heading):
    # YAML 1.1 takes the key 'on' for a truth value.
    workflows = [
        yaml.safe_load(text.replace("on:", '"on":', 1)) for text in examples(heading, "yaml")
    ]
    assert workflows
    for workflow in workflows:
        check(workflow, "github-workflows")
        for job in workflow["jobs"].values():
            for step in job["steps"]:
                if "particle-os" in step.get("uses", ""):
                    assert set(step["with"]) <= set(ACTION["inputs"])


@pytest.mark.parametrize(
    "path", [*(TOP / ".github/workflows").iterdir()], ids=lambda path: path.name
)
def test_our_own_workflows_are_valid(path):
    workflow = yaml.safe_load(path.read_text().replace("\non:", '\n"on":', 1))
    check(workflow, "github-workflows")
    for job in workflow["jobs"].values():
        assert [step for step in job["steps"] if "${{" in step.get("run", "")] == []


def test_the_pipelines_of_gitlab_on_the_page_are_valid():
    inputs, _ = filled()
    pipelines = [yaml.safe_load(text) for text in examples("GitLab CI", "yaml")]
    assert pipelines
    for pipeline in pipelines:
        check(pipeline, "gitlab-ci")
        for included in pipeline["include"]:
            assert set(included["inputs"]) <= set(inputs)


def scripts():
    """The texts of all shell scripts, by their names."""
    for path in (JOB, TOP / "host/setup.sh"):
        yield path.name, path.read_text()
    for step in STEPS:
        if "run" in step:
            yield step["name"], f"#!/bin/sh\n{step['run']}"
    for path in (TOP / ".github/workflows").iterdir():
        for job in yaml.safe_load(path.read_text())["jobs"].values():
            for step in job["steps"]:
                if "run" in step:
                    yield f"{path.name}: {step['name']}", f"#!/bin/sh\n{step['run']}"
    for job in filled()[1].values():
        lines = [*job["before_script"], *job["script"]]
        yield "GitLab", "\n".join(["#!/bin/sh", "export OUTPUT RECIPE SOURCE ACCELERATOR", *lines])
    for text in examples("Other systems", "sh"):
        yield "the page", f"#!/bin/sh\n{text}"


@pytest.mark.parametrize(("name", "text"), [*scripts()], ids=[name for name, _ in scripts()])
def test_the_shell_scripts_have_no_known_fault(name, text):
    program = Path(sys.executable).with_name("shellcheck")
    # SC2086: the arguments of the action are divided at line ends, and nowhere else.
    argv = [program, "--severity=style", "--exclude=SC2086,SC2154", "-"]
    done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


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
        *("--summary", f"{out}/summary.md", "--set", "a=b c"),
        *("--junit", job["PARTICLE_OS_JUNIT"]),
    ]
    assert Path(job["PARTICLE_OS_JUNIT"]).parent.is_dir()


def test_the_arguments_of_the_action_are_divided_at_line_ends_alone(job, tmp_path):
    step = next(step for step in STEPS if step["name"] == "Build and boot")
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


def named(job):
    done = subprocess.run(
        ["sh", JOB, "outputs"], env=job, check=True, capture_output=True, text=True
    )
    return dict(line.split("=", 1) for line in done.stdout.splitlines())


def test_the_outputs_are_those_of_the_newest_build(job, tmp_path):
    assert named(job) == {"status": "unknown", "image": "", "report": "", "directory": ""}
    out = tmp_path / "out"
    failed = out / "web.failed"
    failed.mkdir(parents=True)
    for place, status in ((out, "passed"), (failed, "not-booted")):
        result = {"status": status, "artifacts": [{"path": "web.qcow2"}]}
        (place / "web.result.json").write_text(json.dumps(result))
        (place / "web.report.html").touch()
        (place / "web.qcow2").touch()
    os.utime(out / "web.result.json", (1, 1))
    assert named(job) == {
        "status": "not-booted",
        "image": f"{failed}/web.qcow2",
        "report": f"{failed}/web.report.html",
        "directory": str(failed),
    }
    shutil.rmtree(failed)
    assert named(job)["status"] == "passed"
    (out / "web.qcow2").unlink()
    assert named(job)["image"] == ""
