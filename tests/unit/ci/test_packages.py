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


def install(directory, own, more):
    """Runs what installs the packages of the image; returns its end, and what apt was asked for."""
    last = CONTAINERFILE.rpartition("\nFROM ")[2]
    assert "\nARG ARCHITECTURES=\n" in last
    script = re.search(r"^RUN --mount=\S+ ((?:.*\\\n)+.*)", last, re.M)[1]
    asked = directory / "asked"
    for name in ("rm", "useradd", "mkdir"):
        played.write_program(directory / name, "#!/bin/sh\n")
    played.write_program(directory / "apt-get", f'#!/bin/sh\necho "$@" >>{asked}\n')
    played.write_program(directory / "dpkg", f"#!/bin/sh\necho {own}\n")
    done = subprocess.run(
        ["/bin/sh", "-c", script.replace("\\\n", " ")],
        env={"PATH": str(directory), "ARCHITECTURES": more}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    return done, asked.read_text().splitlines() if asked.exists() else []


@pytest.mark.parametrize(
    ("own", "more", "packages"),
    [
        ("amd64", "", {"qemu-system-x86", "ovmf"}),
        ("arm64", "", {"qemu-system-arm", "qemu-efi-aarch64"}),
        ("amd64", "arm64", {"qemu-system-x86", "ovmf", "qemu-system-arm", "qemu-efi-aarch64"}),
    ],
)
def test_the_container_image_has_the_named_architectures(tmp_path, own, more, packages):
    done, asked = install(tmp_path, own, more)
    assert done.returncode == 0, done.stderr
    known = {"qemu-system-x86", "ovmf", "qemu-system-arm", "qemu-efi-aarch64"}
    assert known & {*asked[-1].split()} == packages


def test_an_unknown_architecture_ends_the_container_image(tmp_path):
    done, asked = install(tmp_path, "amd64", "arm46")
    assert done.returncode == 2
    assert "makes no images of arm46" in done.stderr
    assert asked == []
