"""The checker of the fault campaign finds what is planted, and nothing in a set that is whole."""

import json
import os
import random
import subprocess

import pytest

from ..campaign import controls, processes
from ..campaign.campaign import Outcome, draw
from ..campaign.checker import digest, losses, strangers, which_set
from ..campaign.record import Record
from ..campaign.table import FAULTS
from ..campaign.trial import Course, Reference, copy, make_place, stamps
from ..vm.conftest import Account


def publish(output, word):
    """Writes a small set of files such as a build publishes."""
    output.mkdir()
    # Large enough for the planted bit.
    (output / "image.raw").write_bytes(f"{word} ".encode() * (1 << 12))
    convert = ["qemu-img", "convert", "-O", "qcow2", "-f", "raw"]
    subprocess.run([*convert, output / "image.raw", output / "image.qcow2"], check=True)
    (output / "image.log").write_text(word)
    sums = {name: digest(output / name) for name in ("image.raw", "image.qcow2")}
    images = [{"path": name, "sha256": sha256} for name, sha256 in sums.items()]
    (output / "image.result.json").write_text(json.dumps({"artifacts": images}))
    (output / "SHA256SUMS").write_text("".join(f"{v}  {k}\n" for k, v in sums.items()))
    return output


@pytest.fixture
def reference(tmp_path):
    for name in ("empty", "early", "cache"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
    course = Course([(0.5, "phase-started a"), (2.0, "phase-started b")], 2.5)
    old = publish(tmp_path / "old", "old")
    return Reference(
        old=old,
        empty=tmp_path / "empty",
        early=tmp_path / "early",
        new=publish(tmp_path / "new", "new"),
        cache=tmp_path / "cache",
        recipe=tmp_path / "new.yml",
        cold=course,
        warm=course,
        written=stamps(old),
    )


@pytest.fixture
def account(tmp_path):
    return Account(os.getuid(), os.getgid(), tmp_path, tmp_path / "venv")


@pytest.fixture
def adopting():
    with processes.adopting():
        yield


def test_every_planted_loss_is_found(account, reference, tmp_path, adopting):
    assert controls.undetected(account, reference, tmp_path / "control") == []


def test_a_checker_that_finds_nothing_is_noticed(
    account, reference, tmp_path, adopting, monkeypatch
):
    monkeypatch.setattr(controls, "losses_of_next", lambda *arguments: iter(()))
    monkeypatch.setattr(controls, "processes_left", lambda *arguments, **options: [])
    monkeypatch.setattr(controls, "overwritten", lambda reference: [])
    missed = controls.undetected(account, reference, tmp_path / "control")
    assert missed == ["a process", "a write", *controls.FILES]


def test_a_killed_publication_may_wait_for_the_next_build(account, reference, tmp_path):
    place = make_place(account, tmp_path / "trial")
    copy(reference.old, place.output)
    (place.output / "image.raw").unlink()
    (place.output / "SHA256SUMS").write_text("# being replaced\n")
    (place.output / ".particle-os-publication").mkdir()
    known = [pid for pid, _ in processes.descendants(os.getpid())]
    assert list(losses(place, known, reference, -9)) == []
    assert list(losses(place, known, reference, 5)) == []
    assert len(list(losses(place, known, reference, 0))) == 2


def test_a_failure_after_the_publication_is_a_loss(account, reference, tmp_path):
    place = make_place(account, tmp_path / "trial")
    copy(reference.new, place.output)
    known = [pid for pid, _ in processes.descendants(os.getpid())]
    assert list(losses(place, known, reference, 0)) == []
    assert len(list(losses(place, known, reference, 5))) == 1
    assert list(losses(place, known, reference, 143)) == [], "a signal may come late"


def test_the_sets_are_told_apart(account, reference, tmp_path):
    place = make_place(account, tmp_path / "trial")
    assert which_set(place.output, reference) == "none"
    copy(reference.old, place.output)
    assert which_set(place.output, reference) == "old"
    (place.output / "image.raw").write_bytes((reference.new / "image.raw").read_bytes())
    assert which_set(place.output, reference) is None
    copy(reference.new, place.output)
    assert which_set(place.output, reference) == "new"


def test_a_seed_draws_the_same_moment_again(reference):
    course = reference.warm
    moments = [course.draw(random.Random(f"1/{number}")) for number in range(100)]
    assert moments == [course.draw(random.Random(f"1/{number}")) for number in range(100)]
    assert {moment.label for moment in moments} == {"phase-started a", "phase-started b"}
    assert all(0 <= moment.seconds <= 1.5 for moment in moments)


def test_a_seed_draws_each_fault_once_before_it_repeats():
    drawn = [draw("1", number) for number in range(1, 2 * len(FAULTS) + 1)]
    possible = {fault.name for fault in FAULTS if fault.can_happen()}
    assert {fault.name for fault in drawn[: len(possible)]} == possible
    assert drawn[0].name == drawn[len(possible)].name


def test_a_campaign_goes_on_where_the_last_run_stopped(tmp_path):
    record = Record(tmp_path / "faults/1.jsonl")
    assert record.to_do(None, 3) == [1, 2, 3]
    for number in (1, 2, 4):
        losses = ["a file"] if number == 2 else []
        record.add(Outcome("1", number, "fault", "moment", False, 0, 0, losses, 1.5))
    assert record.to_do(None, 3) == [3, 5, 6]
    assert record.to_do(2, 2) == [2, 3], "a fault can be repeated"
    assert record.summary().startswith("3 faults, 1 with losses (2)")
    record.add(Outcome("1", 2, "fault", "moment", False, 0, 0, [], 1.5))
    assert record.summary().startswith("3 faults, 0 with losses;"), "the last outcome counts"


def test_entries_that_only_some_builds_make_are_no_strangers(account, reference, tmp_path):
    place = make_place(account, tmp_path / "trial")
    copy(reference.cache, place.cache)
    failed = place.cache / f"checkpoints/{'a' * 40}-failed"
    failed.mkdir()
    (failed / "meta.json").touch()
    (place.cache / "warm").mkdir()
    (place.cache / f"warm/{'b' * 32}.state").touch()
    (place.cache / "warm/half").touch()
    assert strangers(place, reference) == ["cache: warm is left", "cache: warm/half is left"]
