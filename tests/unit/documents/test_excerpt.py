"""The line of a document that a message shows, with its caret."""

import pytest
from particle_os.documents.excerpt import BEFORE_SHOWN, LINE_READ, LINE_SHOWN
from particle_os.errors import Excerpt, InvalidDocument, Problem
from particle_os.recipe import loading

TOP = "name: x\nstages:\n"


def shown(tmp_path, text, code):
    """The lines that people see of the first problem with a code."""
    path = tmp_path / "recipe.yml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidDocument) as raised:
        loading.load(path)
    return list(next(p for p in raised.value.problems if p.code == code).lines())[1:]


@pytest.mark.parametrize(
    ("text", "code", "line", "caret"),
    [
        (f"{TOP}  - {{type: qemu, size: 4GB}}\n", "bad-value",
         "  - {type: qemu, size: 4GB}", "                       ^"),
        # Without a known type, a value may be anything.
        (f"{TOP}  - {{type: users, users: [{{name: a, pasword: x}}]}}\n", "unknown-key",
         "  - {type: users, users: [{name: a, pasword: …}]}",
         "                                    ^"),
        (f"{TOP}  - {{type: users, users: [{{name: A}}]}}  # a comment\n", "bad-value",
         "  - {type: users, users: [{name: A}]}", "                                 ^"),
        (f"{TOP}  - {{type: apt, packages: [a, b}}\n", "yaml",
         "  - {type: …, packages: […, …}", "                             ^"),
        (f"{TOP}\t- type: qemu\n", "yaml", " - …: …", "^"),
        (f"{TOP}  - {{type: run, script: x}}\n   x: y\n", "yaml", "   …: …", "   ^"),
        (f"{TOP}  - {{type: qemu, formats: &p [raw]}}\n", "anchor",
         "  - {type: qemu, formats: … [raw]}", "                          ^"),
        (f"{TOP}  - {{type: qemu, formats: & [raw]}}\n", "yaml",
         "  - {…: …, …: … […]}", "               ^"),
        # The characters of East Asia take two columns.
        (f"{TOP}  - {{type: hostname, name: 日本, hostname: '日'}}\n", "bad-value",
         "  - {type: hostname, name: 日本, hostname: '日'}",
         "                                           ^"),
    ],
)  # fmt: skip
def test_the_caret_is_under_the_place(tmp_path, text, code, line, caret):
    assert shown(tmp_path, text, code)[:2] == [f"  | {line}", f"  | {caret}"]


@pytest.mark.parametrize("character", ["\x1b", "\x9b", "\u202e", "\x07"])
def test_no_control_character_reaches_the_terminal(character):
    problem = Problem("r", 1, 1, "c", character, character, None)
    assert character not in "".join(problem.lines())


def test_a_control_character_of_the_line_is_escaped(tmp_path):
    lines = shown(tmp_path, f"{TOP}  - {{type: timezone, name: '\u202ea', zone: 5}}\n", "bad-value")
    assert "\\u202ea" in lines[0]
    assert lines[1].index("^") == lines[0].index("5")


def test_a_line_with_a_confidential_value_is_not_shown(tmp_path):
    user = "{name: a, password-hash: hunter2, colour: red}"
    lines = shown(tmp_path, f"{TOP}  - type: users\n    users: [{user}]\n", "unknown-key")
    assert len(lines) == 1
    assert lines[0].startswith("  do: ")


def test_a_confidential_value_of_several_lines_is_not_shown(tmp_path):
    user = "{name: a, password-hash: 'hunter2\n      swordfish', colour: red}"
    lines = shown(tmp_path, f"{TOP}  - type: users\n    users: [{user}]\n", "unknown-key")
    assert len(lines) == 1


@pytest.mark.parametrize("at_end", [True, False])
def test_a_long_line_is_cut_around_the_caret(tmp_path, at_end):
    packages = ", ".join(f"package-{i}" for i in range(60))
    wrong = f"[{packages}, BAD]" if at_end else f"[BAD, {packages}]"
    text = f"{TOP}  - {{type: apt, packages: {wrong}}}\n"
    line, caret = shown(tmp_path, text, "bad-value")[:2]
    assert len(line) <= LINE_SHOWN + 5
    assert line[caret.index("^") :].startswith("BAD")
    assert caret.index("^") <= BEFORE_SHOWN + 4
    assert line.startswith("  | …") == at_end
    assert line.endswith("…") != at_end


def test_an_endless_line_is_not_read(tmp_path):
    text = f"{TOP}  - {{type: apt, packages: [BAD{', a' * LINE_READ}]}}\n"
    assert not any("|" in line for line in shown(tmp_path, text, "bad-value"))


def test_the_line_of_an_included_file_is_shown(tmp_path):
    (tmp_path / "more.yml").write_text("- {type: timezone, zone: 5}\n")
    lines = shown(tmp_path, f"{TOP}  - include: more.yml\n  - type: qemu\n", "bad-value")
    assert lines[:2] == ["  | - {type: timezone, zone: 5}", "  |                          ^"]


def test_the_line_is_no_part_of_the_data():
    bare, full = (Problem("r", 1, 1, "c", "m", None, e) for e in (None, Excerpt("x", 0)))
    assert bare == full
    assert "excerpt" not in full.data()
    assert full.annotation("error") == bare.annotation("error")
