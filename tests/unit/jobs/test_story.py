"""A build with a simulated VM: the files that it leaves in the output directory."""

import errno
import hashlib
import json
import shutil
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
from particle_agent.contract import wire
from particle_agent.contract.inspection import Inspection
from particle_os.apt.proxy import NO_PROXY
from particle_os.boot import session
from particle_os.boot.observation.verdict import Verdict
from particle_os.errors import (
    InfrastructureError,
    NotPublished,
    StageFailed,
    UsageError,
    VmError,
)
from particle_os.jobs import build, single_stage
from particle_os.jobs.checkpoints import DISK, META, Checkpoint, Meta
from particle_os.jobs.delivery import prepare_output
from particle_os.jobs.execution import helper_vms, job
from particle_os.jobs.execution.helper_vms import HelperVms
from particle_os.jobs.execution.preparation import Prepared
from particle_os.jobs.plan import PLAIN_NOTE, BuildOptions
from particle_os.jobs.planning import make_plan, make_stage_plan
from particle_os.report.progress import Progress
from particle_os.sandbox.helper import Helper
from particle_os.system import publication
from particle_os.vm import firmware as firmwares
from particle_os.vm.accel import TCG
from particle_os.vm.traffic import Traffic

from ...waiting import plenty
from ..base.test_lookup import AMD64, tar

RECIPE = """\
name: server
base-image: tar:base.tar
stages:
  - {type: timezone, zone: UTC}
  - {type: qemu}
"""
CONTENT = b"the disk" * 64


class Agent:
    """Runs each stage without any work, and writes CONTENT to the output disk."""

    def __init__(self, sandbox, fails):
        self.sandbox = sandbox
        self.fails = fails

    def forbid_hosts(self):
        return None

    def hold(self, secrets, deadline):
        assert secrets == {}

    def found(self, deadline):
        return Inspection(size=0, table=None, partitions=(), boot_loaders=(), system=None)

    def run(self, stages, *, listen, verify, **options):
        for index, stage in enumerate(stages):
            listen(wire.StageStart(index=index))
            if stage.type == self.fails:
                raise StageFailed("it failed")
            if self.fails == f"end of {stage.type}":
                return
            if self.fails == f"output of {stage.type}":
                listen(wire.StageEnd(index=index, seconds=1.0))
                continue
            if stage.type in ("qemu", "export"):
                self.sandbox.output.path.write_bytes(CONTENT)
                listen(wire.DiskWritten(size=len(CONTENT)))
            listen(wire.StageEnd(index=index, seconds=1.0))
        if verify:
            if self.fails == "verification":
                listen(
                    wire.Finding(code="fstab-type-wrong", place="/etc/fstab", message="it is wrong")
                )
            listen(wire.Verified(seconds=0.5))


class Sandbox:
    def __init__(self, output, fails):
        self.agent = Agent(self, fails)
        self.output = SimpleNamespace(path=output)
        self.packages = output.with_name("packages")

    def connect_outside(self, connected, deadline):
        pass

    def take_traffic(self):
        return Traffic(names=("example.org",))

    def keep_scratch(self, path, deadline):
        path.write_text("scratch")

    def take_disk_event(self, event, deadline):
        return self.output


class Vms(HelperVms):
    fails = ""

    @contextmanager
    def start(self, purpose, output, layers=(), more_outputs=None, stages_from=None):
        self.job.transcript.path.touch()
        yield Sandbox(output, self.fails)


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A directory with a recipe and its base; `fails` names the step that fails."""
    (tmp_path / "base.tar").write_bytes(tar(usr__bin__ls=AMD64))
    (tmp_path / "server.yml").write_text(RECIPE)
    (tmp_path / "root").touch()
    monkeypatch.setattr(helper_vms.process, "version", lambda program: "QEMU 10")
    found = SimpleNamespace(fails="", out=tmp_path / "out", path=tmp_path, checkpoints=())

    def prepare(job):
        if found.fails == "preparation":
            raise InfrastructureError("there is no helper")
        made = Helper("key", Path("kernel"), Path("initrd"), tmp_path / "root")
        monkeypatch.setattr(Vms, "fails", found.fails)
        base = SimpleNamespace(
            reference="tar:base.tar", digest="sha256:0", size=lambda: 10, is_here=lambda: True,
            push=lambda agent, deadline, listen: None, drop_damaged=lambda: None,
        )  # fmt: skip
        keys = job.plan.keys(base, made)
        vms = Vms(job, made, TCG, plenty())
        return Prepared(NO_PROXY, vms, base, keys, found.checkpoints)

    monkeypatch.setattr(build, "prepare", prepare)
    monkeypatch.setattr(single_stage, "prepare", prepare)
    return found


def planned(world, **options):
    options = {"boot_test": False, **options}
    wanted = BuildOptions(output_directory=world.out, cache=False, **options)
    return make_plan(world.path / "server.yml", wanted)


def built(world, **options):
    return build.build(planned(world, **options), Progress([]))


def left(directory):
    return {path.name for path in directory.iterdir() if not path.name.startswith(".")}


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
    base = SimpleNamespace(digest="sha256:0")
    made = Helper("key", Path("kernel"), Path("initrd"), world.path / "root")
    assert set(plans[0].keys(base, made)).isdisjoint(plans[1].keys(base, made))


def test_a_checkpoint_belongs_to_a_base_a_helper_and_a_date(world):
    def keys(digest="sha256:0", helper="one", date=7):
        plan = planned(world, source_date=date)
        return plan.keys(SimpleNamespace(digest=digest), SimpleNamespace(identity=lambda: helper))

    made = [keys(), keys(digest="sha256:1"), keys(helper="another"), keys(date=8), keys()]
    assert len({key for found in made for key in found}) == 4 * len(keys())
    assert made[0] == made[-1]


def test_a_failed_stage_leaves_its_evidence_and_no_image(world):
    built(world)
    before = (world.out / "server.result.json").read_text()
    world.fails = "timezone"
    with pytest.raises(StageFailed) as raised:
        built(world)
    assert raised.value.where.startswith("stage 1 (timezone)")
    assert raised.value.log == world.out / "server.failed/server.log"
    result = json.loads((world.out / "server.failed/server.result.json").read_text())
    assert result["status"] == "failed"
    assert [stage["status"] for stage in result["stages"]] == ["failed", "not-run"]
    assert result["stages"][0]["network"]["names"] == ["example.org"]
    assert result["stages"][0]["seconds"] >= 0
    page = (world.out / "server.failed/server.report.html").read_text()
    assert "it failed" in page
    # The played build keeps no checkpoint, so there is no shell in the failed stage.
    assert "--failed" not in page
    for ending in ("log", "result.json"):
        assert f'href="./server.{ending}"' in page
        assert (world.out / f"server.failed/server.{ending}").exists()
    # The images of the earlier build are untouched.
    assert (world.out / "server.result.json").read_text() == before


@pytest.mark.parametrize(
    ("fails", "kept"), [("timezone", True), ("end of qemu", False), ("verification", False)]
)
def test_the_disk_of_a_failed_stage_is_kept_if_wanted(world, fails, kept):
    world.fails = fails
    with suppress(StageFailed, VmError):
        built(world, keep_on_failure=True)
    assert (world.out / "server.failed/scratch.qcow2").exists() is kept


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


def test_a_recipe_that_changed_during_the_build_is_not_shown(world):
    plan = planned(world)
    text = RECIPE.replace("zone: UTC", "zone: Europe/Rome")
    (world.path / "server.yml").write_text(text)
    build.build(plan, Progress([]))
    page = (world.out / "server.report.html").read_text()
    assert "Europe/Rome" not in page and 'id="recipe"' not in page


@pytest.mark.parametrize(
    ("fails", "message"),
    [
        ("end of qemu", "the agent said 'done' before every stage was"),
        ("output of qemu", "the last stage wrote nothing to the output disk"),
    ],
)
def test_an_agent_that_leaves_out_the_disk_fails_the_build(world, fails, message):
    world.fails = fails
    with pytest.raises(VmError, match=message):
        built(world)
    result = json.loads((world.out / "server.failed/server.result.json").read_text())
    assert (result["status"], result["artifacts"]) == ("failed", [])


def test_a_build_that_fails_before_its_stages_leaves_only_its_log(world):
    world.fails = "preparation"
    with pytest.raises(InfrastructureError) as raised:
        built(world)
    assert raised.value.log.exists()
    assert left(world.out / "server.failed") == {"server.log"}


@pytest.mark.parametrize(
    ("status", "expected"), [("passed", "passed"), ("timed-out", "not-booted")]
)
def test_a_boot_test_decides_what_becomes_of_the_image(world, monkeypatch, status, expected):
    def boot(request, directory):
        assert request.image.read_bytes() == CONTENT
        assert request.evidence.image == Path("../../server.raw")
        return Verdict(
            status=status, firmware=request.variant.firmware, seconds=1.0, message="seen"
        )

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


def test_a_host_that_fails_in_the_boot_test_fails_the_build(world, monkeypatch):
    def boot(request, directory):
        raise InfrastructureError("QEMU is gone")

    monkeypatch.setattr(session, "boot", boot)
    with pytest.raises(InfrastructureError, match="QEMU is gone"):
        built(world, boot_test=True)
    result = json.loads((world.out / "server.failed/server.result.json").read_text())
    assert result["status"] == "failed"
    (verdict,) = result["boot"]
    assert (verdict["status"], verdict["message"]) == ("infrastructure", "QEMU is gone")
    assert left(world.out) == {"server.failed"}


def test_a_disk_with_errors_is_kept_and_not_published(world):
    world.fails = "verification"
    result = built(world)
    assert result.status == "defective"
    assert [finding.code for finding in result.verification.findings] == ["fstab-type-wrong"]
    assert "findings in the disk: 1" in (world.out / "server.failed/server.log").read_text()
    assert "server.raw" in left(world.out / "server.failed")
    assert left(world.out) == {"server.failed"}


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


def test_a_missing_firmware_ends_the_build_before_its_preparation(world, monkeypatch):
    def refuse(firmware):
        raise UsageError(f"{firmware} is not installed")

    monkeypatch.setattr(firmwares, "check", refuse)
    world.fails = "preparation"
    plan = make_plan(world.path / "server.yml", BuildOptions(output_directory=world.out))
    with pytest.raises(UsageError, match="bios is not installed"):
        build.build(plan, Progress([]))


def prepared(world):
    """Prepares the output directory as `build` does; returns the notes."""
    notes = []
    world.out.mkdir(exist_ok=True)
    options = BuildOptions(output_directory=world.out, cache=False, boot_test=False)
    prepare_output(make_plan(world.path / "server.yml", options), notes.append)
    return notes


@pytest.mark.parametrize("name", ["server.raw", "server.result.json", "SHA256SUMS"])
def test_a_directory_with_the_name_of_a_file_is_refused_before_the_build(world, name):
    (world.out / name).mkdir(parents=True)
    with pytest.raises(UsageError, match=f"{name} is a directory") as failure:
        prepared(world)
    assert "--output" in failure.value.hint


@pytest.mark.parametrize("name", ["server.failed", "server.evidence"])
def test_a_file_with_the_name_of_a_directory_is_refused_before_the_build(world, name):
    world.out.mkdir()
    (world.out / name).write_text("precious")
    with pytest.raises(UsageError, match=f"{name} is a file"):
        prepared(world)


def test_a_publication_that_was_interrupted_is_finished_before_the_build(world, monkeypatch):
    built(world)
    with monkeypatch.context() as patched:
        patched.setattr(publication, "_finish", lambda *arguments: False)
        built(world)
    (world.out / "server.raw").unlink()
    assert prepared(world) == [f"finished an interrupted publication in {world.out}"]
    assert (world.out / "server.raw").read_bytes() == CONTENT
    assert prepared(world) == []


def test_images_that_cannot_be_published_are_kept(world, monkeypatch):
    world.out.mkdir()
    # The directory appears while the build runs.
    monkeypatch.setattr(Agent, "found", lambda *arguments: (world.out / "server.log").mkdir() or
                        Inspection(size=0, table=None, partitions=(), boot_loaders=(), system=None)
                        )  # fmt: skip
    with pytest.raises(NotPublished, match=r"server\.log is a directory") as failure:
        built(world)
    assert str(world.out / "server.failed") in failure.value.hint
    assert (world.out / "server.failed/server.raw").read_bytes() == CONTENT


@pytest.mark.parametrize("plant", [Path.write_text, Path.symlink_to])
def test_a_file_in_the_place_of_the_evidence_does_not_hide_the_error(world, plant):
    world.out.mkdir()
    plant(world.out / "server.failed", "elsewhere")
    world.fails = "timezone"
    with pytest.raises(StageFailed) as failure:
        built(world)
    assert failure.value.log.name == "server.log"
    assert failure.value.log.exists()
    assert not (world.out / "server.failed").is_dir()


def test_an_output_directory_that_vanishes_is_named(world, monkeypatch):
    monkeypatch.setattr(Agent, "hold", lambda *arguments: shutil.rmtree(world.out))
    with pytest.raises(InfrastructureError, match="was removed while the build ran") as failure:
        built(world)
    assert str(world.out) in failure.value.brief
    assert failure.value.tail


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
    (place / META).write_text(json.dumps(asdict(meta)))
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
