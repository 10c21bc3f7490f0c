"""A build with a simulated VM: the files that it leaves in the output directory."""

import errno
import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from particle_os.boot import session
from particle_os.boot.observation.verdict import Verdict
from particle_os.errors import (
    InfrastructureError,
    StageFailed,
)
from particle_os.jobs import build, single_stage
from particle_os.jobs.checkpoints import DISK, META, Checkpoint, Meta, sealed
from particle_os.jobs.execution import helper_vms, job
from particle_os.jobs.plan import PLAIN_NOTE, BuildOptions
from particle_os.jobs.planning import make_plan, make_stage_plan
from particle_os.report.progress import Progress
from particle_os.sandbox.helper import Helper

from .story import CONTENT, RECIPE, built, left, planned


def test_a_build_publishes_its_images_with_their_result(world):
    result = built(world)
    assert (result.status, result.base) == ("not-tested", "tar:base.tar")
    assert [stage.status for stage in result.stages] == ["done", "done"]
    assert (world.out / "server.raw").read_bytes() == CONTENT
    assert json.loads((world.out / "server.result.json").read_text())["status"] == "not-tested"
    assert "server.report.html" in left(world.out)
    assert "server.failed" not in left(world.out)


def test_a_build_publishes_the_formats_that_the_recipe_asks_for(world):
    wanted = "{type: qemu, formats: [raw, qcow2], compress: zstd}"
    (world.path / "server.yml").write_text(RECIPE.replace("{type: qemu}", wanted))
    result = built(world)
    assert [image.path for image in result.artifacts] == ["server.qcow2", "server.raw.zst"]
    assert {"server.qcow2", "server.raw.zst"} < left(world.out)
    assert "server.raw" not in left(world.out)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), InfrastructureError("locked")]
)
def test_a_build_that_is_published_succeeds_whatever_the_pruning_does(world, monkeypatch, error):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(job.cache, "prune", fail)
    assert built(world).status == "not-tested"
    assert (world.out / "server.raw").read_bytes() == CONTENT


def test_a_plain_build_says_so_and_shares_no_checkpoint_with_another(world):
    fast, plain = built(world), built(world, plain=True)
    assert (fast.plain, plain.plain) == (False, True)
    assert fast.build_key != plain.build_key
    assert PLAIN_NOTE in plain.notes
    assert PLAIN_NOTE not in fast.notes
    plans = [
        make_plan(world.path / "server.yml", BuildOptions(output_directory=world.out, plain=plain))
        for plain in (False, True)
    ]
    base = SimpleNamespace(identity="sha256:0")
    made = Helper("key", Path("kernel"), Path("initrd"), world.path / "root")
    assert set(plans[0].keys(base, made)).isdisjoint(plans[1].keys(base, made))


def test_a_checkpoint_belongs_to_a_base_a_helper_and_a_date(world):
    def keys(digest="sha256:0", helper="one", date=7):
        plan = planned(world, source_date=date)
        return plan.keys(SimpleNamespace(identity=digest), SimpleNamespace(identity=lambda: helper))

    made = [keys(), keys(digest="sha256:1"), keys(helper="another"), keys(date=8), keys()]
    assert len({key for found in made for key in found}) == 4 * len(keys())
    assert made[0] == made[-1]


SECRETIVE = """\
variables:
  zone: UTC
  hash: "*"
name: server
base-image: tar:base.tar
stages:
  - type: timezone
    zone: ${zone}
  - type: users
    users: [{name: ann, password-hash: "${hash}"}]
  - {type: qemu}
"""


def test_the_report_has_the_recipe_without_its_confidential_values(world):
    (world.path / "server.yml").write_text(SECRETIVE)
    digest = "$6$saltsalt$" + "q" * 86
    world.fails = "timezone"
    with pytest.raises(StageFailed):
        built(world, variables={"zone": "Europe/Rome", "hash": digest})
    page = (world.out / "server.failed/server.report.html").read_text()
    assert "zone: Europe/Rome" in page
    assert "password-hash: (confidential)" in page
    assert "$6$" not in page and digest[-20:] not in page


def test_a_stage_with_a_confidential_variable_is_private(world):
    (world.path / "server.yml").write_text(SECRETIVE)
    assert planned(world).private_from == 1
    left_out = "zone: ${zone}\n    when: {architecture: [arm64]}"
    (world.path / "server.yml").write_text(SECRETIVE.replace("zone: ${zone}", left_out))
    assert planned(world).private_from == 0, "a stage that is left out does not count"
    literal = SECRETIVE.replace('"${hash}"', '"*"').replace('  hash: "*"\n', "")
    (world.path / "server.yml").write_text(literal)
    assert planned(world).private_from == 3, "what the recipe spells out is no secret"


def test_a_recipe_that_changed_during_the_build_is_not_shown(world):
    plan = planned(world)
    text = RECIPE.replace("zone: UTC", "zone: Europe/Rome")
    (world.path / "server.yml").write_text(text)
    build.build(plan, Progress([]))
    page = (world.out / "server.report.html").read_text()
    assert "Europe/Rome" not in page and 'id="recipe"' not in page


@pytest.mark.parametrize(
    ("status", "expected"), [("passed", "passed"), ("timed-out", "not-booted")]
)
def test_a_boot_test_decides_what_becomes_of_the_image(world, monkeypatch, status, expected):
    def boot(request, directory):
        assert request.image.read_bytes() == CONTENT
        assert request.evidence.image == Path("../../server.raw")
        firmware = request.variant.firmware
        return Verdict(status=status, firmware=firmware, seconds=1.0, message="seen")

    monkeypatch.setattr(session, "boot", boot)
    result = built(world, boot_test=True)
    assert (result.status, [verdict.message for verdict in result.boot]) == (expected, ["seen"])
    images = world.out if expected == "passed" else world.out / "server.failed"
    assert (images / "server.raw").exists()


def test_the_goss_file_of_a_recipe_reaches_the_boot_test(world, monkeypatch):
    def boot(request, directory):
        asked.append((request.goss, request.testinfra))
        return Verdict(status="passed", seconds=1.0, message="seen")

    asked = []
    monkeypatch.setattr(session, "boot", boot)
    (world.path / "goss.yaml").write_text("file: {}\n")
    recipe = world.path / "server.yml"
    recipe.write_text(recipe.read_text() + "boot-test: {firmware: [bios], goss: goss.yaml}\n")
    first = built(world, boot_test=True)
    assert asked == [(b"file: {}\n", None)]
    # Another file is another test: the published image has not passed it.
    (world.path / "goss.yaml").write_text("port: {}\n")
    assert built(world, boot_test=True).build_key != first.build_key


@pytest.mark.parametrize("export", [True, False])
def test_a_stage_that_runs_alone(world, export):
    options_path = world.path / "options.yml"
    options_path.write_text("zone: UTC\n")
    options = BuildOptions(output_directory=world.path, cache=False)
    base = f"tar:{world.path}/base.tar"
    plan = make_stage_plan("timezone", options_path, options, base=base, export=export)
    output = world.path / "root.tar" if export else None
    result = single_stage.run_stage(plan, output, Progress([]))
    assert (result.stage.type, result.stage.status) == ("timezone", "done")
    assert (result.archive is not None) is export
    if output is not None:
        assert output.read_bytes() == CONTENT
        assert result.archive.bytes == len(CONTENT)


@pytest.mark.parametrize("listed", [True, False])
def test_a_stage_that_runs_alone_leaves_no_wrong_sum(world, listed):
    """A line of an earlier file of this name is replaced; without one, SHA256SUMS is untouched."""
    options_path = world.path / "options.yml"
    options_path.write_text("zone: UTC\n")
    output, sums = world.path / "root.tar", world.path / "SHA256SUMS"
    output.write_bytes(b"earlier")
    other = f"{hashlib.sha256(b'zone: UTC' + bytes([10])).hexdigest()}  options.yml\n"
    earlier = f"{hashlib.sha256(b'earlier').hexdigest()}  root.tar\n"
    sums.write_text(other + earlier if listed else other)
    options = BuildOptions(output_directory=world.path, cache=False)
    base = f"tar:{world.path}/base.tar"
    plan = make_stage_plan("timezone", options_path, options, base=base, export=True)
    single_stage.run_stage(plan, output, Progress([]))
    new = f"{hashlib.sha256(CONTENT).hexdigest()}  root.tar\n"
    assert sums.read_text() == other + (new if listed else "")


@pytest.mark.parametrize("abi", [0, 6])
def test_the_result_says_when_the_kernel_confines_nothing(world, monkeypatch, abi):
    monkeypatch.setattr(job, "landlock_abi", lambda: abi)
    monkeypatch.setattr(helper_vms, "landlock_abi", lambda: abi)
    result = built(world)
    assert (job.UNCONFINED in result.notes) == (abi == 0)
    assert result.helper.landlock == abi


def checkpoint(world, name, content):
    """A checkpoint whose metadata expects the disk b"sound"."""
    place = world.path / "checkpoints" / name
    place.mkdir(parents=True)
    (place / DISK).write_bytes(content)
    sha256 = hashlib.sha256(b"sound").hexdigest()
    meta = Meta(id=name, parent=None, label=name, network=False, sha256=sha256)
    (place / META).write_text(sealed(meta))
    return Checkpoint(name, place / DISK, meta)


def test_a_build_goes_on_from_sound_checkpoints(world):
    world.checkpoints = (checkpoint(world, "base", b"sound"), checkpoint(world, "zone", b"sound"))
    result = built(world)
    assert [stage.cached for stage in result.stages] == [True, False]
    assert result.status == "not-tested"


def test_a_stage_runs_again_when_its_checkpoint_is_damaged(world):
    world.checkpoints = (checkpoint(world, "base", b"sound"), checkpoint(world, "zone", b"sounD"))
    result = built(world)
    assert [stage.cached for stage in result.stages] == [False, False]
    assert [stage.status for stage in result.stages] == ["done", "done"]
    assert any("damaged" in note for note in result.notes)
    assert not (world.path / "checkpoints" / "zone" / META).exists()
    assert (world.path / "checkpoints" / "base" / META).exists()


def test_the_base_is_sent_again_when_its_checkpoint_is_damaged(world):
    world.checkpoints = (checkpoint(world, "base", b"sounD"), checkpoint(world, "zone", b"sound"))
    result = built(world)
    assert [stage.status for stage in result.stages] == ["done", "done"]
    assert "push base" in result.phases
