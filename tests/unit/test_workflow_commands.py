"""No text of a guest, a recipe or a file name is a command to a GitHub workflow.

`commands` finds commands as GitHub's runner does (actions/runner, src/Runner.Common/
ActionCommand.cs), and ignores that particle-os stops commands while it runs: the escapes must be
sufficient without that.
"""

import re

import pytest
from particle_os.cli import main
from particle_os.errors import printable, whole_line

from .cli.command_line import run as run_command
from .played_build import ENDS, STYLES, World, run, set_up

pytestmark = pytest.mark.slow

# The runner takes only commands that it knows.
KNOWN = {
    "add-mask", "add-matcher", "add-path", "debug", "echo", "endgroup", "error", "group", "notice",
    "remove-matcher", "save-state", "set-env", "set-output", "stop-commands", "warning",
}  # fmt: skip
BLANKS = [
    "", "    ", "\t", "\t \t", "\r", "\x1b[31m", "\x1b[0m\t", "\x00", "\x0b", "\x0c", "\x1c",
    "\x85", "\u00a0", "\u2028", "\u3000", "\ufeff",
]  # fmt: skip
FORGED = "forged-by-a-guest"
# Our own: the protection, and the annotations of a build and of its boot test.
OURS = re.compile(
    r"::stop-commands::[0-9a-f]{32}|::[0-9a-f]{32}::"
    r"|::(notice|error) title=(boot test of leaky |build of leaky%3A )"
)


def commands(text):
    """The lines that the runner takes as commands; .NET ends a line at \\r, too."""
    for line in re.split(r"\r\n|\r|\n", text):
        trimmed = line.strip()
        new = re.match(r"::([^ :]*)(?: .*?)?::", trimmed)
        old = re.search(r"##\[([^\] ]*)[^\]]*\]", line)
        if any(found and found.group(1) in KNOWN for found in (new, old)):
            yield line


def hostile():
    """Lines that a guest prints."""
    for blank in BLANKS:
        yield f"{blank}::error::{FORGED}"
        yield f"{blank}::stop-commands::{FORGED}"
        yield f"{blank}::add-mask::x{FORGED}"
        yield f"{blank}see ##[error]{FORGED}"
        yield f"{blank}##[add-mask]{FORGED}"
    for before in ("#", "##", "###", "# #"):
        yield f"{before}##[group]{FORGED}"


@pytest.mark.parametrize("line", [*hostile()], ids=ascii)
def test_the_reader_detects_commands_and_the_escapes_end_them(line):
    assert list(commands(line)) or "\x00" in line or "\x1b" in line or "\ufeff" in line
    assert list(commands(whole_line(printable(line)))) == []


@pytest.fixture
def world(tmp_path, monkeypatch, request):
    # Tables may break a long name before the command in it.
    text = f"{'w ' * request.param}::error::{FORGED} ##[error]{FORGED}"
    lines = [*hostile(), *(f"{'w ' * size}::error::{FORGED}" for size in range(0, 150, 7))]
    world = World(tmp_path, text, lines, "\n".join(lines).encode(), detail="\n".join(hostile()))
    set_up(world, monkeypatch)
    monkeypatch.setenv("TOKEN", "the secret of a stage")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    return world


@pytest.mark.parametrize("world", [33], indirect=True)
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("ends", ENDS)
def test_no_text_of_a_guest_is_a_command(world, ends, style):
    world.ends = ends
    result = run(world, *STYLES[style])
    assert result.exit_code == ENDS[ends], result.output
    assert FORGED in result.output or ends in ("good", "vm died")
    for printed in (result.stdout, result.stderr):
        assert [line for line in commands(printed) if not OURS.match(line)] == []
    # A later step may print these files.
    for file in (
        world.path / "boot.xml",
        world.path / "summary.md",
        *world.path.rglob("leaky.log"),
    ):
        assert list(commands(file.read_text())) == []


@pytest.mark.parametrize("world", [0], indirect=True)
@pytest.mark.parametrize("style", ["verbose", "json"])
def test_the_reader_detects_a_build_that_escapes_nothing(world, monkeypatch, style):
    for place in ("cli.command", "report.progress"):
        monkeypatch.setattr(f"particle_os.{place}.whole_line", lambda line: line)
        monkeypatch.setattr(f"particle_os.{place}.printable", lambda text, limit=0: text)
        monkeypatch.setattr(f"particle_os.{place}.unlike_commands", lambda text: text)
    world.ends = "stage failed"
    result = run(world, *STYLES[style])
    assert any(FORGED in line for line in commands(result.output))


NAMES = [f"x\n\t::error::{FORGED}", f"x\r##[error]{FORGED}"]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
@pytest.mark.parametrize(
    "words",
    [
        ["{}"], ["build", "{}"], ["build", "{}.yml"], ["boot-test", "{}"], ["inspect", "{}"],
        ["inspect", "{}.yml"], ["run", "{}"], ["validate", "{}"], ["validate", "{}", "--json"],
        ["validate", "{}", "--format", "github"], ["explain", "{}"], ["init", "{}"],
        ["list", "{}"], ["list", "images", "--output", "{}"], ["help", "{}"], ["shell", "{}"],
        ["build", "x.yml", "--junit", "{}/x"], ["build", "x.yml", "--set", "{}"],
        ["build", "x.yml", "--set", "{}=1"], ["build", "x.yml", "--accel", "{}"],
        ["build", "x.yml", "{}"], ["build", "x.yml", "--{}"], ["build", "--base", "{}", "x.yml"],
        ["stage", "run", "{}", "--options", "x.yml", "--base", "tar:x"], ["cache", "{}"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_no_argument_is_a_command(tmp_path, monkeypatch, capsys, signals_restored, words, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.yml").write_text("name: x\nstages:\n  - {type: run, command: [x]}\n")
    monkeypatch.setattr("sys.argv", ["particle-os", *(word.format(name) for word in words)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    printed = capsys.readouterr()
    errors = commands(printed.out + printed.err)
    # Our own annotations name the file.
    ours = "::error file=" if "github" in words else "\0"
    assert [line for line in errors if not line.startswith(ours)] == []


@pytest.mark.parametrize("style", [[], ["--json"], ["--format", "github"]], ids=" ".join)
@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_no_text_of_a_recipe_is_a_command(tmp_path, name, style):
    path = tmp_path / "x.yml"
    quoted = name.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    path.write_text(
        f'name: "{quoted}"\n"{quoted}": 1\nstages:\n  - {{type: "{quoted}"}}\n'
        f'  - {{type: apt, packages: ["{quoted}"], "{quoted}": 1}}\n'
        f'  - {{include: "{quoted}"}}\n  - {{type: timezone, zone: "{quoted}"}}\n'
    )
    result = run_command("validate", path, *style)
    assert result.exit_code == 2
    own = f"::error file={path},"
    printed = [line for line in commands(result.output) if not line.startswith(own)]
    assert printed == []
