"""The package of Debian and the container image have what images of an architecture need."""

import re
import subprocess

import pytest

from ...runners import played
from ...runners.github import TOP

CONTAINERFILE = (TOP / "Containerfile").read_text()
CONTROL = (TOP / "debian/control").read_text()


def relations(field):
    """The relations in a field of the binary package."""
    (text,) = re.findall(rf"^{field}:\n((?: .*\n)+)", CONTROL.partition("\nPackage: ")[2], re.M)
    return [line.strip().rstrip(",") for line in text.splitlines()]


def test_each_machine_gets_the_emulator_of_its_own_architecture():
    """Debian 13: the package for the machine's own architecture provides qemu-system-native."""
    assert "qemu-system-native | qemu-system-x86 | qemu-system-arm" in relations("Depends")
    assert {"ovmf", "qemu-efi-aarch64"} <= {*relations("Recommends")}
    assert {"qemu-system-arm", "qemu-system-x86"} <= {*relations("Suggests")}


@pytest.mark.parametrize(
    ("own", "more", "packages"),
    [
        ("amd64", "", {"qemu-system-x86", "ovmf"}),
        ("arm64", "", {"qemu-system-arm", "qemu-efi-aarch64"}),
        ("amd64", "arm64", {"qemu-system-x86", "ovmf", "qemu-system-arm", "qemu-efi-aarch64"}),
        ("amd64", "arm46", None),
    ],
)
def test_the_container_image_has_the_named_architectures(tmp_path, own, more, packages):
    last = CONTAINERFILE.rpartition("\nFROM ")[2]
    assert "\nARG ARCHITECTURES=\n" in last
    mount, script = re.search(r"^RUN (--mount=\S+) ((?:.*\\\n)+.*)", last, re.M).groups()
    assert mount
    for name in ("apt-get", "rm", "useradd", "mkdir"):
        body = f'#!/bin/sh\n[ {name} != apt-get ] || echo "$@" >>{tmp_path}/asked\n'
        played.write_program(tmp_path / name, body)
    played.write_program(tmp_path / "dpkg", f"#!/bin/sh\necho {own}\n")
    done = subprocess.run(
        ["/bin/sh", "-c", script.replace("\\\n", "\n").replace("\n", " ")],
        env={"PATH": str(tmp_path), "ARCHITECTURES": more}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if packages is None:
        assert done.returncode == 2
        assert "makes no images of arm46" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    asked = (tmp_path / "asked").read_text().splitlines()[-1].split()
    known = {"qemu-system-x86", "ovmf", "qemu-system-arm", "qemu-efi-aarch64"}
    assert known & {*asked} == packages
