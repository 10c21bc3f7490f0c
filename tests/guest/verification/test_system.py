"""The verification of a system: names in fstab, leftovers, and rights outside packages."""

import os
from pathlib import Path

import pytest
from particle_agent import verification
from particle_agent.contract.findings import ERRORS, LIMIT, WARNINGS, Findings, severity
from particle_agent.disk.reading import Tree
from particle_agent.ostree.reading import systems
from particle_agent.verification import leftovers, names, rights, walk
from particle_agent.verification.table import PartitionEntry
from particle_agent.verification.volumes import FoundVolume
from particle_agent.verification.walk import Found

ROOT_UUID, ESP_UUID = "a6cdd9c7-f5cb-4d61-aed1-5b849a34a970", "7E9F-EE80"
PART_UUID = "8ff9a93a-435a-46ca-9aee-d306f4821e15"
FSTAB = f"""\
# a comment
UUID={ROOT_UUID} / ext4 errors=remount-ro,x-systemd.growfs 0 1
UUID={ESP_UUID.lower()} /boot/efi vfat umask=0077 0 2
PARTUUID={PART_UUID.upper()} /again auto defaults
/swapfile none swap defaults 0 0
tmpfs /tmp tmpfs size=1G 0 0
UUID=no-such-disk /data ext4 nofail 0 0
"""


@pytest.fixture
def tree(tmp_path):
    """A system without defects."""
    made = tmp_path / "root"
    for directory in (
        "etc/ssh", "usr/bin", "usr/sbin", "usr/lib/systemd", "boot/efi", "again", "data", "tmp",
        "root/.ssh", "home/ann/.ssh", "var/lib/dpkg/info", "var/lib/apt/lists/partial",
        "var/cache/apt/archives/partial", "var/log/journal", "var/tmp",
    ):  # fmt: skip
        (made / directory).mkdir(parents=True)
    for sticky in ("tmp", "var/tmp"):
        (made / sticky).chmod(0o1777)
    (made / "etc/fstab").write_text(FSTAB)
    (made / "etc/machine-id").write_text("")
    (made / "etc/resolv.conf").write_text("nameserver 192.0.2.1\n")
    (made / "swapfile").write_bytes(bytes(4086) + b"SWAPSPACE2" + bytes(4096))
    (made / "usr/bin/su").write_text("program")
    (made / "usr/bin/su").chmod(0o4755)
    (made / "var/lib/dpkg/info/login.list").write_text("/.\n/bin\n/bin/su\n/var/log/packaged\n")
    (made / "usr/lib/systemd/systemd").write_text("program")
    (made / "usr/lib/systemd/systemd").chmod(0o755)
    (made / "sbin").symlink_to("usr/sbin")
    (made / "usr/sbin/init").symlink_to("/usr/lib/systemd/systemd")
    return made


def volume(number, kind, uuid, place=None):
    entry = PartitionEntry(
        number=number, start=0, end=512, type="83", uuid=PART_UUID if number == 2 else "x",
        name=f"name{number}",
    )  # fmt: skip
    tree = Tree(place) if place else None
    return FoundVolume(
        number=number,
        kind=kind,
        uuid=uuid,
        label="",
        entry=entry,
        tree=tree,
        systems=() if tree is None else tuple(systems(tree, kind)),
    )


@pytest.fixture
def judge(tree):
    """A function that returns the codes and places of the findings on the system."""

    def judge():
        reported = []
        root = volume(2, "ext4", ROOT_UUID, tree)
        findings = Findings(reported.append)
        verification.check_system(root.tree, [volume(1, "vfat", ESP_UUID), root], findings)
        findings.finish()
        return [(finding.code, finding.place) for finding in reported]

    return judge


def test_a_good_system(judge):
    assert judge() == []


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("UUID=11111111-2222-3333-4444-555555555555 /data ext4 defaults 0 2",
         "fstab-device-missing"),
        ("/dev/disk/by-uuid/11111111 /data ext4 defaults 0 2", "fstab-device-missing"),
        ('LABEL="gone" /data ext4 defaults 0 2', "fstab-device-missing"),
        (f"UUID={ROOT_UUID} /data xfs defaults 0 2", "fstab-type-wrong"),
        (f"/dev/disk/by-partuuid/{PART_UUID} /data ext3 defaults 0 2", None),
        (f"UUID={ESP_UUID} /data msdos defaults", None),
        ("PARTLABEL=name2 /data ext4 ro,noatime 0 2", None),
        ("/dev/sda1 /data ext4 defaults 0 2", "fstab-unstable"),
        ("/dev/sda1 /data ext4 noauto 0 2", None),
        ("/dev/vdb9 /data ext4 defaults 0 2", "fstab-device-missing"),
        ("/dev/nvme0n1p9 /data ext4 defaults 0 2", "fstab-device-missing"),
        ("/dev/nvme0n1p2 /data ext4 defaults 0 2", "fstab-unstable"),
        ("/dev/vdb9 /data ext4 nofail 0 2", None),
        ("/dev/vdb /data ext4 defaults 0 2", "fstab-unstable"),
        ("/srv/gone /data none bind", "fstab-bind-missing"),
        ("/usr /data none rbind,ro", None),
        ("/run/made /data none bind", None),
        ("/again/there /data none bind", None),
        ("/dev/mapper/vg-root /data ext4 defaults 0 2", None),
        ("/dev/sr0 /data iso9660 noauto,user 0 0", None),
        ("host:/export /data nfs defaults 0 0", None),
        ("UUID=x /data", "fstab-line-broken"),
        (f"UUID={ROOT_UUID} /no\\040place ext4 defaults 0 2", "fstab-mount-point-missing"),
        ("/no-swap none swap defaults 0 0", "fstab-swap-broken"),
        ("/etc/fstab none swap sw 0 0", "fstab-swap-broken"),
        ("/no-swap none swap nofail 0 0", None),
        ("  # UUID=x", None),
    ],
)  # fmt: skip
def test_what_fstab_names(tree, judge, line, code):
    (tree / "etc/fstab").write_text(f"{FSTAB}{line}\n")
    assert judge() == ([(code, "/etc/fstab:8")] if code else [])


def command_line(tree, line):
    reported = []
    root = volume(2, "ext4", ROOT_UUID, tree)
    names.check_command_line(line, "menu", [root], Findings(reported.append))
    return [finding.code for finding in reported]


@pytest.mark.parametrize(
    ("line", "codes"),
    [
        (f"root=UUID={ROOT_UUID} ro quiet", []),
        (f"root=PARTUUID={PART_UUID} rw init=/usr/bin/su", []),
        ("quiet", []),
        ("root=/dev/mapper/vg-root", []),
        ("root=$root", []),
        ("root=UUID=11111111-2222-3333-4444-555555555555 ro", ["root-missing"]),
        ("root=/dev/vda2 ro", ["root-unstable"]),
        ("root=/dev/sda7 ro", ["root-missing"]),
        ("root=/dev/mmcblk0p7 ro", ["root-missing"]),
        ("root=/dev/mmcblk0 ro", ["root-unstable"]),
        (f"root=UUID={ROOT_UUID} resume=UUID=11111111", ["resume-missing"]),
        (f"root=UUID={ROOT_UUID} init=/no/init", ["init-missing"]),
        (f"root=UUID={ROOT_UUID} init=/etc/fstab", ["init-missing"]),
    ],
)
def test_what_the_command_line_names(tree, line, codes):
    assert command_line(tree, line) == codes


def test_init_in_another_place(tree):
    """The init is in a subvolume of btrfs, or in a separate /usr."""
    (tree / "@").mkdir()
    for name in ("usr", "sbin", "etc"):
        (tree / name).rename(tree / "@" / name)
    assert command_line(tree, f"root=UUID={ROOT_UUID}") == ["init-missing"]
    assert command_line(tree, f"root=UUID={ROOT_UUID} rootflags=noatime,subvol=@") == []
    (tree / "@/usr/lib/systemd/systemd").unlink()
    assert command_line(tree, f"root=UUID={ROOT_UUID} rootflags=subvol=/@") == ["init-missing"]
    (tree / "@/etc/fstab").write_text("# none\nLABEL=usr /usr ext4 defaults 0 0\n")
    assert command_line(tree, f"root=UUID={ROOT_UUID} rootflags=subvol=@") == []


def test_of_what_may_be_in_a_container_nothing_is_concluded(tree):
    reported = []
    disk = [volume(1, "crypto_LUKS", "x"), volume(2, "ext4", ROOT_UUID, tree)]
    (tree / "etc/fstab").write_text("UUID=11111111 / ext4 defaults 0 1\n")
    names.check_fstab(Tree(tree), disk, Findings(reported.append))
    names.check_command_line(
        "root=UUID=11111111 resume=UUID=1", "x", disk, Findings(reported.append)
    )
    assert reported == []


def test_a_system_without_init(tree):
    (tree / "usr/lib/systemd/systemd").unlink()
    assert command_line(tree, f"root=UUID={ROOT_UUID}") == ["init-missing"]


KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n"


@pytest.mark.parametrize(
    ("path", "text", "code", "place"),
    [
        ("etc/machine-id", "0123456789abcdef0123456789abcdef\n", "machine-id-set", None),
        ("etc/machine-id", "uninitialized\n", None, None),
        ("var/lib/dbus/machine-id", "0123456789abcdef0123456789abcdef\n", "machine-id-set", None),
        ("etc/apt/apt.conf", 'Acquire::http::Proxy "http://127.0.0.1:3142";\n', "apt-proxy", None),
        (
            "etc/apt/apt.conf.d/99x",
            'Acquire { https { proxy "http://a:b@10.0.2.2:1/"; } }\n',
            "apt-proxy",
            None,
        ),
        (
            "etc/apt/apt.conf.d/99x",
            "Acquire::http::Proxy::host http://localhost:1;",
            "apt-proxy",
            None,
        ),
        (
            "etc/apt/apt.conf.d/99x",
            '// Acquire::http::Proxy "http://127.0.0.1:3142";\n',
            None,
            None,
        ),
        ("etc/apt/apt.conf.d/99x", 'Acquire::http::Proxy "http://10.0.2.20:3142";\n', None, None),
        ("var/cache/apt/pkgcache.bin", "x", "apt-cache", None),
        ("var/cache/apt/srcpkgcache.bin", "x", "apt-cache", None),
        ("etc/ssh/ssh_host_ed25519_key", KEY, "ssh-host-key", None),
        ("etc/ssh/ssh_host_ed25519_key.pub", "ssh-ed25519 A", None, None),
        ("etc/ssh/sshd_config", "Port 22\n", None, None),
        ("etc/resolv.conf", "search x\nnameserver 10.0.2.3\n", "resolv-conf", None),
        ("etc/.particle-os-resolv.conf", "", "build-file", None),
        ("run/secrets/token", "x", "build-file", None),
        (".dockerenv", "", "container-file", None),
        ("run/.containerenv", "", "container-file", None),
        ("usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", "policy-rc-d", None),
        ("var/lib/systemd/random-seed", "x", "random-seed", None),
        ("var/lib/systemd/credential.secret", "x", "credential-secret", None),
        ("var/lib/apt/lists/mirror_dists_trixie_InRelease", "x", "apt-lists", "/var/lib/apt/lists"),
        ("var/lib/apt/lists/lock", "", None, None),
        ("var/cache/apt/archives/x.deb", "x", "apt-archives", "/var/cache/apt/archives"),
        ("var/log/dpkg.log", "x", "log", "/var/log"),
        ("var/log/apt/history.log", "x", "log", "/var/log"),
        ("var/log/a/b/c/deep.log", "x", "log", "/var/log"),
        ("var/log/a/b/empty.log", "", None, None),
        ("var/log/wtmp", "", None, None),
        ("var/log/wtmp", "x", "log", "/var/log"),
        ("var/log/lastlog", "x", "log", "/var/log"),
        ("var/log/lastlog", "\0" * 292, None, None),
        ("var/log/packaged", "x", None, None),
        ("var/log/journal/0123456789abcdef/system.journal", "x", "log", "/var/log/journal"),
        ("tmp/file", "", "temporary-file", "/tmp"),
        ("root/.bash_history", "ls\n", "shell-history", None),
        ("home/ann/.ssh/id_ed25519", KEY, "private-key", None),
        ("root/server.pem", f"-----BEGIN CERTIFICATE-----\nabc\n{KEY}", "private-key", None),
        ("root/id.pem", "-----BEGIN PRIVATE KEY-----\nabc\n", "private-key", None),
        ("home/ann/work/x", KEY.replace("OPENSSH", "EC"), "private-key", None),
        ("home/ann/notes", f"a key begins with {KEY}", None, None),
        ("home/ann/.ssh/authorized_keys", "ssh-ed25519 A ann\n", None, None),
    ],
)
def test_what_is_left_behind(tree, judge, path, text, code, place):
    file = tree / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    assert judge() == ([(code, place or f"/{path}")] if code else [])


def test_keys_of_a_user_whose_home_is_elsewhere(tree, judge):
    (tree / "etc/passwd").write_text("git:x:1001:1001::/srv/git:/bin/sh\nbroken\n")
    (tree / "srv/git/.ssh").mkdir(parents=True)
    (tree / "srv/git/.ssh/id_ed25519").write_text(KEY)
    assert judge() == [("private-key", "/srv/git/.ssh/id_ed25519")]


def test_links_and_pipes_are_no_traps(tree, judge):
    """Reading a pipe would wait forever. Links must stay within the image."""
    (tree / "etc/machine-id").unlink()
    (tree / "etc/machine-id").symlink_to("/etc/machine-id")
    (tree / "etc/resolv.conf").unlink()
    os.mkfifo(tree / "etc/resolv.conf")
    (tree / "etc/fstab").unlink()
    (tree / "etc/fstab").mkdir()
    (tree / "usr/sbin/policy-rc.d").symlink_to("../../../../../../../../etc/hostname")
    (tree / "var/lib/apt/lists/partial").rmdir()
    (tree / "var/lib/apt/lists").rmdir()
    (tree / "var/lib/apt/lists").symlink_to("/")
    assert judge() == [("apt-lists", "/var/lib/apt/lists")]


def test_rights_that_no_package_wants(tree, judge):
    for path, mode in (
        ("usr/bin/shell", 0o4755),
        ("usr/bin/group", 0o2755),
        ("usr/bin/wanted", 0o4755),
        ("usr/bin/diverted.real", 0o4755),
        ("etc/open", 0o666),
        ("etc/name with\nnew line", 0o602),
    ):
        (tree / path).write_text("x")
        (tree / path).chmod(mode)
    (tree / "data").chmod(0o777)
    dpkg = tree / "var/lib/dpkg"
    (dpkg / "diversions").write_text("/usr/bin/diverted\n/usr/bin/diverted.real\npackage\n")
    (dpkg / "statoverride").write_text("root root 4755 /usr/bin/wanted\n")
    assert judge() == [
        ("world-writable", "/data"),
        ("world-writable", "/etc/name with\nnew line"),
        ("world-writable", "/etc/open"),
        ("setuid", "/usr/bin/group"),
        ("setuid", "/usr/bin/shell"),
    ]


def test_capabilities_that_no_package_wants(tree, judge, monkeypatch):
    """Setting capabilities needs root, so the test replaces getxattr."""
    data = bytes.fromhex("0100000200200000000000000000000000000000")
    marked = {tree / "usr/bin/su": data, tree / "usr/sbin/ping": data, tree / "usr/sbin/odd": b"x"}

    def getxattr(place, name, *, follow_symlinks):
        if name != "security.capability" or place not in marked:
            raise OSError
        return marked[place]

    for place in marked:
        place.write_text("program")
        place.chmod(0o755)
    monkeypatch.setattr(os, "getxattr", getxattr)
    assert judge() == [("capability", "/usr/sbin/ping")]


def test_devices_that_everybody_may_write_to():
    """The test uses devices of /dev, because making devices needs root."""
    reported = []
    found = [
        file for file in walk.walk(Path("/dev"), Findings(lambda _: None)) if file.type in "bc"
    ]
    assert "/null" in [file.path for file in found]
    node = Found("/srv/null", "c", 0o666, 0)
    in_place = Found("/dev/null", "c", 0o666, 0)
    file = Found("/dev/file", "f", 0o666, 1)
    rights.check(Tree(Path("/nonexistent")), [node, in_place, file], Findings(reported.append))
    assert [(f.code, f.place) for f in reported] == [
        ("world-writable", "/dev/file"),
        ("world-writable", "/srv/null"),
    ]


def test_a_link_for_the_machine_id_of_dbus(tree, judge):
    (tree / "var/lib/dbus").mkdir()
    (tree / "var/lib/dbus/machine-id").symlink_to("/etc/machine-id")
    assert judge() == []
    (tree / "etc/machine-id").write_text("uninitialized\n")
    assert judge() == []


def test_other_file_systems_are_no_part_of_it(tree, judge):
    (tree / "link").symlink_to("/tmp")
    assert judge() == []


def test_a_flood_of_findings_is_cut(tree, judge):
    for number in range(LIMIT + 30):
        (tree / f"etc/open{number}").write_text("x")
        (tree / f"etc/open{number}").chmod(0o666)
    found = judge()
    assert len(found) == LIMIT + 1
    reported = []
    findings = Findings(reported.append)
    findings.add("setuid", "x" * 10_000, "é" * 10_000)
    assert len(reported[0].place) <= 300
    for _ in range(3):
        findings.add("setuid", "same", "same")
    assert len(reported) == 2


def test_every_code_has_one_severity():
    assert not ERRORS.keys() & WARNINGS.keys()
    assert (severity("root-missing"), severity("log"), severity("x")) == ("error", "warning", None)
    with pytest.raises(AssertionError):
        Findings(print).add("no-such-code", "", "")


def test_no_leftover_is_unknown():
    codes = {code for code, *_ in (*leftovers.FILES, *leftovers.CONTENTS)}
    assert codes <= ERRORS.keys() | WARNINGS.keys()


def test_the_deployments_of_a_volume_are_its_systems(tmp_path):
    for number in range(2):
        made = tmp_path / f"ostree/deploy/debian/deploy/{number}.0"
        (made / "etc").mkdir(parents=True)
        (made / "etc/fstab").write_text(f"UUID=missing-{number} /srv ext4\n")
    disk = volume(2, "ext4", ROOT_UUID, tmp_path)
    assert disk.is_root
    assert [found.root.name for found in disk.systems] == ["0.0", "1.0"]
    reported = []
    for found in disk.systems:
        names.check_fstab(found, [disk], Findings(reported.append))
    assert [finding.message for finding in reported if "device" in finding.code] == [
        "nothing on the disk is UUID=missing-0",
        "nothing on the disk is UUID=missing-1",
    ]
    assert not volume(1, "vfat", ESP_UUID).is_root
    assert not volume(1, "vfat", ESP_UUID, tmp_path / "ostree").is_root
