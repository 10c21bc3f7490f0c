"""The rules that make the content of /var on each machine."""

import os
import shutil
import stat
import subprocess

import pytest
from particle_agent.ostree import machine_files
from particle_agent.ostree.machine_files import (
    FACTORY,
    ONCE,
    OWN_RULES,
    SCRIPT,
    SEEN,
    TMPFILES,
    write_rules,
)

ODD = (
    "with blank", ' "quoted" ', "it's", "100%", "%m", r"back\slash", "\\", "#hash", "a:b", "-", "ä",
    "$HOME", "{a,b}", "*", "trailing ", "%%", r"\x41", "!",
)  # fmt: skip


def rules(target):
    """The rules of each boot, and those that the service applies once."""
    once = [line.partition("\t")[2] for line in target.read(ONCE).splitlines()]
    return target.read(OWN_RULES).splitlines() + once


def create(target):
    """Runs systemd-tmpfiles(8) and the service on the image, as at the boot of a machine."""
    argv = ["systemd-tmpfiles", "--create", f"--root={target.root}", target.path(OWN_RULES)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        return done
    text = target.read(SCRIPT).replace(
        "tmpfiles --create", f"tmpfiles --create --root={target.root}"
    )
    for path in (ONCE, SEEN):
        text = text.replace(f"={path}", f"={target.path(path)}")
    return subprocess.run(["sh", "-c", text], capture_output=True, text=True, check=False)


def shape(target, top="/var"):
    """Everything below a directory: the kind, the mode, and the content or the target of a link."""
    root = target.path(top)
    found = {}
    for place in root.rglob("*"):
        status = place.lstat()
        kind, mode = stat.S_IFMT(status.st_mode), stat.S_IMODE(status.st_mode)
        content = place.read_bytes() if kind == stat.S_IFREG else b""
        if kind == stat.S_IFLNK:
            content, mode = os.fsencode(os.readlink(place)), 0
        found[str(place.relative_to(root))] = (kind, mode, content)
    return found


NEEDS_TMPFILES = pytest.mark.skipif(
    shutil.which("systemd-tmpfiles") is None, reason="no systemd-tmpfiles"
)


@NEEDS_TMPFILES
def test_a_machine_gets_the_var_of_the_image(target):
    """systemd itself reads the rules, and makes the same names, links, modes and contents."""
    for number, name in enumerate(ODD):
        target.write(f"/var/lib/d{name}/f{name}", f"content {number}", mode=0o640)
        target.path(f"/var/lib/d{name}").chmod(0o750)
        target.symlink(f"/var/lib/l{name}", name)
    target.symlink("/var/lib/bytes", os.fsdecode(b"\xff\n\x01 end"))
    target.symlink("/var/lib/out", "../../../../../../etc/passwd")
    target.write("/var/lib/program", "#!/bin/sh\n", mode=0o4755)
    target.make_directory("/var/tmp", mode=0o1777)
    before = shape(target)
    write_rules(target)
    assert shape(target) == {}, "/var is no part of a commit"
    done = create(target)
    assert done.returncode == 0, done.stderr
    after = shape(target)
    assert after.pop("lib/dpkg")[2] == b"../../usr/share/dpkg/database"
    assert after.pop("lib/particle-os")
    assert after.pop("lib/particle-os/machine-files")
    assert after == before


@NEEDS_TMPFILES
def test_a_file_that_the_machine_has_removed_stays_away(target):
    """An update brings only new files, and changes no mode that the machine has set."""
    target.write("/var/lib/x/removed", "1")
    target.write("/var/lib/x/with blank", "2")
    target.symlink("/var/lib/x/link", "removed")
    write_rules(target)
    assert create(target).returncode == 0
    assert target.list("/var/lib/x") == ["link", "removed", "with blank"]
    for name in ("removed", "with blank", "link"):
        target.remove(f"/var/lib/x/{name}")
    target.path("/var/lib/x").chmod(0o700)
    assert create(target).returncode == 0
    assert target.list("/var/lib/x") == []
    assert target.mode("/var/lib/x") == 0o700
    rule = "C /var/lib/x/new :0644 :0 :0 - /usr/share/factory/var/lib/x/with\\x20blank"
    target.write(ONCE, target.read(ONCE) + f"/var/lib/x/new\t{rule}\n")
    assert create(target).returncode == 0
    assert target.list("/var/lib/x") == ["new"]


@NEEDS_TMPFILES
def test_an_image_without_files_in_var_is_no_failure(target):
    target.make_directory("/var")
    write_rules(target)
    done = create(target)
    assert (done.returncode, done.stderr) == (0, "")


def test_each_rule_is_a_line_of_its_own(target):
    for name in ODD:
        target.write(f"/var/{name}", "")
    target.symlink("/var/link", "x\nd /etc/injected 0777 0 0 -")
    write_rules(target)
    assert len(rules(target)) == 2 + len(ODD) + 1
    assert not any(line.startswith("d /etc") for line in rules(target))


def test_no_link_of_var_leads_out_of_the_image(target, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    for name, to in (("absolute", str(outside)), ("relative", f"../../../..{outside}")):
        target.symlink(f"/var/{name}", to)
    target.make_directory("/var/lib")
    write_rules(target)
    assert (outside / "kept").read_text() == "kept"
    assert f"L /var/absolute - - - - {outside}" in rules(target)
    assert not any("kept" in line for line in rules(target))


def test_the_factory_is_closed_as_the_directories_of_var_can_be(target):
    """A file that all may read, in a directory that only its owner may enter."""
    target.write("/var/roothome/.ssh/id_ed25519.pub", "key", mode=0o644)
    target.path("/var/roothome").chmod(0o700)
    target.write("/var/direct", "x")
    write_rules(target)
    assert target.mode(f"{FACTORY}/var") == 0o700
    assert target.read(f"{FACTORY}/var/roothome/.ssh/id_ed25519.pub") == "key"


def test_a_rule_of_a_package_is_not_written_again(target):
    for name in ("log", "cache", "spool", "one two", "own"):
        target.make_directory(f"/var/{name}")
    target.write(
        f"{TMPFILES}/var.conf",
        "# d /var/own\nd /var/log 0755 - - -\n\td\t/var/cache\t0755\nd!+ /var/spool/ 0755\n"
        'd "/var/one two"\nr /var/own\nd\n\n',
    )
    target.write(f"{TMPFILES}/unread", "d /var/own\n")
    target.make_directory(f"{TMPFILES}/directory.conf")
    target.symlink(f"{TMPFILES}/loop.conf", "nowhere.conf")
    write_rules(target)
    made = {line.split()[1] for line in rules(target)}
    assert made == {"/var/lib/dpkg", "/run/media", "/var/own", '"/var/one'}


def test_the_owner_and_the_mode_are_part_of_the_rule(target):
    target.write("/var/lib/x/file", "", mode=0o600)
    target.path("/var/lib/x").chmod(0o2775)
    status = target.path("/var/lib/x").stat()
    write_rules(target)
    owner = f":{status.st_uid} :{status.st_gid}"
    assert f"d /var/lib/x :2775 {owner} -" in rules(target)
    kept = f"{FACTORY}/var/lib/x/file"
    assert f"C /var/lib/x/file :0600 {owner} - {kept}" in rules(target)


def test_a_directory_that_systemd_does_not_trust_is_noted(target, monkeypatch):
    """systemd-tmpfiles: "Detected unsafe path transition"."""
    owners = {"ann": 1000, "own": 1000, "roots": 0, "bobs": 1001, "log": 0, "service": 100}
    for path in ("log/service", "home/ann/own", "home/ann/roots/deep", "home/ann/bobs"):
        target.make_directory(f"/var/{path}")
    target.write("/var/home/ann/file", "")
    target.symlink("/var/home/ann/link", "roots")
    monkeypatch.setattr(machine_files, "_owner", lambda place: owners.get(place.name, 0))
    write_rules(target)
    (note,) = target.report.notes
    assert note.startswith("/var/home/ann/bobs and 1 more directories will be empty")


def test_mounts_of_the_build_are_left_alone(target, monkeypatch):
    target.write("/var/cache/apt/archives/one.deb", "package")
    target.write("/var/lib/kept", "")
    mount = target.path("/var/cache/apt/archives")
    monkeypatch.setattr(target, "holds", lambda place: mount not in (place, *place.parents))
    write_rules(target)
    assert target.read("/var/cache/apt/archives/one.deb") == "package"
    assert not any("one.deb" in line for line in rules(target))
    assert target.list("/var") == ["cache"]


def test_the_directories_of_the_package_database_and_of_media_are_there(target):
    target.make_directory("/var")
    write_rules(target)
    assert rules(target) == [
        "L /var/lib/dpkg - - - - ../../usr/share/dpkg/database",
        "d /run/media 0755 root root -",
    ]
