import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from particle_os import __version__, cli
from particle_os.cli.command import show_error
from particle_os.errors import StageFailed
from particle_os.recipe import loading

from ...waiting import HANG_SECONDS
from .command_line import run

COMMANDS = [
    "boot-test", "build", "doctor", "explain", "help", "init", "list", "schema", "validate",
    "version",
]  # fmt: skip


@pytest.mark.slow
def test_the_installed_program_runs():
    program = Path(sys.executable).with_name("particle-os")
    done = subprocess.run([program, "version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"{__version__}\n"
    assert done.stderr == ""


def test_help_names_every_command():
    for arguments in (["help"], ["--help"], ["-h"]):
        result = run(*arguments)
        assert result.exit_code == 0
        assert [name for name in COMMANDS if name not in result.stdout] == []


def test_the_commands_stand_in_the_order_of_the_work():
    shown = run("help").stdout.partition("Commands:\n")[2].splitlines()
    names = [line.split()[0] for line in shown if line.startswith("  ") and line[2] != " "]
    work = ["doctor", "init", "validate", "build", "inspect", "boot-test", "run", "help"]
    assert [name for name in names if name in work] == work


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["builf"], "did you mean 'build'?"),
        (["boottest"], "did you mean 'boot-test'?"),
        (["cache", "prun"], "did you mean 'prune'?"),
        (["help", "stage", "rnu"], "did you mean 'run'?"),
        (["help", "vlaidate"], "did you mean 'validate'?"),
        (["stage", "xyz"], "allowed: run"),
    ],
)
def test_a_wrong_command_has_its_nearest_name(words, hint):
    result = run(*words)
    assert result.exit_code == 2
    assert f"there is no command '{words[-1]}'; {hint}" in result.stderr


def test_options_stand_in_groups():
    shown = run("build", "--help").stdout
    titles = [line for line in shown.splitlines() if line.endswith(":") and line[0] != " "]
    assert titles == [
        "The recipe:", "Network and packages:", "The virtual machine:", "Earlier builds:",
        "Shared cache:", "Several images and machines:", "The result:", "What is shown:",
    ]  # fmt: skip
    machine = shown.partition("The virtual machine:")[2].partition("\n\n")[0]
    assert "--memory SIZE" in machine
    assert "--mirror" not in machine
    assert "PARTICLE_OS_BUILD_JSON=1" in shown
    assert "Network" not in run("doctor", "--help").stdout


def test_short_options_are_known():
    assert run("-V").stdout == run("--version").stdout == f"{__version__}\n"
    assert "hostname" in run("init", "server", "-o", "-").stdout


@pytest.mark.usefixtures("nothing_starts")
def test_the_usual_recipe_is_taken_when_none_is_named(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in (["build", "--dry-run"], ["validate"], ["shell"]):
        result = run(*command)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "there is no particle-os.yml" in result.stderr
        assert "particle-os init -o particle-os.yml" in result.stderr
    recipe.rename("particle-os.yml")
    assert run("build", "--dry-run").stdout.splitlines() != []
    assert run("build", "--dry-run").exit_code == 0
    assert run("validate").stdout == "1 valid\n"


def test_an_environment_variable_sets_any_option(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PARTICLE_OS_INIT_OUTPUT", "other.yml")
    monkeypatch.setenv("PARTICLE_OS_INIT_JSON", "1")
    assert json.loads(run("init").stdout) == {"path": "other.yml"}
    assert json.loads(run("init", "-o", "third.yml").stdout) == {"path": "third.yml"}
    monkeypatch.setenv("PARTICLE_OS_BUILD_MEMORY", "lots")
    result = run("build", "x.yml")
    assert result.exit_code == 2
    assert "expected a size such as 2G" in result.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_its_help(command):
    result = run("help", command)
    assert result.exit_code == 0
    assert command in result.stdout.splitlines()[0]
    assert run(command, "--help").exit_code == 0


@pytest.mark.parametrize("words", [["cache"], ["cache", "prune"], ["stage", "run"]], ids=" ".join)
def test_help_takes_the_words_of_a_command_within_a_command(words):
    result = run("help", *words)
    assert result.exit_code == 0
    assert result.stdout == run(*words, "--help").stdout
    assert f" {' '.join(words)} [OPTIONS]" in result.stdout.splitlines()[0]


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["help", "no-such-command"],
        ["help", "cache", "no-such-command"],
        ["help", "build", "no-such-command"],
        ["build"],
        ["validate"],
        ["list", "nonsense"],
        ["build", "x.yml", "--no-such-option"],
        ["build", "x.yml", "--accel", "xen"],
        ["build", "x.yml", "--memory", "lots"],
        ["build", "x.yml", "--cpus", "0"],
        ["build", "missing.yml"],
        ["boot-test", "missing.raw"],
        ["version", "--progress", "loud"],
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2_and_says_nothing_on_standard_output(arguments):
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr


def test_colours_only_where_they_are_wanted(recipe, monkeypatch):
    arguments = ("build", recipe, "--base", "tar:missing.tar")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert run(*arguments, color=True).stderr.startswith("\x1b[31m\x1b[1merror: \x1b[0m")
    assert "\x1b[" not in run(*arguments).stderr
    monkeypatch.setenv("NO_COLOR", "")
    assert "\x1b[" in run(*arguments, color=True).stderr
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in run(*arguments, color=True).stderr


def test_a_traceback_only_with_debug(recipe):
    arguments = ("build", recipe, "--base", "tar:missing.tar")
    assert "Traceback" not in run(*arguments).stderr
    assert "Traceback" in run(*arguments, "--debug").stderr


def test_a_hostile_file_name_plays_no_tricks(tmp_path):
    path = tmp_path / "x\x1b[31m.yml"
    path.write_text("nonsense: 1\n")
    for arguments in (("validate", path), ("build", path)):
        result = run(*arguments, color=True)
        assert result.exit_code == 2
        assert "\x1b[31m." not in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["build", "x", "--nope"], ["boot-test", "/nonexistent"]])
def test_json_errors_come_for_wrong_arguments_too(arguments):
    argv = [sys.executable, "-m", "particle_os", *arguments, "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=HANG_SECONDS)
    assert done.returncode == 2
    assert json.loads(done.stderr)["exit_code"] == 2


def test_lines_of_one_kind_before_an_error_are_folded_but_not_for_programs(capsys):
    tail = [f"W: skipping file {n}" for n in range(10)] + ["E: no more"]
    error = StageFailed("it failed", tail=tail)
    show_error(error, 3, as_json=False)
    shown = capsys.readouterr().err
    assert shown.count("skipping") == 3
    assert "  | … and 7 more lines like it\n  | E: no more\n" in shown
    show_error(error, 3, as_json=True)
    assert json.loads(capsys.readouterr().err)["tail"] == tail


@pytest.fixture
def complaint(monkeypatch, capsys):
    """Runs the program with wrong arguments, and returns what it says."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["particle-os", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 2
        return capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    "arguments",
    [
        ["build", "--json", "--nope"],
        ["build", "--memory", "x", "--json"],
        ["builf", "--json"],
        ["cache", "prun", "--json"],
        ["--json"],
        ["help", "nonesuch", "--json"],
    ],
)
def test_a_wrong_command_line_with_json_has_a_json_error(complaint, arguments):
    found = json.loads(complaint(*arguments))
    assert found["exit_code"] == 2
    assert found["hint"]


@pytest.mark.parametrize(
    "arguments", [["build", "--nope"], ["builf"], ["stage", "run"], ["help", "x"]]
)
def test_a_wrong_command_line_says_what_to_do(complaint, arguments):
    first, *others = complaint(*arguments).splitlines()
    assert first.startswith("error: ")
    assert others[-1].startswith("  do:    ")


def test_a_wrong_value_of_an_environment_variable_names_the_variable(complaint, monkeypatch):
    monkeypatch.setenv("PARTICLE_OS_BUILD_MEMORY", "x")
    assert "  where: the environment variable PARTICLE_OS_BUILD_MEMORY\n" in complaint(
        "build", "x.yml"
    )
    assert "where" not in complaint("build", "x.yml", "--memory", "y")


@pytest.mark.parametrize(
    "arguments",
    [
        # Arguments that only look like the option.
        ["build", "--jobs", "0", "--", "--json"],
        ["build", "--mirror", "--json", "--jobs", "0"],
        ["cache", "list", "--", "--json"],
    ],
)
def test_only_the_option_json_makes_an_error_json(complaint, arguments):
    assert complaint(*arguments).startswith("error: ")


WRONG = [
    ["build", "--nope"],
    ["build", "--memory", "x"],
    ["build", "--jobs", "0"],
    ["cache", "list", "x"],
    ["stage", "run"],
]


@pytest.mark.parametrize("arguments", WRONG)
def test_the_environment_makes_usage_errors_json(complaint, monkeypatch, arguments):
    assert complaint(*arguments).startswith("error: ")
    for name in ("BUILD", "CACHE_LIST", "STAGE_RUN"):
        monkeypatch.setenv(f"PARTICLE_OS_{name}_JSON", "1")
    assert json.loads(complaint(*arguments))["exit_code"] == 2
    for name in ("BUILD", "CACHE_LIST", "STAGE_RUN"):
        monkeypatch.setenv(f"PARTICLE_OS_{name}_JSON", "0")
    assert complaint(*arguments).startswith("error: ")


@pytest.mark.parametrize("arguments", WRONG)
def test_the_settings_make_usage_errors_json(complaint, own_settings, arguments):
    own_settings.parent.mkdir(parents=True)
    own_settings.write_text(
        "[build]\njson = true\n[cache.list]\njson = true\n[stage.run]\njson = true\n"
    )
    assert json.loads(complaint(*arguments))["exit_code"] == 2


def test_the_environment_makes_an_error_of_the_settings_json(complaint, own_settings, monkeypatch):
    own_settings.parent.mkdir(parents=True)
    own_settings.write_text("[build]\nnonsense = 1\n")
    assert complaint("cache", "list").startswith("error: ")
    monkeypatch.setenv("PARTICLE_OS_CACHE_LIST_JSON", "1")
    assert "nonsense" in json.loads(complaint("cache", "list"))["error"]
    assert complaint("version").startswith("error: ")


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EIO, "A disk of the host fails"),
        (errno.EROFS, "XDG_CACHE_HOME"),
        (errno.ENOENT, "run the command again"),
        (errno.EMFILE, "ulimit -n"),
    ],
)
def test_a_failed_system_call_is_named_with_its_place_and_advice(
    monkeypatch, tmp_path, number, advice
):
    def fail(*arguments, **options):
        raise OSError(number, os.strerror(number), str(tmp_path / "a"), None, str(tmp_path / "b"))

    monkeypatch.setattr(loading, "read", fail)
    result = run("validate", tmp_path / "x.yml")
    assert result.exit_code == 5
    assert f"error: {os.strerror(number)}: {tmp_path}/a -> {tmp_path}/b\n" in result.stderr
    assert "Errno" not in result.stderr
    assert advice in result.stderr.partition("do:")[2]


def test_an_error_of_a_call_without_a_file_is_told_in_words(monkeypatch, tmp_path):
    monkeypatch.setattr(loading, "read", lambda *_, **__: os.read(10**6, 1))
    result = run("validate", tmp_path / "x.yml")
    assert result.exit_code == 5
    assert "error: Bad file descriptor\n" in result.stderr


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_with_its_place(monkeypatch, tmp_path, number):
    def fail(*arguments, **options):
        raise OSError(number, "no room", str(tmp_path / "missing" / "file"))

    monkeypatch.setattr(loading, "read", fail)
    result = run("validate", tmp_path / "x.yml")
    assert result.exit_code == 5
    assert f"no space left in {tmp_path};" in result.stderr
    assert "bytes are free" in result.stderr
