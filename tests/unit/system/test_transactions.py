"""A publication is a transaction: after any fault the set is the old or the new one."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from particle_os.errors import NotPublished
from particle_os.system import publication, workspace
from particle_os.system.publication import (
    MANIFEST,
    SUMS,
    TRANSACTION,
    Change,
    finish,
    publish,
)

from ... import faults
from .published import STAGING, content, put, sha256, stage, wrong_sums

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


def test_a_running_publication_is_left_alone(stand):
    stand.interrupted()
    with workspace.locked_directory(stand.out, None):
        assert not finish(stand.out)
    assert finish(stand.out)
