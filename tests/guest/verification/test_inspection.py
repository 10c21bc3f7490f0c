import json
import os

import pytest
from particle_agent.contract.decode import decode, encode
from particle_agent.contract.inspection import Account, Inspection, Package
from particle_agent.disk.reading import Tree
from particle_agent.ostree.reading import systems
from particle_agent.ostree.tree import DATABASE, ETC
from particle_agent.verification import inspection
from particle_agent.verification.inspection import of_system

STATUS = """\
Package: bash
Status: install ok installed
Architecture: amd64
Installed-Size: 7164
Version: 5.2-1
Description: shell
 Version: not this one

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1
"""


@pytest.fixture
def debian(target):
    target.write("/usr/lib/os-release", 'PRETTY_NAME="Debian 13"\nID=debian\nodd line\n')
    target.symlink("/etc/os-release", "../usr/lib/os-release")
    target.write("/etc/hostname", "box\n")
    target.write("/var/lib/dpkg/status", STATUS)
    target.write("/boot/vmlinuz-6.1-amd64", "")
    target.write(
        "/etc/passwd",
        "root:x:0:0::/root:/bin/bash\nd:x:1:1::/:/bin/sh\nann:x:1000:100::/home/ann:/bin/sh\n"
        "bob:x:1001:1001::/:/bin/sh\nodd:x:many:1::/:/bin/sh\nnobody:x:65534:1::/:/bin/sh\nservice:x:999:1000::/:/bin/sh\n",
    )
    target.write("/etc/shadow", "root:*:1:\nann:$y$x:1:\nbob::1:\nodd\nshort:\n", mode=0o600)
    return target


def test_a_system_is_described(debian):
    found = of_system(Tree(debian.root))
    release = {s.key: s.value for s in found.os_release}
    assert release == {"PRETTY_NAME": "Debian 13", "ID": "debian"}
    assert found.hostname == "box"
    assert found.kernels == ("6.1-amd64",)
    bash = Package(name="bash", version="5.2-1", architecture="amd64", size=7164 << 10)
    assert found.packages == (bash,)
    assert found.accounts == (
        Account(name="root", uid=0, shell="/bin/bash", password="locked"),
        Account(name="ann", uid=1000, shell="/bin/sh", password="set"),
        Account(name="bob", uid=1001, shell="/bin/sh", password="empty"),
    )


def test_a_commit_is_described_as_its_system(debian):
    expected = of_system(Tree(debian.root))
    debian.write("/usr/lib/modules/6.1-amd64/vmlinuz", "kernel")
    debian.make_directory("/usr/lib/modules/6.1-other")
    debian.make_directory("/usr/share/dpkg")
    debian.remove("/boot/vmlinuz-6.1-amd64")
    debian.path("/var/lib/dpkg").rename(debian.path(DATABASE))
    debian.path("/etc").rename(debian.path(ETC))
    (tree,) = systems(Tree(debian.root), "ext4")
    assert of_system(tree) == expected


def test_an_empty_tree_has_nothing_and_is_no_error(target):
    found = of_system(Tree(target.root))
    assert (found.os_release, found.packages, found.accounts, found.kernels) == ((), (), (), ())


def test_what_is_no_regular_file_is_not_read(debian):
    """Reading a pipe would wait forever."""
    debian.remove("/etc/hostname")
    os.mkfifo(debian.root / "etc/hostname")
    debian.remove("/etc/passwd")
    debian.make_directory("/etc/passwd")
    debian.symlink("/etc/os-release", "/etc/os-release")
    found = of_system(Tree(debian.root))
    assert (found.hostname, found.accounts) == ("", ())


def test_what_was_found_goes_over_the_wire(debian):
    found = Inspection(
        size=0, table=None, partitions=(), boot_loaders=(), system=of_system(Tree(debian.root))
    )
    assert decode(Inspection, json.loads(json.dumps(encode(found)))) == found


def test_boot_loaders_are_recognised_by_their_texts(target, tmp_path, monkeypatch):
    program = b"MZ" + b"\0" * 5000 + b"#### LoaderInfo: systemd-boot 257 ####"
    target.write("/efi/boot/x", "")
    (target.root / "EFI/Boot").mkdir(parents=True)
    (target.root / "EFI/BOOT").symlink_to("Boot")
    (target.root / "EFI/Boot/bootx64.efi").write_bytes(program)
    (target.root / "EFI/Linux").mkdir()
    (target.root / "EFI/Linux/debian.EFI").touch()
    assert list(inspection._loaders(Tree(target.root))) == [
        "systemd-boot (UEFI)",
        "unified kernel image (UEFI)",
    ]
    disk = tmp_path / "disk"
    disk.write_bytes(b"\xeb\x63" + b"GRUB \0" + b"\0" * 600)
    assert inspection._boot_code(disk) == "grub (BIOS)"
    monkeypatch.setattr(inspection, "SYSLINUX_CODE", tmp_path)
    (tmp_path / "gptmbr.bin").write_bytes(b"\x33\xc0\xfa")
    disk.write_bytes(b"\x33\xc0\xfa" + b"\0" * 600)
    assert inspection._boot_code(disk) == "syslinux (BIOS)"
    disk.write_bytes(
        b"\x33\xed" + b"\x90" * 300 + b"isolinux.bin missing or corrupt.\r\n" + bytes(300)
    )
    assert inspection._boot_code(disk) == "isolinux (BIOS)"
    disk.write_bytes(b"\0" * 600)
    assert inspection._boot_code(disk) == ""
