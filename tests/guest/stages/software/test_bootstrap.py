import io
import stat
import subprocess
import tarfile
from contextlib import contextmanager

import pytest
from particle_agent.apt import from_host
from particle_agent.contract.architectures.amd64 import AMD64
from particle_agent.contract.architectures.arm64 import ARM64
from particle_agent.errors import EnvironmentFailed
from particle_agent.stages.software import bootstrap as stage
from particle_agent.stages.software.bootstrap import Bootstrap, extract

from ....waiting import HANG_SECONDS, until


def tar(*members):
    """A tar archive of (name, content or link target or None for a directory, mode)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content, mode in members:
            info = tarfile.TarInfo(name)
            info.mode = mode
            if content is None:
                info.type = tarfile.DIRTYPE
            elif content.startswith("-> "):
                info.type, info.linkname = tarfile.SYMTYPE, content[3:]
                content = None
            data = (content or "").encode()
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def member(name, data):
    header = b"%-16s%-12d%-6d%-6d%-8o%-10d`\n" % (name, 0, 0, 0, 0o100644, len(data))
    return header + data + b"\n" * (len(data) % 2)


def deb(*members, control=()):
    parts = [member(b"debian-binary", b"2.0\n"), member(b"control.tar", tar(*control))]
    return b"!<arch>\n" + b"".join(parts) + member(b"data.tar", tar(*members))


@pytest.fixture
def disk(tmp_path):
    place = tmp_path / "archives"
    place.mkdir()
    (place / "a.deb").write_bytes(
        deb(
            ("./bin/", None, 0o755),
            ("./bin/one", "first", 0o4755),
            ("./etc/apt/", None, 0o755),
            ("./var/lib/dpkg/", None, 0o755),
        )
    )
    (place / "b.deb").write_bytes(
        deb(("./usr/bin/two", "second", 0o755), ("./lib", "-> usr/lib", 0o777))
    )
    return tmp_path


@pytest.fixture
def root(tmp_path):
    place = tmp_path / "root"
    place.mkdir()
    return place


def test_packages_of_both_layouts_end_up_under_usr(disk, root):
    extract(disk, root, "deb http://m.example s main\n")
    assert (root / "usr/bin/one").read_text() == "first"
    assert stat.S_IMODE((root / "usr/bin/one").stat().st_mode) == 0o4755
    assert (root / "bin").is_symlink()
    assert (root / "bin/two").read_text() == "second"
    assert (root / "lib").readlink().as_posix() == "usr/lib"
    assert (root / "etc/apt/sources.list").read_text() == "deb http://m.example s main\n"
    assert (root / "var/lib/dpkg/status").read_text() == ""


@pytest.mark.parametrize(("architecture", "links"), [(AMD64, {"lib64"}), (ARM64, set())])
def test_only_the_links_of_the_architecture_are_made(disk, root, monkeypatch, architecture, links):
    monkeypatch.setattr(stage, "native", lambda: architecture)
    extract(disk, root, "")
    assert {path.name for path in root.iterdir() if path.is_symlink()} == {
        "bin",
        "sbin",
        "lib",
        *links,
    }


def test_the_database_comes_along(disk, root):
    (disk / "database.tar").write_bytes(tar(("./var/lib/dpkg/status", "Package: a\n", 0o644)))
    extract(disk, root, "")
    assert (root / "var/lib/dpkg/status").read_text() == "Package: a\n"


def test_a_package_that_is_still_compressed_is_reported(disk, root):
    archive = disk / "archives/a.deb"
    archive.write_bytes(archive.read_bytes().replace(b"data.tar  ", b"data.tar.x"))
    with pytest.raises(EnvironmentFailed, match=r"a\.deb contains no uncompressed data\.tar"):
        extract(disk, root, "")


STATUS = """\
Package: plain
Status: install ok unpacked
Version: 1
Architecture: all

Package: scripted
Status: install ok unpacked
Version: 2
Architecture: amd64

Package: dpkg
Status: install ok unpacked
Essential: yes
Version: 1.22.9
Architecture: amd64
"""
SCRIPTED = "Package: scripted\nVersion: 2\nArchitecture: amd64\n"


def changes_now_are_later_than(file, directory):
    """Whether the kernel's coarse clock for files has advanced since `file` changed."""
    now = directory / "now"
    now.touch()
    return now.stat().st_ctime_ns > file.stat().st_ctime_ns


@pytest.fixture
def bootstrap(target, monkeypatch, tmp_path):
    """A target with three extracted packages; one of them has a preinst script."""

    @contextmanager
    def disk(target):
        yield "/disk"

    monkeypatch.setattr(from_host, "disk", disk)
    archives = target.root / "disk/archives"
    archives.mkdir(parents=True)
    archives.joinpath("plain.deb").write_bytes(
        deb(control=[("./control", "Package: plain", 0o644)])
    )
    script = [("./control", SCRIPTED, 0o644), ("./preinst", "#!/bin/sh\n", 0o755)]
    archives.joinpath("scripted.deb").write_bytes(deb(control=script))
    target.write("/usr/plain", "plain")
    target.write("/var/lib/dpkg/info/plain.list", "/.\n/usr\n/usr/plain\n")
    target.write("/var/lib/dpkg/info/scripted:amd64.list", "/.\n/usr\n")
    target.write("/etc/machine-id", "of the host")
    target.write("/var/lib/dpkg/status", STATUS)
    until(lambda: changes_now_are_later_than(target.path("/var/lib/dpkg/status"), tmp_path))
    return lambda: Bootstrap().run(target)


def dpkg_calls(target):
    return [c.argv for c in target.commands if c.argv[0] == "dpkg"]


CONFIGURED = ("--configure", "plain", "scripted", "dpkg")
INSTALLED = ("--install", "/disk/archives/plain.deb", "/disk/archives/scripted.deb")


def test_localhost_is_known_to_the_scripts_of_packages(bootstrap, target):
    target.when("dpkg", lambda c: seen.append(target.read("/etc/hosts")))
    seen = []
    bootstrap()
    assert seen[0].startswith("127.0.0.1 localhost\n")


def test_packages_are_configured_in_their_order(bootstrap, target):
    bootstrap()
    assert dpkg_calls(target) == [("dpkg", "--force-unsafe-io", "--force-depends", *CONFIGURED)]
    assert target.read("/var/lib/dpkg/status") == STATUS
    assert not target.exists("/etc/machine-id")


def test_a_preinst_script_runs_where_dpkg_runs_it(bootstrap, target):
    place = "/var/lib/dpkg/tmp.ci"
    target.when("dpkg-deb", lambda command: target.make_directory(command.argv[3]))
    bootstrap()
    assert target.only("dpkg-deb").argv[1:] == ("--control", "/disk/archives/scripted.deb", place)
    assert target.only(f"{place}/preinst").argv[1:] == ("install",)
    assert target.programs().index(f"{place}/preinst") < target.programs().index("dpkg")
    assert not target.exists(place)


def test_a_preinst_script_sees_the_environment_that_dpkg_makes(bootstrap, target, tmp_path):
    """The installed dpkg gives the expected environment: it runs a script that writes it down."""
    tree, root, written = tmp_path / "tree/DEBIAN", tmp_path / "other", tmp_path / "written"
    tree.mkdir(parents=True)
    (root / "var/lib/dpkg").mkdir(parents=True)
    (tree / "control").write_text(f"{SCRIPTED}Maintainer: x <x@example.org>\nDescription: x\n")
    (tree / "preinst").write_text(f"#!/bin/sh\nenv | grep ^DPKG_ >{written}\n")
    (tree / "preinst").chmod(0o755)
    subprocess.run(["dpkg-deb", "--build", tree.parent, tmp_path], check=True, timeout=HANG_SECONDS)
    ours = ["--force-unsafe-io", "--force-depends"]
    user = ["--force-not-root", "--force-script-chrootless", "--force-architecture"]
    subprocess.run(
        ["dpkg", *ours, *user, f"--root={root}", f"--log={tmp_path}/log"]
        + ["--unpack", f"{tmp_path}/scripted_2_amd64.deb"],
        check=True,
        timeout=HANG_SECONDS,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )
    theirs = dict(line.split("=", 1) for line in written.read_text().splitlines())
    bootstrap()
    environment = dict(target.only("/var/lib/dpkg/tmp.ci/preinst").env)
    assert environment.keys() == theirs.keys()
    forced = theirs["DPKG_FORCE"].split(",")
    extra = {"not-root", "non-root", "script-chrootless", "architecture"}
    assert environment["DPKG_FORCE"].split(",") == [f for f in forced if f not in extra]
    assert environment["DPKG_RUNNING_VERSION"] == "1.22.9"
    assert environment["DPKG_ADMINDIR"] == theirs["DPKG_ADMINDIR"].removeprefix(str(root))
    assert environment["DPKG_ROOT"] == theirs["DPKG_ROOT"].removeprefix(str(root))
    for name, value in theirs.items():
        if name.startswith("DPKG_MAINTSCRIPT_"):
            assert environment[name] == value


def change(target):
    target.path("/usr/plain").write_text("other")


def remove(target):
    target.remove("/usr/plain")


def divert(target):
    target.write("/var/lib/dpkg/diversions", "/usr/plain\n/usr/plain.real\nscripted\n")


def override(target):
    target.write("/var/lib/dpkg/statoverride", "root root 4755 /usr/plain\n")


@pytest.mark.parametrize("do", [change, remove, divert, override])
def test_what_a_preinst_script_does_to_other_files_is_left_to_dpkg(bootstrap, target, do):
    target.when("/var/lib/dpkg/tmp.ci/preinst", lambda command: do(target))
    bootstrap()
    assert dpkg_calls(target) == [("dpkg", "--force-unsafe-io", "--force-depends", *INSTALLED)]
    assert target.read("/var/lib/dpkg/status") == ""
    assert target.list("/var/lib/dpkg/info") == []
    assert any("dpkg unpacks the packages" in line for line in target.report.lines)


def test_a_diversion_of_its_own_file_disturbs_nothing(bootstrap, target):
    own = "/usr/plain\n/usr/plain.real\nplain\n/nowhere\n/nowhere.real\nscripted\n"
    target.when(
        "/var/lib/dpkg/tmp.ci/preinst",
        lambda command: target.write("/var/lib/dpkg/diversions", own),
    )
    bootstrap()
    assert dpkg_calls(target)[0][3:] == CONFIGURED


def test_without_a_database_dpkg_installs_the_packages(bootstrap, target):
    target.write("/var/lib/dpkg/status", "")
    bootstrap()
    assert target.programs() == ["dpkg"]
    assert dpkg_calls(target) == [("dpkg", "--force-unsafe-io", "--force-depends", *INSTALLED)]
