"""The files for CI systems: valid for each system, and safe whatever their inputs are."""

import copy
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema

from ...runners import gitlab, jenkins
from ..cli.command_line import commands, unknown_options

TOP = Path(__file__).parents[3]
JOB = TOP / "host/ci/job.sh"
ACTION = yaml.safe_load((TOP / "action.yml").read_text())
STEPS = ACTION["runs"]["steps"]
COMPONENT = gitlab.COMPONENT
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


def test_the_action_is_valid():
    check(ACTION, "github-actions")
    used = set(re.findall(r"inputs\.([a-z-]+)", (TOP / "action.yml").read_text()))
    assert used == set(ACTION["inputs"])
    assert all(step["shell"] == "sh" for step in STEPS if "run" in step)


def lint(*argv):
    """Runs a linter that is installed beside Python, and returns its complaints."""
    program = Path(sys.executable).with_name(argv[0])
    done = subprocess.run([program, *argv[1:]], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def as_workflow():
    """The steps of the action as a workflow: actionlint reads workflows only."""
    inputs = {
        name: {"type": "string", "default": str(given.get("default", ""))}
        for name, given in ACTION["inputs"].items()
    }
    job = {"runs-on": "ubuntu-latest", "steps": copy.deepcopy(STEPS)}
    return {"on": {"workflow_call": {"inputs": inputs}}, "jobs": {"action": job}}


def test_actionlint_finds_nothing_in_the_action(tmp_path):
    """It knows the types in expressions, the outputs of steps, and the inputs of known actions."""
    workflow = as_workflow()
    path = tmp_path / "action.yml"
    path.write_text(yaml.safe_dump(workflow, sort_keys=False))
    assert lint("actionlint", "-no-color", "-shellcheck=", path) == ""
    # The linter sees what it is asked to see.
    steps = workflow["jobs"]["action"]["steps"]
    steps[-1]["if"] = "steps.reports.outputs.cache-key != ''"
    path.write_text(yaml.safe_dump(workflow, sort_keys=False))
    assert '"reports" is not defined' in lint("actionlint", "-no-color", "-shellcheck=", path)


def test_zizmor_finds_no_weakness_in_the_action_and_the_workflows(tmp_path):
    """It audits them for injections, credentials that stay, and rights that are too broad."""
    files = [TOP / "action.yml", *(TOP / ".github/workflows").iterdir()]
    config = TOP / ".github/zizmor.yml"
    argv = ("zizmor", "--offline", "--no-progress", "--color=never", "--config", config)
    assert lint(*argv, *files) == ""
    weak = tmp_path / "action.yml"
    weak.write_text(files[0].read_text().replace('sh "$GITHUB_ACTION_PATH', "${{ inputs.recipe }}"))
    assert "template-injection" in lint(*argv, weak)


def test_no_input_of_the_action_becomes_shell():
    """The runner puts the text of an expression into the script, whatever it is."""
    assert [step["name"] for step in STEPS if "${{" in step.get("run", "")] == []


def test_the_files_are_named_and_uploaded_whatever_the_build_ends_with():
    build = next(i for i, step in enumerate(STEPS) if step["name"] == "Build and boot")
    later = STEPS[build + 1 :]
    assert later
    assert all("always()" in step["if"] for step in later)
    upload = next(step for step in STEPS if step["name"] == "Upload")["with"]["path"]
    assert upload.split("\n")[0] == "${{ inputs.output }}/"


def test_the_component_of_gitlab_is_valid():
    inputs, jobs = gitlab.filled({"recipe": "given"})
    check(jobs, "gitlab-ci")
    assert not RESERVED & set(jobs)
    assert set(re.findall(r"inputs\.([a-z-]+)", COMPONENT)) == set(inputs)
    (job,) = jobs.values()
    # GitLab puts the text of an input into the file: in a script it would be shell.
    scripts = COMPONENT.partition("before_script:")[2].partition("artifacts:")[0]
    assert "$[[" not in scripts
    assert job["artifacts"]["when"] == "always"


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_the_name_of_the_job_is_no_word_of_gitlab(name):
    """GitLab refuses other names. Its expressions are RE2, which Python reads, too."""
    inputs, _ = gitlab.filled({"recipe": "given"})
    assert not re.search(inputs["job"]["regex"], name)


@pytest.mark.parametrize("name", ["build-image", "image:server-amd64", "build-server 1/2"])
def test_other_names_of_the_job_are_taken(name):
    inputs, jobs = gitlab.filled({"recipe": "given", "job": name})
    assert re.search(inputs["job"]["regex"], name)
    assert list(jobs) == [name]


def test_the_reserved_names_are_detected():
    with pytest.raises(jsonschema.ValidationError):
        check({"image": {"image": "debian:trixie", "script": ["true"]}}, "gitlab-ci")


@pytest.mark.parametrize("heading", ["GitHub Actions", "Forgejo Actions"])
def test_the_workflows_of_the_page_are_valid(heading, tmp_path):
    texts = examples(heading, "yaml")
    assert texts
    for text in texts:
        path = tmp_path / "workflow.yml"
        # Forgejo's own: a label of its runners, and addresses of actions.
        github = text.replace("runs-on: docker", "runs-on: ubuntu-latest")
        path.write_text(re.sub(r"uses: https://[^/]+/", "uses: ", github))
        assert lint("actionlint", "-no-color", "-shellcheck=", path) == ""
        # YAML 1.1 takes the key 'on' for a truth value.
        workflow = yaml.safe_load(text.replace("on:", '"on":', 1))
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
    assert lint("actionlint", "-no-color", "-shellcheck=", path) == ""
    for job in workflow["jobs"].values():
        assert [step for step in job["steps"] if "${{" in step.get("run", "")] == []


def test_the_pipelines_of_gitlab_on_the_page_are_valid():
    inputs, _ = gitlab.filled({"recipe": "given"})
    pipelines = [yaml.safe_load(text) for text in examples("GitLab CI", "yaml")]
    assert pipelines
    for pipeline in pipelines:
        check(pipeline, "gitlab-ci")
        for included in pipeline.get("include", []):
            assert set(included["inputs"]) <= set(inputs)


def scripts():
    """The shell scripts in the files for CI systems and on the page, by their names."""
    for step in STEPS:
        if "run" in step:
            yield step["name"], f"#!/bin/sh\n{step['run']}"
    for path in (TOP / ".github/workflows").iterdir():
        for job in yaml.safe_load(path.read_text())["jobs"].values():
            for step in job["steps"]:
                if "run" in step:
                    yield f"{path.name}: {step['name']}", f"#!/bin/sh\n{step['run']}"
    for job in gitlab.filled({"recipe": "given"})[1].values():
        lines = [*job["before_script"], *job["script"], *job["after_script"]]
        yield "GitLab", "\n".join(["#!/bin/sh", *lines])
    for text in examples("Other systems", "sh"):
        yield "the page", f"#!/bin/sh\n{text}"
    for text in jenkins.scripts(PAGE):
        yield "Jenkins", f"#!/bin/sh\n{text}"


@pytest.mark.parametrize(("name", "text"), [*scripts()], ids=[name for name, _ in scripts()])
def test_the_shell_scripts_in_other_files_have_no_known_fault(name, text):
    assert faults(text) == ""


@pytest.mark.parametrize("path", [JOB, TOP / "host/setup.sh"], ids=lambda path: path.name)
def test_the_shell_scripts_have_no_known_fault(path):
    assert faults(path.read_text()) == ""


def faults(text):
    """The complaints of shellcheck."""
    program = Path(sys.executable).with_name("shellcheck")
    # SC2086: the arguments of the action are divided at line ends, and nowhere else.
    argv = [program, "--severity=style", "--exclude=SC2086,SC2154", "-"]
    done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == (done.stdout == ""), done.stderr
    return done.stdout


def test_the_pipeline_of_jenkins_uses_options_that_exist():
    (words,) = [words for text in jenkins.scripts(PAGE) for words in commands(text)]
    assert words[0] == "build"
    assert unknown_options(words) == set()
    assert unknown_options([*words, "--wrong"]) == {"--wrong"}
