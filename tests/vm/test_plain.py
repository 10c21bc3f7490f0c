"""An image that is built with all shortcuts equals the image that is built without them."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest

from .breaking import debugfs, partition
from .conftest import TOP, Account

# The build without shortcuts takes several times as long as the other.
pytestmark = pytest.mark.weekly
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


@dataclass(frozen=True)
class Build:
    """The output of a build, and the times of the saved states before and after it."""

    output: Path
    states_before: dict[str, int]
    states_after: dict[str, int]

    @property
    def image(self) -> Path:
        return self.output / "reference.raw"

    def text(self, ending: str) -> str:
        return (self.output / f"reference.{ending}").read_text(errors="replace")

    @property
    def apt_parts(self) -> set[str]:
        """The programs that the agent itself ran in the stage `apt`, and the steps of dpkg."""
        return set(json.loads(self.text("result.json"))["stages"][0]["parts"])


def states(account: Account) -> dict[str, int]:
    """The saved states, with their times: a start from a state updates its time."""
    found = (account.cache / "warm").glob("*.state")
    return {path.name: path.stat().st_mtime_ns for path in found}


@pytest.fixture(scope="module")
def builds(account: Account) -> dict[str, Build]:
    """The reference recipe, built by the ordinary user with and without shortcuts."""
    recipe = account.write(account.directory / "reference.yml", REFERENCE.read_text())
    made = {}
    for way in ("fast", "plain"):
        output = account.make_directory(f"reference-{way}")
        options = ["--plain"] if way == "plain" else []
        before = states(account)
        outcome = account.run(
            "build", recipe, "--output", output, "--source-date", DATE, "--no-boot-test",
            "--json", *options,
        )  # fmt: skip
        assert outcome.status == 0, outcome.stderr
        assert outcome.json()["plain"] == (way == "plain")
        assert not any("which takes longer: " in note for note in outcome.json()["notes"])
        made[way] = Build(output, before, states(account))
    return made


def test_only_the_fast_build_unpacks_packages_at_once(builds: dict[str, Build]) -> None:
    assert re.search(r"Unpacking \d+ packages at once", builds["fast"].text("log"))
    assert "packages at once" not in builds["plain"].text("log")


def test_only_the_fast_build_does_the_work_of_stand_ins(builds: dict[str, Build]) -> None:
    """Without stand-ins, maintainer scripts run these programs, and the agent does not."""
    requested = {"depmod", "systemd-hwdb"}
    assert requested <= builds["fast"].apt_parts
    assert requested.isdisjoint(builds["plain"].apt_parts)


def test_the_helper_vm_of_the_plain_build_boots(builds: dict[str, Build]) -> None:
    fast, plain = builds["fast"], builds["plain"]
    assert fast.states_after
    assert fast.states_after != fast.states_before
    assert plain.states_after == plain.states_before
    assert "PARTICLE-OS-READY" in plain.text("console.log")


def test_the_image_is_the_same_without_shortcuts(builds: dict[str, Build], tmp_path: Path) -> None:
    fast, plain = (listing(builds[way].image, tmp_path / way) for way in ("fast", "plain"))
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
