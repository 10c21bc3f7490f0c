"""The checkers of file systems, on intact and damaged ones. The test makes them without a mount."""

import shutil
import subprocess

import pytest
from particle_agent.disk import reading
from particle_agent.verification import file_systems

from ...waiting import HANG_SECONDS

pytestmark = pytest.mark.skipif(
    not all(shutil.which(name, path="/sbin:/usr/sbin") for name in ("e2fsck", "mkfs.vfat")),
    reason="needs the packages e2fsprogs and dosfstools",
)
MIB = 1 << 20


def run(*argv):
    subprocess.run(argv, check=True, capture_output=True, timeout=HANG_SECONDS)


def judged(path, kind):
    found = file_systems.check(path, kind)
    return [code for code, _ in found], " ".join(message for _, message in found)


@pytest.fixture
def ext4(tmp_path):
    tree = tmp_path / "tree"
    (tree / "directory").mkdir(parents=True)
    (tree / "directory/file").write_text("content\n" * 1000)
    path = tmp_path / "ext4"
    run("/sbin/mke2fs", "-q", "-t", "ext4", "-d", tree, path, "16M")
    return path


@pytest.fixture
def vfat(tmp_path):
    path = tmp_path / "vfat"
    with path.open("wb") as file:
        file.truncate(40 * MIB)
    run("/sbin/mkfs.vfat", "-F", "32", path)
    return path


def test_whole_file_systems(ext4, vfat):
    assert judged(ext4, "ext4") == ([], "")
    assert judged(vfat, "vfat") == ([], "")


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("clri /directory", "directory"),
        ("freeb 200 500", "Block bitmap"),
        ("set_inode_field /directory/file links_count 7", "ref count"),
        ("set_super_value blocks_count 90000", "superblock"),
    ],
)
def test_a_damaged_ext4(ext4, command, word):
    run("/sbin/debugfs", "-w", "-R", command, ext4)
    before = ext4.read_bytes()
    codes, text = judged(ext4, "ext4")
    assert codes == ["file-system-broken"]
    assert word in text
    assert ext4.read_bytes() == before, "nothing is repaired"


def test_an_ext4_without_its_superblock(ext4):
    with ext4.open("r+b") as disk:
        disk.seek(1024)
        disk.write(bytes(1024))
    assert judged(ext4, "ext4")[0] in (
        ["file-system-broken"],
        ["file-system-not-checked"],
    )


def test_an_ext4_that_was_in_use(ext4):
    run("/sbin/debugfs", "-w", "-R", "feature needs_recovery", ext4)
    assert judged(ext4, "ext4")[0] == ["file-system-not-unmounted"]


def test_a_damaged_vfat(vfat):
    with vfat.open("r+b") as disk:
        # Damage the first file allocation table, after 32 reserved sectors, but not the second.
        disk.seek(32 * 512 + 64)
        disk.write(b"\x99" * 64)
    assert judged(vfat, "vfat")[0] == ["file-system-broken"]


def test_what_cannot_be_checked_is_reported(ext4, monkeypatch):
    nothing = {"ext4": (("no-such-checker",), frozenset())}
    monkeypatch.setattr(file_systems, "CHECKERS", nothing)
    codes, text = judged(ext4, "ext4")
    assert codes == ["file-system-not-checked"]
    assert "no-such-checker" in text
    assert judged(ext4, "squashfs") == ([], "")


def test_a_checker_that_takes_too_long_is_ended(ext4, monkeypatch):
    monkeypatch.setattr(file_systems, "CHECKERS", {"ext4": (("sleep", "100"), frozenset({1}))})
    monkeypatch.setattr(file_systems, "CHECK_SECONDS", 0.2)
    # The argument "100" is no device but a second number for sleep(1), so skip dumpe2fs(8).
    monkeypatch.setattr(file_systems, "DIRTY_EXT", file_systems.DIRTY_XFS)
    codes, text = judged("100", "ext4")
    assert codes == ["file-system-not-checked"]
    assert "longer" in text


@pytest.mark.parametrize(
    ("kind", "status", "said", "code"),
    [
        ("xfs", 1, "agf_freeblks 12, counted 11 in ag 0", "file-system-broken"),
        ("xfs", 2, "ERROR: The filesystem has valuable metadata changes in a log which needs to",
         "file-system-not-unmounted"),
        ("btrfs", 1, "ERROR: errors found in fs roots", "file-system-broken"),
        ("btrfs", 0, "no error found", None),
    ],
)  # fmt: skip
def test_the_words_of_other_checkers(tmp_path, monkeypatch, kind, status, said, code):
    """Imitates the exit statuses and outputs of xfs_repair(8) and btrfs-check(8)."""
    program = tmp_path / "checker"
    program.write_text(f"#!/bin/sh\necho '{said}'\nexit {status}\n")
    program.chmod(0o755)
    statuses = file_systems.CHECKERS[kind][1]
    monkeypatch.setattr(file_systems, "CHECKERS", {kind: ((str(program),), statuses)})
    codes, text = judged(tmp_path, kind)
    assert codes == ([code] if code else [])
    if code == "file-system-broken":
        assert said in text


def test_checkers_speak_one_language_and_say_why_they_fail(monkeypatch):
    """Their words are compared with known ones, and errors are on standard error."""
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("LANGUAGE", "de")
    program = ["sh", "-c", 'echo "$LC_ALL $PATH" >&2; export -p']
    status, said = reading.output(program, seconds=30, limit=1000)
    assert status == 0
    assert said.startswith("C.UTF-8 /usr/sbin:/usr/bin:/sbin:/bin\n")
    assert "LANGUAGE" not in said


def test_a_flood_is_cut_and_the_status_is_that_of_the_end():
    flood = ["sh", "-c", "yes | head -c 3000000; exit 4"]
    status, said = reading.output(flood, seconds=30, limit=1000)
    assert (status, len(said)) == (4, 1000)
