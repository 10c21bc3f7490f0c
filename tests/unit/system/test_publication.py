import errno
import fcntl
import hashlib
import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest
from particle_os.errors import InfrastructureError, NotPublished
from particle_os.system import publication, workspace
from particle_os.system.publication import (
    MANIFEST,
    SUMS,
    TRANSACTION,
    Change,
    finish,
    obstacle,
    publish,
)

from ... import faults

STAGING = ".staging"


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def stage(directory, texts, staging=STAGING):
    """Makes a staging directory with files of these texts."""
    place = directory / staging
    for name, text in texts.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    return place


def put(directory, texts, staging=STAGING, **change):
    """Publishes files with these texts; the names with a '/' are in folders."""
    place = stage(directory, texts, staging)
    folders = sorted({name.partition("/")[0] for name in texts if "/" in name})
    files = [name for name in texts if "/" not in name]
    sums = {name: sha256(texts[name]) for name in files if not name.endswith(".log")}
    publish(place, directory, Change(files, folders, sums=sums, **change))


def content(directory):
    """The text of each file that is no part of a transaction or a staging directory."""
    paths = [path for path in directory.rglob("*") if path.is_file()]
    names = {path: str(path.relative_to(directory)) for path in paths}
    return {name: path.read_text() for path, name in names.items() if name[0] != "."}


def wrong_sums(directory):
    """The names whose content differs from their line in SHA256SUMS."""
    if not (directory / SUMS).exists():
        return []
    lines = [line.split("  ") for line in (directory / SUMS).read_text().splitlines()]
    pairs = [line for line in lines if not line[0].startswith("#")]
    return [name for digest, name in pairs if sha256((directory / name).read_text()) != digest]


def check_sums(directory):
    argv = ["sha256sum", "--check", "--strict", "--quiet", SUMS]
    subprocess.run(argv, cwd=directory, check=True)


def test_published_files_can_be_checked_and_nothing_else_is_left(tmp_path):
    stage(tmp_path, {"scratch": "no part of the publication"})
    put(tmp_path, {"a.raw": "raw", "a.qcow2": "qcow2"})
    check_sums(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [SUMS, "a.qcow2", "a.raw"]
    assert (tmp_path / "a.raw").read_text() == "raw"


def test_sums_of_other_images_stay_and_those_of_missing_images_go(tmp_path):
    put(tmp_path, {"a.raw": "old", "gone.raw": "x"})
    put(tmp_path, {"b.raw": "b"})
    (tmp_path / "gone.raw").unlink()
    put(tmp_path, {"a.raw": "new"})
    check_sums(tmp_path)
    lines = (tmp_path / SUMS).read_text().splitlines()
    assert [line.split()[1] for line in lines] == ["a.raw", "b.raw"]


def test_a_line_of_a_binary_file_stays(tmp_path):
    (tmp_path / "other.iso").write_text("other")
    digest = hashlib.sha256(b"other").hexdigest()
    (tmp_path / SUMS).write_text(f"{digest} *other.iso\n")
    put(tmp_path, {"a.raw": "new"})
    check_sums(tmp_path)
    assert f"{digest}  other.iso\n" in (tmp_path / SUMS).read_text()


def test_without_sums_the_file_of_sums_is_not_touched(tmp_path):
    (tmp_path / SUMS).mkdir()
    publish(stage(tmp_path, {"a.tar": "x"}), tmp_path, Change(["a.tar"]))
    assert content(tmp_path) == {"a.tar": "x"}


def test_a_missing_file_lets_nothing_be_published(tmp_path):
    put(tmp_path, {"a.raw": "old"})
    before = content(tmp_path)
    place = stage(tmp_path, {"a.raw": "new"})
    with pytest.raises(NotPublished, match="missing"):
        publish(place, tmp_path, Change(["a.raw", "missing"], sums={"a.raw": "0"}))
    assert content(tmp_path) == before
    assert (place / "a.raw").read_text() == "new"


@pytest.mark.parametrize("text", ["new", None])
def test_a_folder_is_replaced_or_removed_as_a_whole(tmp_path, text):
    put(tmp_path, {"a.raw": "1", "a.evidence/bios/old.log": "old"})
    if text:
        put(tmp_path, {"a.raw": "2", "a.evidence/uefi/new.log": text})
    else:
        put(tmp_path, {"a.raw": "2"}, removed=["a.evidence"])
    found = {name for name in content(tmp_path) if name.startswith("a.evidence")}
    assert found == ({"a.evidence/uefi/new.log"} if text else set())
    assert (tmp_path / "a.evidence").exists() == bool(text)


def test_an_outdated_image_goes_only_if_it_was_published(tmp_path):
    put(tmp_path, {"a.raw": "old", "a.qcow2": "old"})
    (tmp_path / "a.vmdk").write_text("made by the user")
    put(tmp_path, {"a.qcow2": "new"}, outdated=["a.raw", "a.vmdk"])
    assert content(tmp_path).keys() == {SUMS, "a.qcow2", "a.vmdk"}
    check_sums(tmp_path)


@pytest.mark.slow
def test_publishers_in_one_directory_lose_no_line(tmp_path):
    def many(letter):
        for number in range(10):
            put(tmp_path, {f"{letter}{number}.raw": letter}, staging=f".{letter}")

    threads = [threading.Thread(target=many, args=(letter,)) for letter in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check_sums(tmp_path)
    assert len((tmp_path / SUMS).read_text().splitlines()) == 30


@pytest.mark.slow
def test_a_reader_with_a_shared_lock_never_sees_a_wrong_sum(tmp_path):
    put(tmp_path, {"a.raw": "0"})
    look, seen = queue.Queue(), []

    def read():
        while look.get():
            descriptor = os.open(tmp_path, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH)
                seen.append(wrong_sums(tmp_path))
            finally:
                os.close(descriptor)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(20):
        look.put(True)
        put(tmp_path, {"a.raw": str(number)})
    look.put(False)
    reader.join()
    assert seen == [[]] * 20


OLD = {"a.raw": "old raw", "a.qcow2": "old qcow2", "a.log": "old", "a.evidence/bios/log": "old"}
NEWER = {"a.qcow2": "new qcow2", "a.raw.zst": "new", "a.log": "new", "a.evidence/uefi/log": "new"}
CHANGE = {"removed": ["a.failed"], "outdated": ["a.raw", "a.vmdk"]}


class Stand:
    """A directory with a published set, on its way to the next set."""

    def __init__(self, top):
        self.top, self.out = top, top / "out"
        put(top / "old", OLD | {"other.raw": "another image"})
        stage(top / "old", {"an earlier failure": "x"}, staging="a.failed")
        self.old = content(top / "old")
        shutil.copytree(top / "old", self.out)
        stage(self.out, NEWER)
        self.publish()
        self.new = content(self.out)

    def reset(self):
        shutil.rmtree(self.out)
        shutil.copytree(self.top / "old", self.out)
        stage(self.out, NEWER)

    def publish(self):
        publish(self.out / STAGING, self.out, change())

    def interrupted(self):
        """Resets, and publishes as far as the point from which the new set wins."""
        self.reset()
        publication._prepare(self.out / STAGING, self.out, change())
        (self.out / STAGING).rename(self.out / TRANSACTION)

    def check(self, outcome):
        """No file is torn, and no line of SHA256SUMS is wrong, whatever happened."""
        for name, text in content(self.out).items():
            possible = {self.old.get(name), self.new.get(name)}
            assert name == SUMS or text in possible, f"{name} is torn: {outcome}"
        assert wrong_sums(self.out) == [], outcome

    def check_next_start(self, outcome):
        """The next start finishes or rolls back; nothing of the new set is lost before."""
        finish(self.out)
        found = content(self.out)
        assert found in (self.old, self.new), outcome
        if found == self.old:
            assert outcome.end != "returned"
            staged = self.out / STAGING
            assert all((staged / name).read_text() == text for name, text in NEWER.items())
        shutil.rmtree(self.out / STAGING, ignore_errors=True)
        assert all(name in self.old | self.new or name[0] == "a" for name in os.listdir(self.out))
        stage(self.out, {})
        put(self.out, {"a.raw": "the next"})
        assert wrong_sums(self.out) == []


def change():
    files = [name for name in NEWER if "/" not in name]
    sums = {name: sha256(NEWER[name]) for name in files if name != "a.log"}
    return Change(files, ["a.evidence"], sums=sums, **CHANGE)


@pytest.fixture(scope="module")
def stand():
    # In memory, if possible: the tests sync thousands of files.
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as top:
        Path(top, "old").mkdir()
        yield Stand(Path(top))


def campaign(stand, fault, prepare, action):
    """Lets each system call of an action fail, or be the last, and checks what remains."""
    outcomes = []

    def before():
        prepare()
        return action

    for outcome in faults.each(before, fault, (NotPublished,)):
        stand.check(outcome)
        stand.check_next_start(outcome)
        outcomes.append(outcome)
    return outcomes


@pytest.mark.slow
@pytest.mark.parametrize("fault", faults.FAULTS)
def test_after_a_fault_at_any_call_the_set_is_the_old_or_the_new_one(stand, fault):
    outcomes = campaign(stand, fault, stand.reset, stand.publish)
    assert outcomes[-1].end == "returned"
    calls = {outcome.call for outcome in outcomes}
    assert calls > {"rename", "openat", "write", "unlink"}


@pytest.mark.slow
@pytest.mark.parametrize("fault", faults.FAULTS)
def test_a_fault_at_any_call_of_the_recovery_is_recovered_from(stand, fault):
    outcomes = campaign(stand, fault, stand.interrupted, lambda: finish(stand.out))
    assert outcomes[-1].end == "returned"


def publish_without_transaction(staging, directory, change):
    """The simple way, which is wrong: rename the files, then replace SHA256SUMS."""
    publication._prepare(staging, directory, change)
    for name in (*change.files, SUMS):
        (staging / name).replace(directory / name)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["kill", "EIO"])
def test_a_publication_without_a_transaction_is_noticed(stand, fault):
    def action():
        publish_without_transaction(stand.out / STAGING, stand.out, change())

    with pytest.raises(AssertionError):
        for outcome in faults.each(lambda: stand.reset() or action, fault, (OSError,)):
            stand.check(outcome)


def test_a_set_that_is_half_published_is_noticed(stand):
    stand.reset()
    (stand.out / STAGING / "a.log").rename(stand.out / "a.log")
    outcome = faults.Outcome("rename", "killed")
    stand.check(outcome)
    with pytest.raises(AssertionError):
        stand.check_next_start(outcome)


def test_a_reader_is_told_which_files_are_being_replaced(stand, monkeypatch):
    seen = []
    move = publication._move
    monkeypatch.setattr(
        publication,
        "_move",
        lambda path, to: (seen.append((stand.out / SUMS).read_text()), move(path, to)),
    )
    stand.reset()
    stand.publish()
    note = (
        "# particle-os is replacing a.qcow2, a.raw, a.raw.zst. Check again when this line is gone."
    )
    between = [text.splitlines() for text in seen[1:]]
    assert all(lines == [note, f"{sha256('another image')}  other.raw"] for lines in between)
    assert len(between) > 4


# Files that are in the way

OBSTACLES = {
    "a directory": os.mkdir,
    "a FIFO": os.mkfifo,
    "a symbolic link": lambda path: path.symlink_to("/dev/zero"),
    "a file": lambda path: path.write_text("precious"),
}


@pytest.mark.parametrize("kind", ["a directory", "a FIFO", "a symbolic link"])
@pytest.mark.parametrize("name", ["a.raw", "a.log", SUMS])
def test_a_file_that_is_no_regular_file_is_not_replaced(tmp_path, name, kind):
    OBSTACLES[kind](tmp_path / name)
    made = Change(["a.raw", "a.log"], ["a.evidence"], ["a.failed"], sums={"a.raw": sha256("x")})
    assert f"{tmp_path / name} is {kind}" in obstacle(tmp_path, made)
    place = stage(tmp_path, {"a.raw": "x", "a.log": "x"})
    with pytest.raises(NotPublished, match=f"is {kind}, and"):
        publish(place, tmp_path, made)
    assert os.listdir(tmp_path) == [name, STAGING] or os.listdir(tmp_path) == [STAGING, name]
    assert (place / "a.raw").read_text() == "x"


@pytest.mark.parametrize("kind", ["a file", "a FIFO", "a symbolic link"])
@pytest.mark.parametrize("name", ["a.evidence", "a.failed"])
def test_a_folder_replaces_only_a_directory(tmp_path, name, kind):
    OBSTACLES[kind](tmp_path / name)
    made = Change(["a.raw"], ["a.evidence"], ["a.failed"])
    assert f"{tmp_path / name} is {kind}" in obstacle(tmp_path, made)


def test_a_file_that_gets_in_the_way_late_loses_nothing(stand):
    stand.interrupted()
    (stand.out / "a.qcow2").unlink()
    (stand.out / "a.qcow2").mkdir()
    with pytest.raises(NotPublished, match=r"directory: .*a\.qcow2") as failure:
        finish(stand.out)
    assert f"{stand.out / TRANSACTION}; the next build" in failure.value.hint
    (stand.out / "a.qcow2").rmdir()
    assert finish(stand.out)
    assert content(stand.out) == stand.new


def test_endless_sums_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(publication, "TEXT_LIMIT", 100)
    (tmp_path / SUMS).write_text("x" * 101)
    with pytest.raises(NotPublished, match="larger than 100 bytes"):
        put(tmp_path, {"a.raw": "x"})


# Transactions and locks of others


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"files": ["../../x"], "folders": [], "removed": []}', '{"files": [1]}'],
)
def test_a_manifest_that_names_other_places_is_refused(tmp_path, text):
    place = stage(tmp_path, {MANIFEST: text}, staging=TRANSACTION)
    with pytest.raises(NotPublished, match="damaged"):
        finish(tmp_path)
    assert (place / MANIFEST).exists()


def test_a_transaction_of_another_user_is_refused(tmp_path, monkeypatch):
    manifest = json.dumps({"files": ["a.raw"], "folders": [], "removed": []})
    stage(tmp_path, {MANIFEST: manifest, "a.raw": "x"}, staging=TRANSACTION)
    owner = os.geteuid()
    monkeypatch.setattr(publication.os, "geteuid", lambda: owner + 1)
    with pytest.raises(NotPublished, match="another user"):
        finish(tmp_path)
    assert content(tmp_path) == {}


def test_a_transaction_that_is_a_link_is_refused(tmp_path):
    target = stage(tmp_path, {"precious": "x"})
    (tmp_path / TRANSACTION).symlink_to(target)
    with pytest.raises(NotPublished, match="another user or program"):
        finish(tmp_path)
    assert (target / "precious").exists()


@pytest.mark.parametrize(
    ("plant", "brief", "hint"),
    [
        (
            lambda place: place.write_text("mine"),
            "belongs to another user or program",
            "Remove it, or name another directory with --output.",
        ),
        (
            lambda place: place.symlink_to("."),
            "belongs to another user or program",
            "Remove it, or name another directory with --output.",
        ),
        (
            lambda place: stage(place.parent, {MANIFEST: "{}"}, place.name),
            f"{MANIFEST} is damaged",
            "Move {} away.",
        ),
    ],
    ids=["a file", "a link", "a damaged manifest"],
)
def test_the_advice_about_a_planted_transaction_does_not_rely_on_it(tmp_path, plant, brief, hint):
    plant(tmp_path / TRANSACTION)
    for attempt in (finish, lambda directory: put(directory, {"a.raw": "new"})):
        with pytest.raises(NotPublished, match=brief) as raised:
            attempt(tmp_path)
        assert raised.value.hint == hint.format(tmp_path / TRANSACTION)
    assert (tmp_path / STAGING / "a.raw").read_text() == "new"


@pytest.mark.parametrize("read", [publication._sum_lines, publication._read_manifest])
def test_nothing_is_read_through_a_link(tmp_path, read):
    (tmp_path / "elsewhere").write_text('{"files": [], "folders": [], "removed": []}')
    for name in (SUMS, MANIFEST):
        (tmp_path / name).symlink_to("elsewhere")
    with pytest.raises(OSError, match="link"):
        read(tmp_path)


def test_a_file_is_complete_when_it_is_synced(tmp_path, monkeypatch):
    sizes, plain = [], os.fsync

    def fsync(descriptor):
        sizes.append(os.fstat(descriptor).st_size)
        plain(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    publication._write(tmp_path / "a", "text")
    publication.replace(tmp_path / "b", b"text")
    assert sizes == [4, 4]


def test_a_running_publication_is_left_alone(stand):
    stand.interrupted()
    with workspace.locked_directory(stand.out, None):
        assert not finish(stand.out)
    assert finish(stand.out)


def test_a_publisher_waits_for_a_lock_with_a_deadline(tmp_path, monkeypatch, clock):
    monkeypatch.setattr(workspace, "time", clock)
    put(tmp_path, {"a.raw": "old"})
    with workspace.locked_directory(tmp_path, None):
        with pytest.raises(NotPublished, match="another process holds"):
            put(tmp_path, {"a.raw": "new"})
    assert (tmp_path / STAGING / "a.raw").read_text() == "new"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EBADF, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named_with_advice(tmp_path, monkeypatch, number):
    def refuse(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(workspace.fcntl, "flock", refuse)
    with pytest.raises(InfrastructureError) as failure:
        finish(tmp_path)
    assert str(tmp_path) in failure.value.brief
    assert "local file system" in failure.value.hint
