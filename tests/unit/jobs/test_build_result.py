"""The result of a build that fails, and the recipe in its report."""

import hashlib
import os
from types import SimpleNamespace

import pytest
from particle_os.errors import InfrastructureError, StageFailed
from particle_os.jobs import build_result
from particle_os.recipe.model import LoadedRecipe
from particle_os.report.progress import Progress
from particle_os.system.gate import Gate

SECRET = "hunter2-of-the-stage"


def test_an_error_loses_its_secrets_before_anything_else_can_fail():
    def unreadable(deadline):
        raise InfrastructureError("an image cannot be read")

    run = SimpleNamespace(progress=Progress([], Gate([SECRET.encode()])), deadline=None)
    failure = StageFailed(f"no {SECRET}", hint=f"use {SECRET}", tail=[f"it was {SECRET}"])
    delivery = SimpleNamespace(artifacts=unreadable)
    with pytest.raises(InfrastructureError, match="an image cannot be read"):
        build_result.write_result(run, build_result.Observations(), delivery, failure)
    assert SECRET not in f"{failure.brief} {failure.hint} {failure.tail}"
    assert "***" in failure.brief


def plant_fifo(place):
    place.unlink()
    os.mkfifo(place)


def plant_endless(place):
    place.unlink()
    place.symlink_to("/dev/zero")


def grow(place):
    os.truncate(place, 1 << 40)


@pytest.mark.parametrize("disturb", [plant_fifo, plant_endless, grow])
def test_a_recipe_that_another_one_replaces_is_left_out_of_the_report(
    tmp_path, monkeypatch, disturb
):
    place = tmp_path / "r.yml"
    place.write_text("name: r\n")
    files = {place: hashlib.sha256(place.read_bytes()).hexdigest()}
    recipe = SimpleNamespace(architecture="amd64")
    loaded = LoadedRecipe(recipe, place, (), {}, files)
    options = SimpleNamespace(variables={}, base=None, allow_outside=False, architecture=None)
    plan = SimpleNamespace(loaded=loaded, options=options)
    monkeypatch.setattr(build_result.loading, "resolved", lambda *a, **k: {"name": "r"})
    delivery = SimpleNamespace(staging=tmp_path)
    assert build_result._source(plan, delivery).lines == ["name: r"]
    disturb(place)
    assert build_result._source(plan, delivery).lines == []
