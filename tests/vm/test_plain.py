"""An image that is built with all shortcuts equals the image that is built without them."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from .conftest import TOP, Account
from .mutations import debugfs, partition

REFERENCE = TOP / "tests/bench/reference.yml"
DATE = "1790000000"
Listing = dict[str, dict[str, object]]


def sorted_paragraphs(text: bytes) -> bytes:
    return b"\n\n".join(sorted(paragraph.strip() for paragraph in text.split(b"\n\n")))


def sorted_lines(text: bytes) -> bytes:
    return b"\n".join(sorted(text.splitlines()))


# The two builds write these files in different orders, which mean nothing to dpkg and apt. dpkg
# does not sort `status`: a loose package follows the packages before it. apt appends to its states
# in the order of its work, and dpkg reads all triggers before it uses one.
NORMALISED: dict[str, Callable[[bytes], bytes]] = {
    "var/lib/dpkg/status": sorted_paragraphs,
    "var/lib/apt/extended_states": sorted_paragraphs,
    "var/lib/dpkg/triggers/File": sorted_lines,
}


def extended_attributes(image: Path, names: list[str]) -> dict[str, str]:
    """The extended attributes of each file that has some, by name."""
    told = debugfs(image, *(f'ea_list "/{name}"' for name in names), write=False)
    parts = re.split(r'^debugfs: +ea_list "/(.*)"\n', told, flags=re.MULTILINE)[1:]
    return {name: text for name, text in zip(parts[::2], parts[1::2], strict=True) if text.strip()}


def listing(image: Path, where: Path) -> Listing:
    """Mode, owner, time, content and extended attributes of each file of the image's root."""
    where.mkdir()
    device = f"{image}?offset={partition(image, -1)}"
    argv = ["/sbin/debugfs", "-R", f"rdump / {where}", device]
    subprocess.run(argv, check=True, capture_output=True, timeout=300)
    found: Listing = {}
    for directory, directories, files in os.walk(where):
        for name in (*directories, *files):
            path = Path(directory) / name
            status, relative = path.lstat(), str(path.relative_to(where))
            about: dict[str, object] = {"mode": oct(status.st_mode)}
            about |= {"owner": (status.st_uid, status.st_gid), "time": int(status.st_mtime)}
            if stat.S_ISLNK(status.st_mode):
                # debugfs writes links without their times.
                about |= {"time": None, "link": path.readlink()}
            elif stat.S_ISDIR(status.st_mode):
                # dpkg renames files in a directory, which changes its time. tar sets the time that
                # the directory has in the package.
                about |= {"time": None}
            elif stat.S_ISREG(status.st_mode):
                data = NORMALISED.get(relative, bytes)(path.read_bytes())
                about |= {"content": sha256(data).hexdigest()}
            found[relative] = about
    attributes = extended_attributes(image, sorted(found))
    return {name: {**about, "xattrs": attributes.get(name)} for name, about in found.items()}


@pytest.fixture(scope="module")
def images(account: Account) -> dict[str, Path]:
    """The reference recipe, built by the ordinary user with and without shortcuts."""
    recipe = account.write(account.directory / "reference.yml", REFERENCE.read_text())
    made = {}
    for way in ("fast", "plain"):
        output = account.make_directory(f"reference-{way}")
        options = ["--plain"] if way == "plain" else []
        outcome = account.run(
            "build", recipe, "--output", output, "--source-date", DATE, "--no-boot-test",
            "--json", *options,
        )  # fmt: skip
        assert outcome.status == 0, outcome.stderr
        assert outcome.json()["plain"] == (way == "plain")
        assert not any("which takes longer: " in note for note in outcome.json()["notes"])
        made[way] = output / "reference.raw"
    return made


def test_the_image_is_the_same_without_shortcuts(images: dict[str, Path], tmp_path: Path) -> None:
    fast, plain = (listing(images[way], tmp_path / way) for way in ("fast", "plain"))
    assert len(fast) > 5000
    differences = {
        name: {
            what: (one.get(what), other.get(what))
            for what in sorted({*one, *other})
            if one.get(what) != other.get(what)
        }
        for name in sorted({*fast, *plain})
        if (one := fast.get(name, {})) != (other := plain.get(name, {}))
    }
    assert differences == {}
