"""A recipe that ends with the stage `ostree` publishes a repository, and makes no disk."""

import json

import pytest
from particle_os.recipe import loading

from .. import played_build
from ..played_build import DISK, World

RECIPE = """\
name: leaky
base-image: tar:base.tar
stages:
  - type: timezone
    zone: UTC
    secrets:
      - {name: token, env: TOKEN}
  - type: ostree
    ref: debian/13/amd64/edge
    version: "1"
"""


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setenv("TOKEN", "a secret value")
    made = World(tmp_path, "text", ["a line"], b"console\r\n", "detail")
    made.written = ((), ("repository",))
    played_build.set_up(made, monkeypatch)
    (tmp_path / "leaky.yml").write_text(RECIPE)
    return made


def test_the_repository_is_published_and_nothing_is_booted(world):
    ended = played_build.run(world, "--json", "--progress", "none")
    assert ended.exit_code == 0, ended.output
    result = json.loads(ended.stdout)
    assert result["status"] == "not-tested"
    assert result["boot"] == []
    assert result["verification"] is None
    assert (result["commit"]["ref"], result["commit"]["version"]) == ("edge", "text")
    assert [stage["type"] for stage in result["stages"]] == ["timezone", "ostree", "publish"]
    assert [(a["path"], a["format"]) for a in result["artifacts"]] == [
        ("leaky.ostree.tar", "ostree-repository")
    ]
    assert any("it publishes the commit, and boots nothing" in note for note in result["notes"])
    assert (world.out / "leaky.ostree.tar").read_bytes() == DISK
    assert sorted(path.name for path in world.out.iterdir() if path.suffix != ".evidence") == [
        "SHA256SUMS",
        "leaky.console.log",
        "leaky.log",
        "leaky.ostree.tar",
        "leaky.report.html",
        "leaky.result.json",
    ]
    assert 'skipped="1"' in (world.path / "boot.xml").read_text()


def test_the_preview_has_no_image_and_no_boot(world):
    ended = played_build.run(world, "--dry-run", "--json")
    assert ended.exit_code == 0, ended.output
    steps = {step["step"]: step["detail"] for step in json.loads(ended.stdout)["steps"]}
    assert steps["published"] == "repository"
    assert not {"images", "boot test"} & set(steps)


def test_the_recipe_is_valid_with_a_note(world):
    loaded = loading.load(world.path / "leaky.yml")
    assert loaded.disk is None
    assert (loaded.formats, loaded.firmwares) == ((), ())
    assert [(note.code, note.line) for note in loaded.notes] == [("no-disk", 8)]
