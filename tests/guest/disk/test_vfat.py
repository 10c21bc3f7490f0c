"""The EFI system partition, made by the real programs."""

import os
import shutil
import subprocess

import pytest
from particle_agent.disk import vfat

from ...waiting import HANG_SECONDS

PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
needs_programs = pytest.mark.skipif(
    not all(shutil.which(name, path=PATH) for name in ("mkfs.vfat", "mcopy", "blkid")),
    reason="needs the packages dosfstools and mtools",
)


@pytest.fixture
def tree(tmp_path):
    """A tree whose names do not come in order from the file system."""
    for name in ("EFI/zoo/b", "EFI/zoo/a", "EFI/BOOT/BOOTX64.EFI", "loader/c", "top"):
        place = tmp_path / "tree" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(name)
        os.utime(place, (1_000_000_000, 1_000_000_000))
    (tmp_path / "tree/empty").mkdir()
    return tmp_path / "tree"


def run(*argv):
    done = subprocess.run(
        argv, env={"PATH": PATH, "LC_ALL": "C", "TZ": "UTC"}, capture_output=True, text=True,
        timeout=HANG_SECONDS, stdin=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    return done.stdout


@needs_programs
def test_the_partition_has_the_files_and_is_named(target, tree, tmp_path):
    partition = tmp_path / "partition"
    with partition.open("wb") as file:
        file.truncate(40 << 20)
    for program in ("mkfs.vfat", "mmd", "mcopy"):
        target.when(program, lambda command: run(*command.argv))
    vfat.make(target, partition, tree, label="ESP", serial="0123abcd")
    paths = run("mdir", "-i", partition, "-b", "-/", "::").split()
    assert sorted(path for path in paths if not path.endswith("/")) == [
        "::/EFI/BOOT/BOOTX64.EFI", "::/EFI/zoo/a", "::/EFI/zoo/b", "::/loader/c", "::/top",
    ]  # fmt: skip
    assert "::/empty/" in paths
    assert run("mtype", "-i", partition, "::/EFI/zoo/b") == "EFI/zoo/b"
    assert "2001-09-09" in run("mdir", "-i", partition, "::/top")
    facts = run("blkid", "-p", "-o", "export", partition).splitlines()
    assert {"TYPE=vfat", "VERSION=FAT32", "LABEL=ESP"} <= set(facts)
    assert f"UUID={vfat.uuid_of('0123abcd')}" in facts


def test_the_files_come_in_one_order(target, tree, tmp_path, monkeypatch):
    walk = os.walk

    def reversed_walk(top):
        for directory, directories, files in walk(top):
            directories.sort(reverse=True)
            yield directory, directories, sorted(files, reverse=True)

    monkeypatch.setattr(vfat.os, "walk", reversed_walk)
    vfat.make(target, tmp_path / "partition", tree, label="ESP", serial="0123abcd")
    argv = [command.argv for command in target.commands]
    made = [words[-1] for words in argv if words[0] == "mmd"]
    assert made == ["::/EFI", "::/EFI/BOOT", "::/EFI/zoo", "::/empty", "::/loader"]
    (zoo,) = [words for words in argv if words[-1] == "::/EFI/zoo/"]
    assert [word.rpartition("/")[2] for word in zoo[-3:-1]] == ["a", "b"]


@pytest.mark.timeout(60)
def test_nothing_but_regular_files_is_copied(target, tree, tmp_path):
    (tmp_path / "secret").write_text("of the VM")
    (tree / "EFI/link").symlink_to(tmp_path / "secret")
    (tree / "EFI/directory").symlink_to(tmp_path)
    os.mkfifo(tree / "EFI/fifo")
    vfat.make(target, tmp_path / "partition", tree, label="ESP", serial="0123abcd")
    words = [word.rpartition("/")[2] for command in target.commands for word in command.argv]
    assert not {"link", "directory", "fifo", "secret"} & set(words)
    assert len(target.report.notes) == 2
    assert target.report.notes[0].startswith("fifo in the EFI system partition is left out")
