import json
import subprocess

import pytest
from click.shell_completion import ShellComplete
from particle_os.cli import cli

from .command_line import run


def completed(*words):
    """The words that a shell gets for the last word."""
    found = ShellComplete(cli, {}, "particle-os", "_PARTICLE_OS_COMPLETE")
    return [item.value for item in found.get_completions(list(words[:-1]), words[-1])]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell(shell):
    result = run("completion", shell)
    assert result.exit_code == 0
    assert "_PARTICLE_OS_COMPLETE" in result.stdout
    assert "particle-os" in result.stdout
    assert json.loads(run("completion", shell, "--json").stdout)["shell"] == shell


def test_the_script_is_one_that_bash_takes():
    script = run("completion", "bash").stdout
    words = f"{script}\ncomplete -p particle-os"
    done = subprocess.run(["bash", "-c", words], capture_output=True, text=True, check=True)
    assert "_particle_os_completion" in done.stdout


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["boo"], ["boot-test"]),
        (["cache", "pr"], ["prune"]),
        (["build", "--scr"], ["--scratch-size"]),
        (["build", "--template", "debian-t"], ["debian-trixie"]),
        (["build", "web"], ["web-server"]),
        (["validate", "web"], ["web-server"]),
        (["shell", "web"], ["web-server"]),
        (["init", "web"], ["web-server"]),
        (["build", "web-server", "--refresh", "host"], ["hostname"]),
        (["shell", "web-server", "--at", "Pack"], ["Packages"]),
        (["explain", "timez"], ["timezone"]),
        (["explain", "incl"], ["include"]),
        (["explain", "users.users.uid"], ["users.users.uid"]),
        (["explain", "users.users.uid.x"], []),
        (["explain", "none.x"], []),
        (["stage", "run", "timez"], ["timezone"]),
        (["help", "stage", "r"], ["run"]),
        (["help", "build", "r"], []),
        (["completion", "z"], ["zsh"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_a_word_is_completed(words, found, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert completed(*words) == found


def test_the_recipes_of_the_directory_are_completed(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert completed("build", "te") == ["test.yml"]
    recipe.rename("particle-os.yml")
    assert completed("shell", "--at", "q") == ["qemu"]
    # The shell itself completes the names of other files.
    found = ShellComplete(cli, {}, "", "").get_completions(["build"], "/tmp/")
    assert [item.type for item in found] == ["file"]
