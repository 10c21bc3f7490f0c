"""Follows docs/adding-a-stage.md to the letter in a copy of the tree."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
PAGE = (TOP / "docs/adding-a-stage.md").read_text()
# A line with a path (and a line of the file to insert before) and a block, or a block of commands.
STEP = re.compile(
    r"^`(?P<path>[^`\n]+)`(?:, before `(?P<before>[^`\n]+)`)?:\n\n"
    r"(?P<fence>`{3,})\w+\n(?P<text>.*?)^(?P=fence)$"
    r"|^```sh\n(?P<commands>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
OWN = {
    "docs/recipes.md",
    "guest-agent/particle_agent/stages/settings/motd.py",
    "tests/guest/stages/settings/test_motd.py",
}
GENERATED = {
    "docs/stages.md",
    "guest-agent/particle_agent/stages/registry.py",
    "recipes/schema.json",
}
# The page's `make check` only runs these tests: all tests would include this one. They run in one
# process, because workers take longer to start than these tests take to run.
TESTS = (
    "tests/guest/stages/settings/test_motd.py tests/unit/recipe/test_guide.py "
    "tests/unit/test_generate.py::test_no_generated_file_is_stale"
)


@pytest.fixture
def tree(tmp_path):
    """A copy of the tree, with this Python's packages in its .venv."""
    ignore = shutil.ignore_patterns(
        ".git", ".venv", "__pycache__", ".*_cache", ".hypothesis", "out"
    )
    top = tmp_path / "tree"
    shutil.copytree(TOP, top, ignore=ignore)
    if (TOP / ".mypy_cache").exists():
        shutil.copytree(TOP / ".mypy_cache", top / ".mypy_cache")
    (top / ".venv").mkdir()
    for path in Path(sys.prefix).iterdir():
        if path.name != ".installed":
            (top / ".venv" / path.name).symlink_to(path)
    digest = hashlib.sha256((top / "pyproject.toml").read_bytes()).hexdigest()
    (top / ".venv/.installed").write_text(f"{digest} {top}\n")
    return top


def contents(top):
    """The contents of all files under version control, by path."""
    skipped = {".venv", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", "out"}
    return {
        path.relative_to(top).as_posix(): path.read_bytes()
        for path in top.rglob("*")
        if path.is_file()
        and not skipped & set(path.relative_to(top).parts)
        and "__pycache__" not in path.parts
    }


def put(path, text, before):
    """Writes a block of the page to `path`, or inserts the block before the line `before`."""
    if before is not None:
        whole = path.read_text()
        assert whole.count(f"\n{before}\n") == 1
        text = whole.replace(f"\n{before}\n", f"\n{text}\n{before}\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def run(top, commands):
    """Runs commands of the page, which must succeed, and returns their output."""
    ours = {"PYTHONPATH": f"{top}/host:{top}/guest-agent", "TESTS": TESTS, "WORKERS": "0"}
    inherited = {
        k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "MAKE", "MFLAGS"))
    }
    done = subprocess.run(
        ["sh", "-eu", "-c", commands], cwd=top, env={**inherited, **ours},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, f"{commands}\n{done.stdout}"
    return done.stdout


# It runs mypy and other tests, which take long on a busy machine.
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_page_leads_to_a_stage_in_three_files_of_ones_own(tree):
    before, said = contents(tree), ""
    for step in STEP.finditer(PAGE):
        if step["commands"]:
            said += run(tree, step["commands"])
        else:
            put(tree / step["path"], step["text"], step["before"])
    after = contents(tree)
    assert {path for path in after if after[path] != before.get(path)} == OWN | GENERATED
    assert "Writes /etc/motd" in said
    assert "text: string, required" in said
    assert "1 valid" in said
    assert "4 passed" in said


def test_every_block_of_the_page_is_followed():
    assert len(re.findall(r"^`{3,}\w+$", PAGE, re.MULTILINE)) == 1 + len(list(STEP.finditer(PAGE)))
