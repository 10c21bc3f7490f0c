"""The keys of a farm: a directory with a CA, a certificate and a private key, all in PEM.

Scheduler, workers and clients show each other a certificate of the CA (mutual TLS). Who has the
keys is a member, and can run programs on each worker and in each client: Dask unpickles what
members send to each other.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from particle_os.errors import UsageError


@dataclass(frozen=True)
class FarmKeys:
    """The paths of the keys in a directory."""

    directory: Path

    @property
    def ca(self) -> Path:
        """The certificate of the CA."""
        return self.directory / "ca.pem"

    @property
    def certificate(self) -> Path:
        return self.directory / "cert.pem"

    @property
    def private(self) -> Path:
        return self.directory / "key.pem"

    @property
    def files(self) -> tuple[Path, Path, Path]:
        return self.ca, self.certificate, self.private

    def check(self) -> None:
        """Raises UsageError unless all files can be read."""
        for path in self.files:
            if not os.access(path, os.R_OK):
                raise UsageError(
                    f"the keys of the farm are missing: {path}",
                    hint="Copy the directory from another machine of the farm, and name it with "
                    "--farm-keys; for a new farm, 'particle-os farm keys' makes one.",
                )


def usual_directory() -> Path:
    """The directory for the keys unless the user names one."""
    return platformdirs.user_config_path("particle-os") / "farm"
