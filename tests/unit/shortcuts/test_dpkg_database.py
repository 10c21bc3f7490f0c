"""Compares our dpkg database with the one that the installed dpkg makes from equal packages."""

import os
import stat
import subprocess
import tarfile

import pytest
from particle_agent.contract.packages import ARCHIVES, DATABASE
from particle_agent.stages.software.bootstrap import extract
from particle_os.apt.package_disk import write_disk
from particle_os.shortcuts import dpkg_database

from ...waiting import HANG_SECONDS, plenty

pytestmark = pytest.mark.slow

ARCHITECTURE = "amd64"
CONTROL = """\
Package: {name}
Version: 1:2.0-1
Architecture: amd64
Maintainer: x <x@example.org>
Description: a test
 Its long form, with ä.
"""
# An ordinary user needs these to run dpkg on a directory.
AS_USER = ["not-root", "script-chrootless", "architecture"]


class Archive:
    """A directory of packages made with dpkg-deb."""

    def __init__(self, directory):
        self.directory = directory
        self.debs = []

    def add(self, name, files=(), *, fields="", scripts=(), **control):
        """Adds a package; `files` are (path, content, mode), where None makes a directory."""
        tree = self.directory / f"{name}.tree"
        debian = tree / "DEBIAN"
        debian.mkdir(parents=True)
        debian.joinpath("control").write_text(CONTROL.format(name=name) + fields)
        for kind in scripts:
            debian.joinpath(kind).write_text("#!/bin/sh\nexit 0\n")
            debian.joinpath(kind).chmod(0o755)
        for kind, text in control.items():
            debian.joinpath(kind).write_text(text)
        for path, content, mode in files:
            place = tree / path
            place.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                place.mkdir()
            elif content.startswith("-> "):
                place.symlink_to(content[3:])
                continue
            else:
                place.write_text(content)
            place.chmod(mode)
        deb = self.directory / f"{name}_1%3a2.0-1_amd64.deb"
        run("dpkg-deb", "--root-owner-group", "-Zxz", "--build", tree, deb)
        self.debs.append(deb)


def run(*argv):
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    done = subprocess.run(
        argv,
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        env={"PATH": path, "LC_ALL": "C.UTF-8"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def dpkg(root, *arguments):
    forced = [f"--force-{thing}" for thing in AS_USER]
    return run("dpkg", *forced, f"--root={root}", f"--log={root}.log", *arguments)


@pytest.fixture
def archive(tmp_path):
    (tmp_path / "debs").mkdir()
    return Archive(tmp_path / "debs")


@pytest.fixture
def disk(archive, tmp_path):
    """Makes the tree of the disk on which the VM gets the packages."""

    def make():
        place = tmp_path / "packages.squashfs"
        place.touch()
        work = tmp_path / "work"
        work.mkdir()
        lines = []
        deadline = plenty()
        write_disk(archive.debs, place, work, deadline, log=lines.append, database=True)
        assert lines == []
        return work / "disk"

    return make


@pytest.fixture
def theirs(tmp_path, archive):
    """Unpacks the packages with dpkg."""

    def make():
        root = tmp_path / "theirs"
        (root / "var/lib/dpkg").mkdir(parents=True)
        dpkg(root, "--unpack", *sorted(archive.debs))
        return root

    return make


@pytest.fixture
def ours(tmp_path, archive, disk):
    """Extracts the packages and the database that the host wrote."""

    def make():
        # The packages dpkg and apt bring these directories.
        archive.add("zz-dirs", [("var/lib/dpkg/info", None, 0o755), ("etc/apt", None, 0o755)])
        tree = disk()
        root = tmp_path / "ours"
        root.mkdir()
        extract(tree, root, "")
        return root

    return make


def state(root):
    """The status file, the mode and content of each file of info/, and the lines of triggers/."""
    place = root / "var/lib/dpkg"
    info = {
        path.name: (stat.S_IMODE(path.stat().st_mode), path.read_bytes())
        for path in (place / "info").iterdir()
    }
    triggers = {
        path.name: sorted(path.read_text().splitlines()) for path in (place / "triggers").iterdir()
    }
    return (place / "status").read_bytes(), info, triggers


def files(root):
    """Type, mode and content of each file by path, without the database."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        status = path.lstat()
        # A base has the links to /usr before any package.
        if name.startswith(("var", "etc/apt")) or (path.is_symlink() and path.parent == root):
            continue
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else None
        if not path.is_dir():
            found[name] = (oct(status.st_mode), content)
    return found


def fill(archive):
    """Adds packages with everything that the database can record."""
    archive.add(
        "conffiles",
        [
            ("etc/loose.conf", "a = 1\n", 0o640),
            ("etc/more/second.conf", "b = 2\n", 0o644),
            ("usr/share/odd/name with space", "x", 0o644),
            ("usr/share/odd/ünï", "y", 0o600),
        ],
        conffiles="/etc/loose.conf\n/etc/more/second.conf\nremove-on-upgrade /etc/gone.conf\n",
        md5sums="d41d8cd98f00b204e9800998ecf8427e  usr/share/odd/other\n",
        scripts=["preinst", "postinst", "prerm", "postrm"],
    )
    archive.add(
        "libsame",
        [("usr/lib/x/libsame.so.1", "elf", 0o644), ("usr/lib/x/libsame.so", "-> libsame.so.1", 0)],
        fields="Multi-Arch: same\nEssential: yes\nX-Own: field\n",
        triggers="activate-noawait refresh\n",
        shlibs="libsame 1 libsame\n",
    )
    archive.add(
        "interested",
        [("usr/bin/tool", "#!/bin/sh\n", 0o4755), ("srv/empty", None, 0o2775)],
        fields="Multi-Arch: foreign\nDepends: libsame (>= 1:1)\n",
        triggers="interest-noawait refresh\ninterest /usr/share/odd\ninterest-noawait /usr/lib\n",
        scripts=["postinst"],
    )
    archive.add("bare")


def test_dpkg_goes_on_from_it_as_from_its_own(archive, theirs, ours):
    fill(archive)
    # `ours` adds a package, so it runs first: both sides need that package.
    mine = ours()
    other = theirs()
    names = ["conffiles", "libsame", "interested", "bare", "zz-dirs"]
    dpkg(other, "--configure", *names)
    dpkg(mine, "--configure", *names)
    assert state(mine) == state(other)
    assert files(mine) == files(other)
    assert dpkg(mine, "--audit") == ""
    assert dpkg(mine, "--verify", "libsame", "interested") == ""


def test_the_database_lists_the_packages_as_unpacked(archive, theirs, ours):
    fill(archive)
    mine = ours()
    info, other = state_of_info(mine), state_of_info(theirs())
    assert info == other
    assert "libsame:amd64.list" in info
    assert "conffiles.md5sums" in info
    listed = run(
        "dpkg-query", f"--admindir={mine}/var/lib/dpkg", "-f", "${Package} ${Status}\n", "-W"
    )
    assert listed.splitlines() == [
        f"{name} install ok unpacked"
        for name in ("bare", "conffiles", "interested", "libsame", "zz-dirs")
    ]


def state_of_info(root):
    return {
        path.name: (stat.S_IMODE(path.stat().st_mode), path.read_bytes())
        for path in (root / "var/lib/dpkg/info").iterdir()
    }


def test_the_members_belong_to_root(archive, disk):
    archive.add("bare")
    with tarfile.open(disk() / DATABASE) as database:
        members = database.getmembers()
    assert {(m.uid, m.gid) for m in members} == {(0, 0)}
    assert "./var/lib/dpkg/info/bare.list" in [m.name for m in members]


def test_a_file_of_two_packages_is_left_to_dpkg(archive, tmp_path):
    archive.add("first", [("usr/bin/tool", "1", 0o755), ("usr/share/common", None, 0o755)])
    archive.add("second", [("usr/bin/tool", "2", 0o755)], fields="Replaces: first\n")
    with pytest.raises(dpkg_database.Unusual, match="first and second both contain /usr/bin/tool"):
        dpkg_database.write(decompressed(archive, tmp_path), tmp_path / "x")


def test_a_link_for_a_conffile_is_left_to_dpkg(archive, tmp_path):
    archive.add("odd", [("etc/x", "-> y", 0)], conffiles="/etc/x\n")
    with pytest.raises(dpkg_database.Unusual, match="the conffile /etc/x is not a regular file"):
        dpkg_database.write(decompressed(archive, tmp_path), tmp_path / "x")


def decompressed(archive, tmp_path):
    """The decompressed packages, as they are on the VM's disk."""
    work, place = tmp_path / "unusual", tmp_path / "disk"
    work.mkdir()
    place.touch()
    write_disk(archive.debs, place, work, plenty())
    return sorted((work / "disk" / ARCHIVES).glob("*.deb"))


def test_packages_without_a_database_are_logged(archive, tmp_path):
    archive.add("odd", [("etc/x", "-> y", 0)], conffiles="/etc/x\n")
    work, place, lines = tmp_path / "work", tmp_path / "disk", []
    work.mkdir()
    place.touch()
    write_disk(archive.debs, place, work, plenty(), log=lines.append, database=True)
    assert not (work / "disk" / DATABASE).exists()
    (line,) = lines
    assert line.startswith("dpkg has to unpack the packages itself: the conffile /etc/x is not a")
