"""A result comes back through the shared cache as a build here leaves it, or not at all."""

import hashlib
import json
import shutil
import subprocess

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from particle_os.errors import InfrastructureError
from particle_os.fleet.build_end import BuildEnd
from particle_os.fleet.build_process import Ended
from particle_os.fleet.farm import returned
from particle_os.fleet.farm.assignment import Assignment
from particle_os.fleet.farm.client.there import FarmElsewhere
from particle_os.fleet.farm.keys import FarmKeys
from particle_os.fleet.order import Order
from particle_os.jobs.plan import BuildOptions
from particle_os.report.pages import POLICY, is_inert
from particle_os.report.results import ArtifactResult
from particle_os.sharing.entry import SharedEntry
from particle_os.sharing.shared_cache import of_options
from particle_os.system.checksum import tree_sha256
from particle_os.system.workspace import workspace

from ...report.pages import result, verdict
from .test_parcel import packed

KEY = "ab" * 32
NAME = "server"
FAILED = Ended(3, 1.0, error={"error": "a stage failed", "tail": ["t"], "problems": []})


def pair(place, name):
    """The files of a new pair of keys, as openssl writes them."""
    secret, public = place / f"{name}.key", place / f"{name}.pub"
    key = Ed25519PrivateKey.generate()
    pem = serialization.Encoding.PEM
    secret.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    kind = serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(key.public_key().public_bytes(pem, kind))
    return secret, public


def built(output, status="passed"):
    """The files of a build in its output directory; returns its result."""
    output.mkdir()
    image = output / f"{NAME}.qcow2"
    with image.open("wb") as file:
        file.write(b"QFI\xfb" + bytes(70000) + b"end")
        file.truncate(1 << 22)
    found = ArtifactResult(
        path=image.name, format="qcow2", bytes=1 << 22, virtual_bytes=1 << 30, allocated_bytes=1,
        sha256=hashlib.sha256(image.read_bytes()).hexdigest(),
        tree_sha256=tree_sha256(image, 1 << 22),
    )  # fmt: skip
    made = result(NAME, [verdict(NAME, status)], artifacts=(found,))
    evidence = output / f"{NAME}.evidence/bios"
    evidence.mkdir(parents=True)
    (evidence / "console.log").write_bytes(b"\x1b[mLinux")
    for ending, text in (("log", "the log"), ("report.html", f"{POLICY}<p>"), ("console.log", "c")):
        (output / f"{NAME}.{ending}").write_text(text)
    (output / f"{NAME}.result.json").write_text(made.model_dump_json())
    return made


@pytest.fixture
def world(tmp_path):
    class World:
        secret, public = pair(tmp_path, "worker")
        shared = tmp_path / "shared"
        there, here = tmp_path / "there", tmp_path / "here"
        notes: list = []  # noqa: RUF012
        answer = None

        def writer(self):
            return of_options((), (), f"file://{self.shared}", self.secret)

        def good(self):
            """The answer of a build that has printed the result in its directory."""
            printed = self.there / f"{NAME}.result.json"
            return Ended(0, 1.0, printed.read_bytes()).data()

        def give(self):
            work = tmp_path / "work"
            work.mkdir(exist_ok=True)
            if self.answer is None:
                self.answer = self.good()
            returned.give(self.writer(), Assignment(NAME, KEY), self.answer, self.there, work)

        def take(self, public=None, key=KEY, name=NAME):
            reader = of_options([f"file://{self.shared}"], [public or self.public], None, None)
            with workspace() as work:
                return returned.take(reader, key, name, self.here, work, self.notes.append)

        def blobs(self):
            return [path for path in self.shared.rglob("*") if path.is_file()]

        def left(self):
            return [p.name for p in self.here.glob(".*")] if self.here.exists() else []

    return World()


def test_a_good_build_is_published_here_with_all_of_its_files(world):
    built(world.there)
    world.give()
    assert world.take().log is None
    names = {str(p.relative_to(world.here)) for p in world.here.rglob("*") if p.is_file()}
    own = {str(p.relative_to(world.there)) for p in world.there.rglob("*") if p.is_file()}
    assert names == own | {"SHA256SUMS"}
    for name in own:
        assert (world.here / name).read_bytes() == (world.there / name).read_bytes()
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=world.here, check=True)
    assert world.left() == []


def test_a_bad_build_brings_its_logs_and_touches_no_image(world):
    built(world.there)
    world.give()
    world.take()
    before = (world.here / f"{NAME}.qcow2").stat().st_mtime_ns
    failed = world.there / f"{NAME}.failed"
    failed.mkdir()
    for path in list(world.there.glob(f"{NAME}.*")):
        if path != failed:
            path.rename(failed / path.name)
    (failed / f"{NAME}.log").write_text("the log of the failure")
    world.answer = FAILED.data()
    world.give()
    taken = world.take()
    assert taken.ended == FAILED
    log = taken.log
    assert log == world.here / f"{NAME}.failed/{NAME}.log"
    assert log.read_text() == "the log of the failure"
    assert (log.parent / f"{NAME}.evidence/bios/console.log").exists()
    assert not (log.parent / f"{NAME}.qcow2").exists(), "disks do not travel after a failure"
    assert (world.here / f"{NAME}.qcow2").stat().st_mtime_ns == before
    assert world.left() == []


@pytest.mark.slow
def test_the_answer_of_an_earlier_attempt_is_found(world, tmp_path):
    built(world.there)
    assert returned.earlier_answer(world.writer(), KEY, tmp_path) is None
    world.give()
    assert returned.earlier_answer(world.writer(), KEY, tmp_path) == world.answer


@pytest.mark.parametrize(
    ("code", "is_answer"), [(0, True), (2, True), (3, True), (4, True), (5, False), (137, False)]
)
def test_an_answer_that_blames_its_machine_is_none_for_another_attempt(
    world, tmp_path, code, is_answer
):
    built(world.there)
    world.answer = Ended(code, 1.0, error={"error": "no space left"}).data()
    world.give()
    found = returned.earlier_answer(world.writer(), KEY, tmp_path)
    assert (found == world.answer) if is_answer else (found is None)


def failed_files(world):
    """Only the files of a bad build."""
    shutil.rmtree(world.there, ignore_errors=True)
    (world.there / f"{NAME}.failed").mkdir(parents=True)
    (world.there / f"{NAME}.failed/{NAME}.log").write_text("the log")


def forged(world, kind):
    """An image of a worker that other programs take for another format, or read files through."""
    made = built(world.there)
    raw = world.there / f"{NAME}.{kind}"
    with (world.there / f"{NAME}.qcow2").open("r+b") as file:
        if kind == "qcow2":
            # docs/interop/qcow2.txt: the place of the name of the backing file.
            file.seek(8)
            file.write((104).to_bytes(8, "big"))
    (world.there / f"{NAME}.qcow2").rename(raw)
    (artifact,) = made.artifacts
    artifact = artifact.model_copy(update={
        "path": raw.name, "format": kind, "sha256": hashlib.sha256(raw.read_bytes()).hexdigest(),
    })  # fmt: skip
    made = made.model_copy(update={"artifacts": (artifact,)})
    (world.there / f"{NAME}.result.json").write_text(made.model_dump_json())


@pytest.mark.parametrize("kind", ["raw", "qcow2", "vmdk"])
def test_an_image_that_is_none_of_its_format_is_not_published(world, kind):
    """A raw disk that begins as qcow2 does could name any file of this machine."""
    forged(world, kind)
    world.give()
    with pytest.raises(InfrastructureError, match=f"{NAME}.{kind} is no image of its format"):
        world.take()
    assert list(world.here.iterdir()) == []


@pytest.mark.parametrize("case", ["good without images", "bad with images", "another result"])
def test_files_that_do_not_fit_the_signed_answer_are_not_published(world, case):
    made = built(world.there)
    if case == "good without images":
        world.answer = world.good()
        failed_files(world)
    elif case == "bad with images":
        world.answer = FAILED.data()
    else:
        other = made.model_copy(update={"created": made.created + 1})
        world.answer = Ended(0, 1.0, other.model_dump_json().encode()).data()
    world.give()
    with pytest.raises(InfrastructureError, match="damaged"):
        world.take()
    assert list(world.here.iterdir()) == []


def test_the_end_of_a_build_is_the_one_that_was_signed(world, tmp_path):
    """Whatever Dask brings: no build is good whose images are not here."""
    made = built(world.there)
    failed_files(world)
    world.answer = FAILED.data()
    world.give()
    options = BuildOptions(
        cache_from=(f"file://{world.shared}",), cache_keys=(world.public,),
        output_directory=world.here,
    )  # fmt: skip
    order = Order(NAME, tmp_path / "r.yml", options)
    with workspace() as work:
        place = FarmElsewhere("tcp://127.0.0.1:1", FarmKeys(tmp_path), work, lines=False)
        place._results[NAME] = KEY
        told = Ended(0, 1.0, made.model_dump_json().encode())
        end = place.deliver(order, BuildEnd.of(order, told))
    assert (end.exit_code, end.status) == (3, "failed")
    assert end.error.brief == "a stage failed"
    assert [path.name for path in world.here.iterdir()] == [f"{NAME}.failed"]


def test_no_file_of_a_result_has_more_rights_than_usual(world, monkeypatch):
    failed_files(world)
    world.answer = FAILED.data()
    top = {"name": f"{NAME}.failed", "directory": True, "mode": 0o2777}
    evil = {"name": f"{NAME}.failed/{NAME}.log", "mode": 0o6777, "content": ""}
    monkeypatch.setattr(returned, "_parcel", lambda *given: packed(top, evil))
    world.give()
    log = world.take().log
    assert log.stat().st_mode & 0o7777 == 0o755


def test_a_report_that_could_run_scripts_does_not_arrive(world):
    built(world.there)
    (world.there / f"{NAME}.report.html").write_text("<script>alert(1)</script>")
    world.give()
    world.take()
    page = (world.here / f"{NAME}.report.html").read_bytes()
    assert is_inert(page) and b"script>" not in page


@pytest.mark.parametrize("name", ["\ud800", "a/" * 5000, "x" * 300])
def test_a_parcel_with_names_that_no_file_can_have_is_an_error(world, monkeypatch, name):
    built(world.there)
    entry = {"name": name, "mode": 0o644, "content": ""}
    monkeypatch.setattr(returned, "_parcel", lambda *given: packed(entry))
    world.give()
    with pytest.raises(InfrastructureError, match="damaged"):
        world.take()
    assert list(world.here.iterdir()) == []


def test_a_parcel_that_is_no_text_is_an_error(world, tmp_path):
    built(world.there)
    world.give()
    (tmp_path / "work/parcel").write_bytes(b"\xff")
    files = {name: tmp_path / "work" / name for name in ("parcel", "answer.json")}
    world.writer().keep(SharedEntry(kind="result", key=KEY, created=1.0), files)
    with pytest.raises(InfrastructureError, match="damaged"):
        world.take()


def test_a_result_that_another_key_has_signed_is_refused(world, tmp_path):
    built(world.there)
    world.give()
    _, other = pair(tmp_path, "other")
    with pytest.raises(InfrastructureError, match="no trusted result") as caught:
        world.take(public=other)
    assert "--cache-keys" in caught.value.hint
    assert not world.here.exists() or list(world.here.iterdir()) == []


def test_a_missing_result_is_an_error(world):
    with pytest.raises(InfrastructureError, match="no trusted result"):
        world.take()


@pytest.mark.slow
def test_a_damaged_or_missing_chunk_publishes_nothing(world):
    built(world.there)
    world.give()
    for path in world.blobs():
        if "blobs" in path.parts:
            whole = path.read_bytes()
            for data in (whole[:-1], whole[::-1], None):
                path.unlink(missing_ok=True)
                if data is not None:
                    path.write_bytes(data)
                with pytest.raises(InfrastructureError, match="damaged"):
                    world.take()
                assert list(world.here.iterdir()) == []
            path.write_bytes(whole)
    assert world.take().log is None


@pytest.mark.parametrize(
    "change",
    [
        {"recipe": "other"},
        *(
            pytest.param(change, marks=pytest.mark.slow)
            for change in (
                {"path": "../server.qcow2"},
                {"path": "SHA256SUMS"},
                {"path": "server.vdi"},
                {"sha256": "0" * 64},
            )
        ),
    ],
)
def test_a_result_that_does_not_fit_its_images_publishes_nothing(world, change):
    """A worker's key has signed it, and still no other file of the output directory changes."""
    made = built(world.there)
    images = [made.artifacts[0].model_copy(update=change)]
    changed = made.model_copy(
        update={"artifacts": tuple(images), "recipe": change.get("recipe", NAME)}
    )
    (world.there / f"{NAME}.result.json").write_text(changed.model_dump_json())
    world.give()
    with pytest.raises(InfrastructureError, match="damaged"):
        world.take()
    assert list(world.here.iterdir()) == []


@pytest.mark.slow
def test_a_result_with_a_time_of_a_wrong_clock_is_taken(world, monkeypatch):
    built(world.there)
    for now in (5.0, 4e10):
        monkeypatch.setattr(returned.time, "time", lambda now=now: now)
        world.give()
        assert world.take().log is None


@pytest.mark.slow
def test_much_evidence_is_left_out_and_the_rest_arrives(world, monkeypatch):
    built(world.there)
    (world.there / f"{NAME}.evidence/bios/screen.png").write_bytes(bytes(200_000))
    monkeypatch.setattr(returned, "PARCEL_LIMIT", 100_000)
    world.give()
    assert world.take().log is None
    assert (world.here / f"{NAME}.evidence/bios/console.log").exists()
    assert not (world.here / f"{NAME}.evidence/bios/screen.png").exists()
    assert json.loads((world.here / f"{NAME}.result.json").read_text())["recipe"] == NAME
