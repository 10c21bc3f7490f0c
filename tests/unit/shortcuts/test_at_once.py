"""Compares packages that are unpacked in one pass with the result of the installed dpkg."""

import os
import re
import shutil
import stat
import subprocess

import pytest
from particle_agent.apt.from_host import MOUNT
from particle_agent.contract.packages import ARCHIVES, LOOSE
from particle_agent.errors import CommandFailed, EnvironmentFailed
from particle_agent.shortcuts import at_once
from particle_agent.target.target import Target
from particle_os.apt.package_disk import write_disk

from ...waiting import HANG_SECONDS, plenty
from .test_dpkg_database import Archive, dpkg, files, run, state

pytestmark = pytest.mark.slow

CONFIG = "/etc/dpkg/dpkg.cfg.d/x"
BASE = {"watching": "installed", "empty": "installed"}
EXTENDED_STATES = "/var/lib/apt/extended_states"


class Report:
    def output(self, text):
        pass


class UserTarget(Target):
    """A target made by dpkg as an ordinary user; its programs run outside, on its directory."""

    def __init__(self, root):
        super().__init__(root, Report(), hostname="")
        self.triggered = []
        self.apt_config = 'DPkg::Options:: "--force-confold";\n'

    def chroot(self, argv, **options):
        assert argv[:2] == ["dpkg-trigger", "--no-await"]
        self.triggered.append(argv[2])
        run("dpkg-trigger", f"--admindir={self.root}/var/lib/dpkg", *argv[1:])

    def chroot_from(self, argv, data):
        replaced = {"--directory=/": f"--directory={self.root}", "--same-owner": "--no-same-owner"}
        argv = [replaced.get(word, word) for word in argv]
        subprocess.run(argv, input=b"".join(data), check=True, timeout=HANG_SECONDS)

    def capture(self, argv, **options):
        return self.apt_config if argv[0] == "apt-config" else run(*argv)

    def _chown(self, place, owner):
        pass


@pytest.fixture
def base(tmp_path):
    """Makes a system with a package that has triggers, and a package with private directories."""

    def make(name):
        (tmp_path / f"{name}-debs").mkdir()
        archive = Archive(tmp_path / f"{name}-debs")
        archive.add(
            "watching",
            [("usr/share/old/file", "x", 0o644), ("etc/private/x", "x", 0o600)],
            triggers="interest-noawait /usr/share/odd\ninterest /usr/share/awaited\n",
            scripts=["postinst"],
        )
        archive.add("empty", [("var/empty", None, 0o755), ("var/old/x", "x", 0o644)])
        root = tmp_path / name
        (root / "var/lib/dpkg").mkdir(parents=True)
        (root / "usr/lib").mkdir(parents=True)
        (root / "lib").symlink_to("usr/lib")
        dpkg(root, "--install", *archive.debs)
        (root / "etc/private").chmod(0o2750)
        (root / "var/empty").chmod(0o700)
        os.utime(root / "usr/share", (0, 0))
        return root

    return make


@pytest.fixture
def target(base):
    return UserTarget(base("ours"))


@pytest.fixture
def archive(tmp_path):
    (tmp_path / "debs").mkdir()
    return Archive(tmp_path / "debs")


@pytest.fixture
def hand_in(archive, target, tmp_path):
    """Puts the packages where the target has the host's disk mounted."""

    def put():
        work, place = tmp_path / "work", tmp_path / "disk"
        work.mkdir()
        place.touch()
        write_disk(archive.debs, place, work, plenty(), loose=True)
        shutil.copytree(work / "disk", target.path(MOUNT))

    return put


def named_loose(target):
    """The names of the packages that the host lists as loose."""
    return sorted(name.split("_")[0] for name in target.list(f"{MOUNT}/{LOOSE}") if "json" in name)


def unpacked(target):
    """The state of each package in the target, by name."""
    text = target.read("/var/lib/dpkg/status")
    return dict(re.findall(r"Package: (\S+)\nStatus: install ok (\S+)", normal(text)))


def normal(text):
    """A status file with its paragraphs and fields in a fixed order."""
    paragraphs = []
    for paragraph in text.strip().split("\n\n"):
        fields = re.split(r"\n(?=\S)", paragraph)
        paragraphs.append(
            "\n".join(sorted(fields, key=lambda f: (not f.startswith("Pa"), f[0] != "S", f)))
        )
    return "\n\n".join(sorted(paragraphs))


def unpack(target, *wanted):
    with at_once.unpacked(target, MOUNT, wanted) as names:
        return names


def fill(archive):
    archive.add(
        "loose",
        [
            ("etc/loose.conf", "a = 1\n", 0o640),
            ("etc/private/more", "y", 0o600),
            ("usr/share/odd/ünï code", "y", 0o600),
            ("usr/bin/tool", "#!/bin/sh\n", 0o4755),
            ("srv/empty", None, 0o2775),
            ("var/empty", None, 0o755),
        ],
        conffiles="/etc/loose.conf\nremove-on-upgrade /etc/gone.conf\n",
        scripts=["postinst", "prerm"],
    )
    archive.add(
        "libsame",
        [("lib/x/libsame.so.1", "elf", 0o644), ("usr/lib/x/libsame.so", "-> libsame.so.1", 0)],
        fields="Multi-Arch: same\n",
        triggers="activate-noawait refresh\n",
    )
    archive.add("prepared", [("usr/bin/other", "1", 0o755)], scripts=["preinst"])
    archive.add("watcher", [("usr/bin/more", "1", 0o755)], triggers="interest-noawait refresh\n")


def test_dpkg_goes_on_from_it_as_from_its_own(archive, base, target, hand_in, tmp_path):
    fill(archive)
    hand_in()
    assert named_loose(target) == ["libsame", "loose"]
    (tmp_path / "began").touch()
    wanted, names = ["loose", "watcher"], ("libsame", "loose", "prepared", "watcher")
    installed = unpack(target, *wanted)
    assert installed[:2] == wanted
    assert sorted(installed[2:]) == [f"{name}:amd64=1:2.0-1" for name in names]
    assert unpacked(target) == {**BASE, "loose": "unpacked", "libsame": "unpacked"}
    assert target.triggered == ["/usr/share/odd"]
    modes = [stat.S_IMODE(target.path(p).stat().st_mode) for p in ("/etc/private", "/var/empty")]
    assert modes == [0o2750, 0o700]
    began = int((tmp_path / "began").stat().st_mtime)
    for place in ("/etc/private", "/usr/share/odd", "/usr/share", "/usr/lib/x"):
        assert target.path(place).stat().st_mtime >= began, place
    rest = [deb for deb in archive.debs if deb.name.startswith(("prepared", "watcher"))]
    other = base("theirs")
    names = ["loose", "libsame", "prepared", "watcher"]
    for root, debs in ((target.root, rest), (other, archive.debs)):
        dpkg(root, "--unpack", *debs)
        dpkg(root, "--configure", *names)
        dpkg(root, "--triggers-only", "--pending")
    mine, theirs = state(target.root), state(other)
    assert normal(mine[0].decode()) == normal(theirs[0].decode())
    assert mine[1:] == theirs[1:]
    shutil.rmtree(target.path("/run"))
    assert files(target.root) == files(other)
    assert dpkg(target.root, "--audit") == ""


def test_what_is_no_utf_8_stays_as_it_is(archive, target, hand_in):
    archive.add("loose", [("usr/bin/tool", "1", 0o755)])
    status = target.path("/var/lib/dpkg/status")
    old = status.read_bytes().replace("ä".encode(), "ä".encode("latin-1"))
    status.write_bytes(old)
    hand_in()
    unpack(target, "loose")
    assert status.read_bytes().startswith(old.rstrip())
    assert dpkg(target.root, "--audit") != "", "the package is unpacked, not configured"


def test_apt_hears_what_was_not_asked_for(archive, target, hand_in):
    archive.add("asked", [("usr/bin/asked", "1", 0o755)])
    archive.add("brought", [("usr/bin/brought", "1", 0o755)])
    hand_in()
    before = "Package: other\nArchitecture: amd64\nAuto-Installed: 1\n\n"
    stale = "Package: brought\nArchitecture: amd64\nAuto-Installed: 0\n\n"
    target.write(EXTENDED_STATES, before + stale)
    unpack(target, "asked:amd64=1:2.0-1")
    assert target.read(EXTENDED_STATES) == before + stale.replace("0", "1")


@pytest.mark.parametrize("name", ["provided", "plai.*"])
def test_a_name_that_is_none_of_a_package_is_left_to_apt(archive, target, hand_in, name):
    fill(archive)
    hand_in()
    assert unpack(target, "loose", name) is None
    assert unpacked(target) == BASE


def add_statoverride(target):
    target.write("/var/lib/dpkg/statoverride", "root root 4755 /usr/bin/tool\n")


def add_diversion(target):
    # The package holds this file as /usr/lib/x/libsame.so.1 once /usr is merged.
    text = "/usr/lib/x/libsame.so.1\n/usr/lib/x/libsame.so.real\nmine\n"
    target.write("/var/lib/dpkg/diversions", text)


def set_option(target):
    target.apt_config += 'DPkg::Options:: "--path-exclude=/usr/share/doc/*";\n'


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (lambda target: target.write("/etc/loose.conf", "mine"), {"libsame"}),
        (lambda target: target.write("/srv", "a file"), {"libsame"}),
        (lambda target: target.symlink("/usr/share/odd", "/nowhere"), {"libsame"}),
        (lambda target: target.write("/usr/lib/x/libsame.so.1", "mine"), {"loose"}),
        (lambda target: target.write(CONFIG, "no-debsig\nlog /x\n"), {"loose", "libsame"}),
        (lambda target: target.write(CONFIG, "path-exclude=/usr/*\n"), set()),
        (lambda target: target.write("/etc/dpkg/dpkg.cfg", "pre-invoke=x\n"), set()),
        (lambda target: target.write("/etc/gone.conf", "mine"), {"libsame"}),
        (lambda target: target.write("/etc/loose.conf.dpkg-new", "an older try"), {"libsame"}),
        (add_statoverride, {"libsame"}),
        (add_diversion, {"loose"}),
        (set_option, set()),
    ],
)  # fmt: skip
def test_what_is_there_is_left_to_dpkg(archive, target, hand_in, change, left):
    fill(archive)
    hand_in()
    change(target)
    unpack(target, "loose")
    assert unpacked(target).keys() - BASE.keys() == left


def test_a_package_of_which_something_is_known_is_left_to_dpkg(archive, target, hand_in):
    archive.add("loose", [("usr/bin/tool", "1", 0o755)])
    hand_in()
    paragraph = "Package: loose\nStatus: deinstall ok config-files\nVersion: 1\n\n"
    status = target.read("/var/lib/dpkg/status")
    target.write("/var/lib/dpkg/status", status + "\n" + paragraph)
    assert unpack(target, "loose") is None


def test_what_one_awaits_and_another_does_not_is_awaited(archive, target, hand_in):
    triggers = target.path("/var/lib/dpkg/triggers/File")
    triggers.write_text(f"{triggers.read_text()}/usr/share/odd watching\n")
    archive.add("loose", [("usr/share/odd/file", "1", 0o644)])
    hand_in()
    assert unpack(target, "loose") is None


def test_what_others_await_or_what_configures_apt_is_left_to_dpkg(archive, target, hand_in):
    archive.add("awaited", [("usr/share/awaited/schema", "1", 0o644)])
    archive.add(
        "settings", [("etc/apt/apt.conf.d/x", "", 0o644)], conffiles="/etc/apt/apt.conf.d/x\n"
    )
    archive.add("loose", [("usr/share/aware", "1", 0o644)])
    hand_in()
    assert named_loose(target) == ["awaited", "loose"]
    unpack(target, "loose")
    assert unpacked(target).keys() - BASE.keys() == {"loose"}


@pytest.mark.parametrize(
    ("second", "left"),
    [
        ([("usr/bin/tool", "2", 0o755)], []),
        ([("usr/bin/tool/x", "2", 0o755)], []),
        ([("usr/lib/y", "2", 0o755)], []),
        ([("srv/private", None, 0o700)], []),
        ([("srv/private", None, 0o755)], ["first", "second"]),
    ],
)
def test_packages_that_meet_are_left_to_dpkg(archive, target, hand_in, second, left):
    mine = [("usr/bin/tool", "1", 0o755), ("lib/y", "1", 0o644), ("srv/private", None, 0o755)]
    archive.add("first", mine)
    archive.add("second", second)
    hand_in()
    assert named_loose(target) == left


def test_what_is_unusual_leaves_all_to_dpkg(archive, target, hand_in):
    archive.add("odd", [("etc/x", "-> y", 0)], conffiles="/etc/x\n")
    archive.add("loose", [("usr/bin/tool", "1", 0o755)])
    hand_in()
    assert not target.exists(f"{MOUNT}/{LOOSE}")
    assert unpack(target, "loose") is None
    assert target.list(f"{MOUNT}/{ARCHIVES}")


def test_a_full_disk_is_reported_as_such(archive, target, hand_in, monkeypatch):
    def fail(argv, data):
        raise CommandFailed(argv, 2, ["tar: ./usr/bin/tool: Cannot write: No space left on device"])

    fill(archive)
    hand_in()
    monkeypatch.setattr(target, "chroot_from", fail)
    with pytest.raises(EnvironmentFailed, match="do not fit") as caught:
        unpack(target, "loose")
    assert "--scratch-size" in caught.value.hint


@pytest.mark.parametrize("damage", ["trailing", "lower-case", "latin-1"])
def test_odd_packages_are_left_to_dpkg(archive, tmp_path, damage):
    archive.add("odd", [("usr/bin/tool", "1", 0o755)])
    (tmp_path / "work").mkdir()
    (tmp_path / "disk").touch()
    deb = archive.debs[0]
    parts = tmp_path / "parts"
    parts.mkdir()
    run("dpkg-deb", "--raw-extract", deb, parts / "tree")
    control = parts / "tree/DEBIAN/control"
    text = control.read_bytes()
    if damage == "lower-case":
        text = text.replace(b"Package:", b"package:")
    elif damage == "latin-1":
        text = text.replace("ä".encode(), "ä".encode("latin-1"))
    control.write_bytes(text)
    run("dpkg-deb", "--root-owner-group", "-Znone", "--build", parts / "tree", deb)
    if damage == "trailing":
        add_to_data(deb)
    write_disk([deb], tmp_path / "disk", tmp_path / "work", plenty(), loose=True)
    tree = tmp_path / "work/disk"
    assert [path.name for path in (tree / ARCHIVES).glob("*.deb")] == [deb.name]
    assert (tree / LOOSE).exists() == (damage == "latin-1")


def add_to_data(deb):
    """Appends bytes after the end of data.tar, which dpkg does not read."""
    content = deb.read_bytes()
    data = content.index(b"data.tar")
    size = int(content[data + 48 : data + 58])
    header = content[data : data + 48] + b"%-10d`\n" % (size + 512)
    deb.write_bytes(content[:data] + header + content[data + 60 : data + 60 + size] + b"x" * 512)
