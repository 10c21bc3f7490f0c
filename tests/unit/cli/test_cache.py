import fcntl
import json
import os
from pathlib import Path

import pytest
from particle_os.jobs import checkpoints

from .command_line import run


@pytest.fixture
def kept(own_cache, tmp_path):
    """A checkpoint that a build of the recipe 'web' made."""
    (tmp_path / "work").mkdir()
    own_cache.mkdir(parents=True)
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(8192))
    with checkpoints.Checkpoints(own_cache / "checkpoints") as opened:
        opened.keep(
            "key", disk, below=None, label="apt", network=True, work=tmp_path / "work", recipe="web"
        )
    return own_cache / "checkpoints" / "key"


@pytest.mark.usefixtures("kept")
def test_the_list_has_heads_and_the_recipe_of_a_checkpoint():
    heads, row, total = run("cache", "list").stdout.splitlines()
    assert heads.split() == ["kind", "size", "unused", "for", "recipe", "name"]
    assert row.split()[-3:] == ["web", "key", "apt"]
    assert row.index("web") == heads.index("recipe")
    assert row.index("key") == heads.index("name")
    assert total.startswith("total ")
    assert json.loads(run("cache", "list", "--json").stdout)[0]["recipe"] == "web"


def test_a_dry_run_removes_nothing_and_shows_what_it_would_remove(kept):
    shown = run("cache", "prune", "--size", "0", "--dry-run").stdout
    assert "web" in shown
    assert shown.endswith("nothing was removed\n")
    rows = json.loads(run("cache", "prune", "--size", "0", "--dry-run", "--json").stdout)
    assert [row["name"] for row in rows] == ["key"]
    assert kept.is_dir()
    assert run("cache", "prune", "--size", "0").stdout.startswith("1 removed")
    assert not kept.exists()


def test_a_dry_run_leaves_out_what_a_build_uses(kept):
    with (kept / checkpoints.META).open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert json.loads(run("cache", "prune", "--size", "0", "--dry-run", "--json").stdout) == []


def test_help_prints_json_too():
    found = json.loads(run("help", "cache", "prune", "--json").stdout)
    assert found["command"].endswith("cache prune")
    assert "--dry-run" in found["help"]


def test_a_row_of_all_recipes_says_so_and_has_a_size(kept):
    packages = kept.parents[1] / "packages"
    packages.mkdir()
    (packages / "0a.deb").write_bytes(bytes(8192))
    _, *rows, total = run("cache", "list").stdout.splitlines()
    (row,) = [row for row in rows if row.startswith("package")]
    assert "8 KiB" in row
    assert row.split()[-2:] == ["(shared)", "0a"]
    assert total.split()[1:] == [str(int(total.split()[1])), "KiB"]
    assert "" in {each["recipe"] for each in json.loads(run("cache", "list", "--json").stdout)}


@pytest.mark.usefixtures("kept")
def test_a_cache_that_cannot_be_written_to_is_told(own_cache, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != own_cache)
    assert f"MISSING  cache: {own_cache} cannot be written to" in run("doctor").stdout
    result = run("cache", "prune", "--size", "0")
    assert result.exit_code == 5
    assert f"the cache directory {own_cache} cannot be written to" in result.stderr
    assert "XDG_CACHE_HOME" in result.stderr
    assert run("cache", "prune", "--size", "0", "--dry-run").exit_code == 0
