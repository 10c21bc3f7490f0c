import hashlib
import json
import math
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
from particle_agent.stages.output.qemu import Qemu
from particle_os.errors import DeadlineExceeded, InfrastructureError, NotEnoughSpace
from particle_os.jobs import artifact
from particle_os.jobs.delivery import Delivery, last_time, published
from particle_os.report import results
from particle_os.report.progress import Progress
from particle_os.report.results import ENDINGS, StageResult
from particle_os.system.checksum import Checksums
from particle_os.system.workspace import allocated_bytes

from tests.unit.report.test_page import result

from ...waiting import Clock, moment, plenty


@pytest.fixture
def delivery(tmp_path):
    """A delivery with its logs and evidence in the staging directory."""
    staging = tmp_path / "out/.staging"
    staging.mkdir(parents=True)
    made = Delivery("server", staging, tmp_path / "out")
    for ending in ("log", "console.log"):
        made.file(ending).write_text(ending)
    (made.evidence / "bios").mkdir(parents=True)
    (made.evidence / "bios/console.log").write_text("Linux version 6.12")
    return made


def test_a_build_leaves_its_report_and_evidence_beside_the_images(delivery):
    delivery.file("raw").write_bytes(b"image")
    delivery.add("raw", 5)
    found = result("server").model_copy(update={"artifacts": delivery.artifacts(plenty())})
    delivery.write(found, "<!DOCTYPE html>")
    delivery.publish(found)
    sums = (delivery.output / "SHA256SUMS").read_text()
    assert sums == f"{hashlib.sha256(b'image').hexdigest()}  server.raw\n"
    names = {path.name for path in delivery.output.iterdir() if not path.name.startswith(".")}
    assert names == {
        "SHA256SUMS",
        "server.raw",
        "server.evidence",
        *(f"server.{e}" for e in ENDINGS),
    }
    assert (delivery.output / "server.report.html").read_text() == "<!DOCTYPE html>"
    assert (delivery.output / "server.evidence/bios/console.log").exists()


def test_a_repository_and_its_key_are_published_with_the_images(delivery):
    delivery.file("raw").write_bytes(b"image")
    delivery.add("raw", 5)
    for name, path in delivery.more_outputs(["repository", "key"]).items():
        path.write_bytes(name.encode())
        delivery.add_other(name, len(name), artifact.checksums(path))
    found = result("server").model_copy(update={"artifacts": delivery.artifacts(plenty())})
    assert [each.format for each in found.artifacts] == ["raw", "ostree-repository", "gpg-key"]
    delivery.write(found, "")
    delivery.publish(found)
    assert (delivery.output / "server.ostree.tar").read_bytes() == b"repository"
    assert (delivery.output / "server.ostree.gpg").read_bytes() == b"key"
    assert len((delivery.output / "SHA256SUMS").read_text().splitlines()) == 3
    # The next build has no commit: its files are the old ones no more.
    second = Delivery("server", delivery.staging.with_name(".other"), delivery.output)
    second.staging.mkdir()
    second.file("raw").write_bytes(b"image")
    second.add("raw", 5)
    for ending in ("log", "console.log"):
        second.file(ending).touch()
    found = result("server").model_copy(update={"artifacts": second.artifacts(plenty())})
    second.write(found, "")
    second.publish(found)
    assert not list(delivery.output.glob("*.ostree.*"))


def test_the_last_build_says_how_long_it_took(tmp_path):
    options = SimpleNamespace(output_directory=tmp_path)
    plan = SimpleNamespace(name="server", options=options)
    assert last_time(plan) is None
    phases = {"stages": 7.5, "boot test (bios)": 2.0, "boot test": 2.0}
    starts = {"stages": 0.0, "boot test (bios)": 7.5, "boot test": 7.5}
    found = result("server").model_copy(update={"phases": phases, "phase_starts": starts})
    (tmp_path / "server.result.json").write_text(found.model_dump_json())
    # The boot with BIOS is a part of the boot test.
    assert last_time(plan) == 9.5
    (tmp_path / "server.result.json").write_text("{")
    assert last_time(plan) is None


@pytest.mark.parametrize(
    ("formats", "compress", "images"),
    [
        (("raw",), "none", ["server.raw"]),
        (("qcow2",), "zstd", ["server.qcow2"]),
        (("raw", "qcow2"), "none", ["server.raw", "server.qcow2"]),
        (("raw", "qcow2"), "zstd", ["server.qcow2", "server.raw.zst"]),
    ],
)
def test_a_delivery_has_the_images_that_the_recipe_asks_for(
    delivery, soon, formats, compress, images
):
    delivery.file("raw").write_bytes(b"content" + bytes((1 << 20) - 7))
    delivery.add("raw", 1 << 20)
    disk = Qemu(formats=formats, compress=compress)
    progress = Progress([])
    delivery.convert(disk, progress, soon)
    delivery.compress(disk, progress, soon)
    assert [image.path for image in delivery.images] == images
    assert {image.result(soon).virtual_bytes for image in delivery.images} == {1 << 20}
    left = {path.name for path in delivery.staging.iterdir()}
    assert {name for name in left if name.startswith(("server.raw", "server.q"))} == set(images)


def test_a_raw_disk_that_could_be_another_format_is_refused(delivery):
    delivery.file("raw").write_bytes(b"QFI\xfb\0\0\0\3" + bytes(1000))
    with pytest.raises(InfrastructureError, match="as an image of the format qcow2 does"):
        delivery.add("raw", 1008)
    assert delivery.images == []


def test_a_failed_build_leaves_report_and_evidence_but_no_image(delivery):
    delivery.file("raw").write_bytes(b"image")
    delivery.write(result("server"), "<!DOCTYPE html>")
    log = delivery.keep_evidence([])
    assert log == delivery.failed_directory / "server.log"
    names = {path.name for path in delivery.failed_directory.iterdir()}
    assert names == {"server.evidence", *(f"server.{ending}" for ending in ENDINGS)}
    assert (delivery.failed_directory / "server.evidence/bios/console.log").exists()


def test_a_build_that_fails_early_has_no_report(delivery):
    delivery.keep_evidence([])
    assert not (delivery.failed_directory / "server.report.html").exists()
    assert (delivery.failed_directory / "server.console.log").exists()


def test_checksums_that_do_not_come_are_waited_for_until_the_deadline(delivery):
    delivery.file("raw").write_bytes(b"image")
    delivery.add("raw", 5, sums=Future())
    deadline = moment("the build")
    with pytest.raises(DeadlineExceeded, match="the build took longer"):
        delivery.artifacts(deadline)
    delivery.images[0].checksums.set_result(Checksums("0" * 64, "1" * 64))
    (found,) = delivery.artifacts(deadline)
    assert found.sha256 == "0" * 64


def test_an_image_that_cannot_be_read_raises_an_error(delivery):
    delivery.file("qcow2").mkdir()
    delivery.add("qcow2", 5)
    with pytest.raises(OSError, match="not a regular file"):
        delivery.artifacts(plenty())


def test_the_network_age_of_a_build_is_the_age_of_its_oldest_network_stage(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(results, "time", clock)
    now = clock.now
    times = [now - 30, now - 20, None]
    stages = [
        StageResult(index=i, type="apt", status="done", done_at=at) for i, at in enumerate(times)
    ]
    found = result("x").model_copy(update={"stages": tuple(stages), "created": now - 10})
    age = found.network_age
    assert age([False, False, False]) == 0
    assert age([False, True, True]) == 20
    assert age([True, True, False]) == 30
    assert age([False, False, True]) == 10
    future = found.model_copy(update={"created": now + 100_000})
    assert future.network_age([True, True, False]) == 30
    assert future.network_age([True, True, True]) == math.inf


def _changed(**fields):
    def change(output):
        path = output / "server.result.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

    return change


@pytest.fixture
def earlier(delivery):
    """The output directory of an earlier build with the key `key`."""
    delivery.file("raw").write_bytes(b"image")
    delivery.add("raw", 5)
    changes = {"artifacts": delivery.artifacts(plenty()), "build_key": "key", "status": "passed"}
    found = result("server").model_copy(update=changes)
    delivery.write(found, "<!DOCTYPE html>")
    delivery.publish(found)
    return delivery.output


@pytest.mark.parametrize("status", ["passed", "not-tested"])
def test_an_earlier_build_with_intact_images_makes_a_build_unnecessary(earlier, status):
    _changed(status=status)(earlier)
    notes = []
    found = published("server", earlier, "key", notes.append)
    assert notes == []
    assert (found.build_key, found.status) == ("key", status)
    assert [image.path for image in found.artifacts] == ["server.raw"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda output: (output / "server.raw").write_bytes(b"imagE"),
        lambda output: (output / "server.raw").write_bytes(b"image\0"),
        lambda output: (output / "server.raw").write_bytes(b""),
        lambda output: (output / "server.raw").unlink(),
    ],
)
def test_a_note_says_that_a_published_image_is_not_whole(earlier, damage):
    damage(earlier)
    notes = []
    assert published("server", earlier, "key", notes.append) is None
    assert notes == [f"{earlier}/server.raw is damaged, changed or gone; it is built again"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda output: (output / "server.result.json").unlink(),
        lambda output: (output / "server.result.json").write_text("{"),
        _changed(status="failed"),
        _changed(status="defective"),
        _changed(build_key="other"),
    ],
)
def test_an_earlier_build_that_is_not_whole_is_built_again(earlier, damage):
    damage(earlier)
    notes = []
    assert published("server", earlier, "key", notes.append) is None
    assert notes == []


def test_room_is_needed_before_each_copy_of_an_image(delivery, soon, monkeypatch):
    asked = []

    def need_room(directory, needed, what):
        asked.append((directory, needed, what))
        raise NotEnoughSpace("no room")

    monkeypatch.setattr("particle_os.jobs.delivery.need_room", need_room)
    delivery.file("raw").write_bytes(b"x" * 8192)
    delivery.add("raw", 8192)
    disk = Qemu(formats=("raw", "qcow2"), compress="zstd")
    for copy in (delivery.convert, delivery.compress):
        with pytest.raises(NotEnoughSpace):
            copy(disk, Progress([]), soon)
    assert asked == [
        (delivery.staging, allocated_bytes(delivery.file("raw")), "the qcow2 image"),
        (delivery.staging, allocated_bytes(delivery.file("raw")), "the compressed image"),
    ]
    delivery.compress(Qemu(formats=("raw",), compress="none"), Progress([]), soon)
    delivery.compress(Qemu(formats=("qcow2",), compress="zstd"), Progress([]), soon)
    assert len(asked) == 2


def test_a_link_in_the_place_of_the_evidence_is_left_alone(delivery, tmp_path):
    place = delivery.failed_directory
    (tmp_path / "elsewhere").mkdir()
    place.symlink_to(tmp_path / "elsewhere")
    log = delivery.keep_evidence([])
    assert place.is_symlink()
    assert log.parent.name.startswith(f"{place.name}-")
