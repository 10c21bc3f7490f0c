import json
import os
import shutil
import subprocess
from pathlib import Path

import pexpect
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
        (["build", "--template", "debian-t"], ["debian-trixie", "debian-trixie-arm64"]),
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


def test_the_own_stages_of_a_directory_are_completed_and_listed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("stages").mkdir()
    text = "description: [3]\nvariables: {zone: {type: [x], description: {a: b}}}\nstages: []\n"
    Path("stages/zebra.yml").write_text(text)
    assert completed("explain", "zeb") == ["zebra"]
    assert completed("explain", "zebra.z") == ["zebra.zone"]
    assert completed("stage", "run", "zeb") == ["zebra"]
    assert '"zebra"' in run("schema").stdout
    assert "\nzebra " in run("list", "stages").stdout
    shown = run("explain", "zebra").stdout
    assert "zone: value" in shown
    assert "Node(" not in shown
    assert "{" not in shown


HOSTILE = (
    "a;touch HACKED.yml",
    "b c.yml",
    "d'$(touch HACKED).yml",
    "e*.yml",
    "f,g.yml",
    "h`touch HACKED`.yml",
    'i" & touch HACKED.yml',
)
START = {
    "bash": ["--norc", "--noprofile"],
    "zsh": ["-f"],
    "fish": ["--no-config"],
}
SETUP = {
    "bash": 'eval "$(particle-os completion bash)"',
    "zsh": 'autoload -U compinit; compinit -u -D; eval "$(particle-os completion zsh)"',
    "fish": "particle-os completion fish | source",
}


# In place of the program, which takes a second to start: it answers the shell, and shows its words.
PLAYED = """\
#!/bin/sh
case "$_PARTICLE_OS_COMPLETE,$1" in
*_complete,*) cat answer.$_PARTICLE_OS_COMPLETE ;;
,completion) cat script ;;
,*) printf 'words: <%s>\\n' "$2" ;;
esac
"""


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_name_of_a_file_is_one_word_and_no_command(shell, tmp_path, monkeypatch):
    if shutil.which(shell) is None:
        assert shell != "bash"
        pytest.skip(f"{shell} is not installed")
    script = run("completion", shell).stdout
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TERM", "dumb")
    program = Path("particle-os")
    program.write_text(PLAYED)
    program.chmod(0o755)
    Path("script").write_text(script)
    child = pexpect.spawn(shell, START[shell], encoding="utf-8", timeout=60)
    child.sendline(SETUP[shell])
    for name in HOSTILE:
        line = f"plain\n{name}\n_\n" if shell == "zsh" else f"plain,{name}\n"
        Path(f"answer.{shell}_complete").write_text(line)
        child.send(f"particle-os validate {name[0]}\t")
        child.expect(r"\.yml")
        child.send("\r")
        child.expect_exact(f"words: <{name}>")
    child.close(force=True)
    assert not list(tmp_path.glob("HACKED*"))


def test_a_name_that_a_terminal_would_not_show_is_no_word(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("new\nplain,$(id).yml", "new\x1b[2J.yml", "new.yml"):
        Path(name).touch()
    assert completed("validate", "new") == ["new.yml"]
