"""The container image: made as `make image` makes it, and used as an unknown user of the host.

No registry can be reached here: its base is a system that mmdebstrap makes. buildah keeps its files
in a directory of the test, and its isolation is chroot, as in a container without privilege.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ..runners.machines import Machines
from .conftest import TOP
from .fresh_root import USER

pytestmark = [
    pytest.mark.weekly,
    pytest.mark.skipif(os.getuid() != 0, reason="only root makes a system in a directory"),
]
BASE, IMAGE = "localhost/particle-os-base", "localhost/particle-os"
MOST_BYTES = 900 * 10**6
# A user that the image does not know.
UID = 12345
SECONDS = 3600
STORAGE = '[storage]\ndriver = "vfs"\ngraphroot = "{0}/storage"\nrunroot = "{0}/run"\n'


@dataclass(frozen=True)
class Buildah:
    """buildah with storage in a directory."""

    directory: Path

    def environment(self) -> dict[str, str]:
        configuration = self.directory / "storage.conf"
        configuration.write_text(STORAGE.format(self.directory))
        return {
            **os.environ, "BUILDAH_ISOLATION": "chroot", "TMPDIR": str(self.directory),
            "CONTAINERS_STORAGE_CONF": str(configuration),
        }  # fmt: skip

    def run(self, *argv: str | Path) -> str:
        """Runs a command with this storage; returns what it prints, and expects success."""
        done = subprocess.run(
            argv, check=False, capture_output=True, text=True, env=self.environment(),
            timeout=SECONDS,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
        return done.stdout.strip()


def host_directories() -> list[tuple[str, int]]:
    """The directories of root's containers on the host, with their modes."""
    places = (Path("/run/containers"), Path("/var/lib/containers"))
    return [(str(place), place.stat().st_mode) for place in places if place.exists()]


@pytest.fixture(scope="module")
def buildah(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buildah]:
    """The storage, with the image of this tree."""
    assert shutil.which("buildah"), "`sh host/setup.sh test-packages` installs it"
    directory = tmp_path_factory.mktemp("buildah")
    directory.chmod(0o755)
    before = host_directories()
    made = Buildah(directory)
    root = Machines.make(directory / "systems").root("base")
    # The image debian:trixie has no ordinary user.
    root.run("userdel", "--remove", USER)
    container = made.run("buildah", "from", "scratch")
    made.run("buildah", "add", "--quiet", container, root.directory, "/")
    made.run("buildah", "commit", "--quiet", "--rm", container, BASE)
    # The tree as git has it: `make deb` in the container builds from a copy of it.
    made.run(
        "make", "-C", root.directory / "srv/particle-os", "image", f"BASE={BASE}",
        "PROGRAM=buildah",
    )  # fmt: skip
    yield made
    shutil.rmtree(directory, ignore_errors=True)
    assert host_directories() == before


def test_the_image_is_small_and_runs_as_an_ordinary_user(buildah: Buildah) -> None:
    container = buildah.run("buildah", "from", "--pull-never", IMAGE)
    place = Path(buildah.run("buildah", "mount", container))
    # du(1) counts a file with several names once.
    size = int(buildah.run("du", "--summarize", "--bytes", place).split()[0])
    configuration = json.loads(buildah.run("buildah", "inspect", container))["OCIv1"]["config"]
    buildah.run("buildah", "rm", container)
    assert size < MOST_BYTES
    assert configuration["User"] == "builder"
    assert configuration["Entrypoint"] == ["particle-os"]


def test_an_unknown_user_builds_and_boots_an_image_with_a_mounted_cache(buildah: Buildah) -> None:
    work, cache = buildah.directory / "work", buildah.directory / "cache"
    for place in (work, cache):
        place.mkdir()
        os.chown(place, UID, UID)
    shutil.copy(TOP / "recipes/minimal-test.yml", work / "web.yml")
    container = buildah.run("buildah", "from", "--pull-never", IMAGE)
    mounts = ("--volume", f"{work}:/work", "--volume", f"{cache}:/cache")
    argv = ("buildah", "run", f"--user={UID}:{UID}", *mounts, container, "--", "particle-os")
    buildah.run(*argv, "build", "web.yml", "--output", "out", "--progress", "plain")
    buildah.run("buildah", "rm", container)
    result = json.loads((work / "out/minimal-test.result.json").read_text())
    assert result["status"] == "passed"
    assert (work / "out/minimal-test.qcow2").stat().st_uid == UID
    assert list((cache / "particle-os/helpers").iterdir())
