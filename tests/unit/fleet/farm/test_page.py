"""The examples of docs/farm.md are valid, and use commands and options that exist."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema

from ...cli.command_line import commands, unknown_options

PAGE = (Path(__file__).parents[4] / "docs/farm.md").read_text()


def blocks(heading, language):
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)


CALLS = [*commands(PAGE)]


def test_the_page_shows_all_that_a_farm_needs():
    shown = {" ".join(words[:2]) for words in CALLS if words[0] == "farm"}
    assert shown == {"farm keys", "farm scheduler", "farm worker"}
    assert len([words for words in CALLS if words[0] == "build"]) >= 7


@pytest.mark.parametrize("words", CALLS, ids=" ".join)
def test_each_command_has_the_options_that_the_page_uses(words):
    assert unknown_options(words) == set()


def test_a_wrong_option_would_be_noticed():
    """A positive control."""
    (words,) = commands("particle-os build x.yml \\\n  --wrong y || status=$?\n")
    assert words == ["build", "x.yml", "--wrong", "y"]
    with pytest.raises(AssertionError):
        test_each_command_has_the_options_that_the_page_uses(words)


def test_the_job_of_kubernetes_asks_for_no_privilege_and_no_device():
    (text,) = blocks("Kubernetes", "yaml")
    job = yaml.safe_load(text)
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert pod["securityContext"]["runAsNonRoot"] is True
    resources = container["resources"]
    assert not [name for kind in resources.values() for name in kind if "/" in name]
    assert {each["name"] for each in container["volumeMounts"]} == {
        each["name"] for each in pod["volumes"]
    }
    # The codes of the contract that are worth another attempt are missing here.
    assert spec["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [1, 2, 3, 4]
    assert spec["podFailurePolicy"]["rules"][0]["onExitCodes"]["containerName"] == container["name"]
    assert pod["restartPolicy"] == "Never", "podFailurePolicy needs it"
    run_shell(container["args"][0], tmp=None)


def run_shell(script, tmp, **variables):
    """Checks a script as sh reads it, and runs it with a program that prints its arguments."""
    subprocess.run(["sh", "-n", "-c", script], check=True)
    if tmp is None:
        return None
    for name, body in (("particle-os", 'echo "$@"; exit ${STATUS:-0}'), ("scontrol", 'echo "$@"')):
        (tmp / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp / name).chmod(0o755)
    return subprocess.run(
        ["sh", "-c", script], env={"PATH": f"{tmp}:/usr/bin:/bin", "USER": "u", **variables},
        cwd=tmp, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_an_index_of_the_job_builds_its_image(tmp_path):
    (text,) = blocks("Kubernetes", "yaml")
    script = yaml.safe_load(text)["spec"]["template"]["spec"]["containers"][0]["args"][0]
    done = run_shell(script, tmp_path, JOB_COMPLETION_INDEX="1")
    assert "build /recipes/image.yml --set flavour=desktop --output /out" in done.stdout


@pytest.mark.parametrize(
    ("status", "restarts", "again"),
    [("0", "", False), ("3", "", False), ("5", "", True), ("5", "2", False)],
)
def test_a_task_of_slurm_builds_its_line_and_tries_a_spoilt_machine_again(
    tmp_path, status, restarts, again
):
    (script,) = blocks("Slurm", "sh")
    (tmp_path / "images.txt").write_text("a.yml\nb.yml --set flavour=small\n")
    more = {"SLURM_RESTART_COUNT": restarts} if restarts else {}
    done = run_shell(
        script, tmp_path, STATUS=status, SLURM_ARRAY_TASK_ID="2", SLURM_ARRAY_JOB_ID="7",
        SLURM_TMPDIR=str(tmp_path), **more,
    )  # fmt: skip
    assert done.stdout.startswith("build b.yml --set flavour=small --output out ")
    assert ("requeue 7_2" in done.stdout) is again
    assert done.returncode == int(status)


def test_shellcheck_finds_nothing_in_the_task_of_slurm(tmp_path):
    (tmp_path / "task.sh").write_text(blocks("Slurm", "sh")[0])
    program = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run(
        [program, tmp_path / "task.sh"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_the_factory_of_buildbot_runs_the_build():
    """Its modules are played: Buildbot itself is no dependency of the tests."""
    (text,) = blocks("Buildbot", "python")
    (first, *rest) = ast.parse(text).body
    assert ast.unparse(first) == "from buildbot.plugins import schedulers, steps, util"
    made = []

    class Played:
        SUCCESS, RETRY = 0, 5

        def __getattr__(self, name):
            return lambda *given, **named: made.append((name, given, named)) or (name, named)

    scope = dict.fromkeys(("schedulers", "steps", "util"), Played())
    exec(compile(ast.Module(rest, []), "farm.md", "exec"), scope)
    assert len(scope["builders"](["w1"])) == 2
    scope["every_change"]()
    command = next(named["command"] for name, _, named in made if name == "ShellCommand")
    test_each_command_has_the_options_that_the_page_uses(command[1:])
    codes = next(named["decodeRC"] for name, _, named in made if name == "ShellCommand")
    assert codes == {0: Played.SUCCESS, 5: Played.RETRY}


def test_the_job_of_gitlab_is_valid():
    (text,) = blocks("GitLab", "yaml")
    schema = jsonschema.Draft7Validator(get_builtin_schema("vendor.gitlab-ci"))
    assert [error.message for error in schema.iter_errors(yaml.safe_load(text))] == []


def test_the_exit_codes_are_those_of_the_program():
    from particle_os import errors

    table = PAGE.partition("| code | meaning")[2].partition("\n\n")[0]
    codes = set(re.findall(r"^\| (\d)\b", table, re.MULTILINE))
    named = {v for n, v in vars(errors).items() if n.startswith("EXIT_") and n != "EXIT_SIGNAL"}
    assert {int(code) for code in codes} >= named
