"""Further disks of a machine, user data for cloud-init, and the ports that the host reaches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from particle_os.errors import UsageError
from particle_os.system.deadline import Deadline
from particle_os.system.regular_file import read_regular
from particle_os.vm.argv import Disk, Forward, ImageFormat, StandaloneImage
from particle_os.vm.devices import seed
from particle_os.vm.overlay import make_overlay

SEED = "seed.img"


@dataclass(frozen=True)
class Extras:
    """The disks with their formats, the user data, and the ports that the host reaches.

    No disk is changed.
    """

    disks: Sequence[tuple[Path, ImageFormat]] = ()
    user_data: bytes | None = None
    forwards: tuple[Forward, ...] = ()

    def make_disks(self, directory: Path, deadline: Deadline) -> Iterator[Disk]:
        """Makes an overlay for each disk, and the disk with the user data, in `directory`."""
        for number, (path, image_format) in enumerate(self.disks, start=1):
            overlay = directory / f"disk{number}.qcow2"
            make_overlay(overlay, path, image_format, deadline)
            below = StandaloneImage(path.resolve(), image_format)
            yield Disk(overlay, "qcow2", f"disk{number}", backing=(), image=below)
        if self.user_data is not None:
            yield seed_disk(self.user_data, directory / SEED)


NOTHING = Extras()


def read_user_data(path: Path) -> bytes:
    """Returns the content of a file of user data. Raises UsageError."""
    try:
        return read_regular(path, seed.LIMIT)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}", hint="Name a file of user data."
        ) from error


def seed_disk(user_data: bytes, path: Path) -> Disk:
    """Writes the disk with the user data to `path`."""
    path.write_bytes(seed.no_cloud(user_data))
    return Disk(path, "raw", "seed", read_only=True)
