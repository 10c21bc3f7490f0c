"""A dry run names the earlier work that the build would use, by the keys of the build."""

import json

import pytest
from particle_os.jobs import checkpoints
from particle_os.jobs.checkpoints import Checkpoints
from particle_os.jobs.plan import BuildOptions
from particle_os.jobs.planning import make_plan, preview, template_of
from particle_os.report.results import read_result
from particle_os.sandbox import helper
from particle_os.system import process
from particle_os.system.workspace import cache_directory, workspace

from ...waiting import Clock
from ..base.test_lookup import AMD64, tar
from .test_delivery import delivery, earlier  # noqa: F401 - fixtures

SHA256 = "0" * 64
RECIPE = f"""\
name: server
base-image: tar:base.tar
stages:
  - {{type: timezone, zone: UTC}}
  - {{type: hostname, hostname: one}}
  - type: files
    files:
      - path: /srv/x
        download: {{url: "https://example.org/x", sha256: "{SHA256}"}}
  - {{type: qemu}}
"""
ALL = ["stage 1", "stage 2", "stage 3"]


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "identity", lambda program: f"{program} 1.0")
    (tmp_path / "base.tar").write_bytes(tar(usr__bin__ls=AMD64))
    path = tmp_path / "server.yml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def plan(recipe):
    def make(**options):
        with_secrets = options.pop("with_secrets", True)
        wanted = BuildOptions(output_directory=recipe.parent / "out", **options)
        return make_plan(recipe, wanted, with_secrets=with_secrets)

    return make


@pytest.fixture
def built(plan):
    """Leaves the helper, and the checkpoints of a build that has passed so many stages."""

    def build(stages, network=(), **options):
        place = cache_directory() / "helpers" / helper.key_of(template_of(BuildOptions()))
        place.mkdir(parents=True, exist_ok=True)
        (place / "root.squashfs").touch()
        made = plan(**options)
        keys = made.keys(made.base, made.helper)
        below = None
        with workspace() as work, Checkpoints(cache_directory() / "checkpoints") as kept:
            for number, key in enumerate(keys[: stages + 1]):
                disk = work.path / f"{number}.qcow2"
                disk.write_text(f"disk {number}")
                below = kept.keep(
                    key, disk, below=below, label="x", network=number in network, work=work.path
                )

    return build


@pytest.fixture
def cached(plan):
    """The steps of a dry run whose result is there already, without the base, a file."""

    def steps(**options):
        found = preview(plan(**options)).steps
        assert [step.ready for step in found if step.step == "base image"] == [True]
        return [step.step for step in found if step.ready and step.step != "base image"]

    return steps


def test_without_an_earlier_build_nothing_is_cached(cached):
    assert cached() == []


@pytest.mark.parametrize("stages", [0, 1, 2, 3])
def test_the_stages_of_an_earlier_build_are_cached(built, cached, stages):
    built(stages)
    assert cached() == ["helper VM", *ALL[:stages]]


@pytest.mark.parametrize(
    ("old", "new", "stages"),
    [
        ("zone: UTC", "zone: Asia/Tokyo", 0),
        ("hostname: one", "hostname: two", 1),
        ("/srv/x", "/srv/y", 2),
        ("{type: qemu}", "{type: qemu, formats: [qcow2]}", 3),
        ("{type: timezone", "{name: Time, timeout: 5m, type: timezone", 3),
    ],
)
def test_a_stage_counts_again_when_it_or_an_earlier_one_changes(
    built, cached, recipe, old, new, stages
):
    built(3)
    recipe.write_text(RECIPE.replace(old, new))
    assert cached() == ["helper VM", *ALL[:stages]]


@pytest.mark.parametrize(
    ("options", "stages"),
    [
        ({"refresh": "2"}, 1),
        ({"refresh": "hostname"}, 1),
        ({"refresh": "base"}, 0),
        ({"cache": False}, 0),
        ({"plain": True}, 0),
        ({"source_date": 1}, 0),
        ({"scratch": 1 << 30}, 0),
        ({"boot_test": False}, 3),
    ],
)
def test_the_options_of_the_build_count(built, cached, options, stages):
    built(3)
    assert cached(**options) == ["helper VM", *ALL[:stages]]


def test_a_stage_that_reads_the_network_is_cached_for_a_time_only(built, cached, monkeypatch):
    built(3, network=(2, 3))
    assert cached(max_age=1000) == ["helper VM", *ALL]
    clock = Clock()
    clock.now = float("inf")
    monkeypatch.setattr(checkpoints, "time", clock)
    assert cached(max_age=1000) == ["helper VM", "stage 1"]


def test_another_base_has_no_checkpoint(built, cached, recipe):
    built(3)
    (recipe.parent / "base.tar").write_bytes(tar(usr__bin__ls=AMD64, etc__x=b"x"))
    assert cached() == ["helper VM"]


def test_the_downloads_of_the_stages_that_run_are_listed(built, cached, plan):
    built(2)
    assert "download" not in cached()
    place = cache_directory() / "downloads"
    place.mkdir()
    (place / SHA256).touch()
    assert cached() == ["helper VM", "download", "stage 1", "stage 2"]
    built(3)
    assert [step for step in preview(plan()).steps if step.step == "download"] == []


def test_with_the_images_of_the_same_build_there_is_nothing_to_do(
    built,
    cached,
    plan,
    earlier,  # noqa: F811 - a fixture
):
    built(0)
    output = plan().options.output_directory
    earlier.rename(output)
    path = output / "server.result.json"
    made = plan()
    fields = {"build_key": made.build_key(made.base, made.helper)}
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    assert read_result(path).status == "passed"
    everything = ["helper VM", *ALL, "stage 4", "images", "boot test"]
    assert cached() == everything
    (output / "server.raw").write_bytes(b"imagE")
    assert cached() == ["helper VM"]


def test_a_stage_with_a_secret_is_unknown_without_it(built, plan, recipe, monkeypatch):
    secret = "{type: hostname, secrets: [{name: t, env: TOKEN}]"
    recipe.write_text(RECIPE.replace("{type: hostname", secret))
    monkeypatch.setenv("TOKEN", "hunter2-and-more")
    built(3, allow_env=("TOKEN",))
    for options, ready in (
        ({"allow_env": ("TOKEN",)}, [True, True, True, False]),
        ({"with_secrets": False}, [True, None, None, None]),
    ):
        shown = preview(plan(**options))
        assert [s.ready for s in shown.steps if s.step.startswith("stage")] == ready
    lines = [line for line in shown.lines() if line.startswith("stage")]
    assert lines[:2] == [
        "stage 1      timezone (cached)",
        "stage 2      hostname (depends on secrets)",
    ]


@pytest.mark.parametrize("stages", [0, 2])
def test_a_dry_run_makes_nothing(built, cached, stages):
    built(stages)

    def state():
        paths = [cache_directory(), *cache_directory().rglob("*")]
        return {path: path.read_bytes() if path.is_file() else None for path in paths}

    before = state()
    cached()
    assert state() == before
