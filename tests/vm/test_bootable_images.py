"""A container image with the layout of bootc's Debian images becomes a disk that OSTree updates.

No such image can be fetched here, so a root file system with Debian's packages is laid out so.
"""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest
import yaml

from .conftest import Account, example, leftovers

REF = "debian/13/amd64/bootc"
# What such an image leaves out, or has a link for.
DROPPED = ("boot", "home", "mnt", "opt", "root", "srv", "usr/local", "var", "vmlinuz", "initrd.img")
KEPT = ("var/lib/dpkg", "var/cache/debconf")
LINKS = {"home": "/var/home", "root": "var/roothome", "srv": "/var/srv", "ostree": "sysroot/ostree"}
SETTINGS = b"[composefs]\nenabled = yes\n[sysroot]\nreadonly = true\n"


def renamed(name: str) -> str | None:
    """The path of a file of Debian in such an image; None for a file that it does not have."""
    for start, there in (("boot/vmlinuz-", "vmlinuz"), ("boot/initrd.img-", "initramfs.img")):
        if name.startswith(start):
            return f"usr/lib/modules/{name.removeprefix(start)}/{there}"
    if any(name == top or name.startswith(f"{top}/") for top in KEPT):
        return name
    dropped = any(name == top or name.startswith((f"{top}/", f"{top}.old")) for top in DROPPED)
    return None if dropped else name


def lay_out(source: Path, place: Path) -> None:
    """Writes the root file system of `source` in the layout of such an image."""
    with tarfile.open(source) as old, tarfile.open(place, "w") as new:
        for member in old:
            name = renamed(member.name.removeprefix("./"))
            if name is not None:
                data = old.extractfile(member) if member.isreg() else None
                member.name = f"./{name}"
                new.addfile(member, data)
        for name, to in LINKS.items():
            link = tarfile.TarInfo(f"./{name}")
            link.type, link.linkname = tarfile.SYMTYPE, to
            new.addfile(link)
        for name in ("boot", "sysroot"):
            directory = tarfile.TarInfo(f"./{name}")
            directory.type, directory.mode = tarfile.DIRTYPE, 0o755
            new.addfile(directory)
        settings = tarfile.TarInfo("./usr/lib/ostree/prepare-root.conf")
        settings.size, settings.mode = len(SETTINGS), 0o644
        new.addfile(settings, io.BytesIO(SETTINGS))


@pytest.fixture(scope="module")
def image(account: Account) -> Path:
    """The packages of recipes/edge.yml in the layout of such an image, as a tar archive."""
    apt = yaml.safe_load(example(account, "edge").read_text())["stages"][0]
    del apt["type"]
    options = account.write(account.directory / "apt.yml", yaml.safe_dump(apt))
    output = account.directory / "packages.tar"
    words = ("stage", "run", "apt", "--options", options, "--base", "mmdebstrap:trixie")
    outcome = account.run(*words, "--output", output)
    assert outcome.status == 0, outcome.stderr
    place = account.make_directory("bootc") / "bootc.tar"
    lay_out(output, place)
    os.chown(place, account.uid, account.gid)
    output.unlink()
    return place


@pytest.mark.weekly
def test_such_an_image_becomes_a_disk_that_ostree_updates(account: Account, image: Path) -> None:
    """It boots from BIOS and UEFI, with its packages known, and directories that machines write."""
    text = f"""\
name: bootc
base-image: tar:{image.name}
stages:
  - type: ostree
    ref: {REF}
    version: "1"
  - type: qemu
    boot-loader: grub
    formats: [qcow2]
boot-test:
  checks:
    - unit: particle-os-boot-success.service
    - ostree: {{ref: {REF}, version: "1"}}
    - command: [touch, /root/new, /home/new, /srv/new, /opt/new, /usr/local/new]
    - command: [dpkg-query, --show, ostree-boot]
      contains: ostree-boot
"""
    recipe = account.write(image.with_name("bootc.yml"), text)
    output = account.make_directory("bootc-out")
    outcome = account.run("build", recipe, "--output", output, "--json", "--progress", "plain")
    assert outcome.status == 0, outcome.stderr
    assert leftovers(account, output) == []
    result = outcome.json()
    assert [(b["firmware"], b["status"], len(b["checks"])) for b in result["boot"]] == [
        ("bios", "passed", 4),
        ("uefi", "passed", 4),
    ]
    assert result["verification"]["findings"] == []
    notes = "\n".join(result["notes"])
    for words in ("it is put into /boot", "their directories are made", "asks for a composefs"):
        assert words in notes
    assert (output / "bootc.ostree.tar").stat().st_size > 0
