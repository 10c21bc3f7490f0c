"""Signatures of commits, made by gpg in the helper VM; libostree verifies no others on Debian."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from particle_agent.errors import CommandFailed, StageError
from particle_agent.target.target import SECRETS, Target

GPG_SECONDS = 60.0
# /run of the VM is in memory.
MEMORY = Path("/run")
# doc/DETAILS of GnuPG: the fingerprint of a key follows the line of the key.
PRIMARY = re.compile(r"^(?:sec|pub):.*\n(?:.+\n)*?fpr:::::::::([0-9A-F]{40}):", re.MULTILINE)


@dataclass(frozen=True)
class GpgKey:
    """A key of gpg; `fingerprint` has 40 hexadecimal digits, `public` is the key in binary form."""

    directory: Path
    fingerprint: str
    public: bytes

    @property
    def options(self) -> list[str]:
        """The options of ostree(1) for a signature with the key."""
        return [f"--gpg-sign={self.fingerprint}", f"--gpg-homedir={self.directory}"]


@contextmanager
def signing_key(target: Target, secret: str) -> Iterator[GpgKey]:
    """The key in the secret of this name, in memory of the VM until the context ends.

    Raises StageError for a secret that is not one secret key.
    """
    with tempfile.TemporaryDirectory(dir=MEMORY, prefix="gpg-") as name:
        directory = Path(name)
        try:
            _gpg(target, directory, "--import", str(target.path(f"{SECRETS}/{secret}")))
            listed = _gpg(target, directory, "--list-secret-keys", "--with-colons")
            found = PRIMARY.findall(listed)
            if len(found) != 1:
                raise StageError(
                    f"the secret '{secret}' has {len(found)} secret keys; it must have one",
                    hint="Export it with 'gpg --export-secret-keys FINGERPRINT'.",
                )
            exported = directory / "public.gpg"
            _gpg(target, directory, "--output", str(exported), "--export", found[0])
            yield GpgKey(directory, found[0], exported.read_bytes())
        finally:
            subprocess.run(
                ["gpgconf", "--homedir", name, "--kill", "all"],
                check=False,
                timeout=GPG_SECONDS,
                capture_output=True,
            )


@contextmanager
def public_key(target: Target, data: bytes) -> Iterator[GpgKey]:
    """The public key in the data, armored or binary, until the context ends.

    Raises StageError for data that are not one key.
    """
    with tempfile.TemporaryDirectory(dir=MEMORY, prefix="gpg-") as name:
        directory = Path(name)
        given = directory / "given"
        given.write_bytes(data)
        try:
            _gpg(target, directory, "--import", str(given))
        except StageError as error:
            raise StageError("gpg cannot read the public key", tail=error.tail) from error
        found = PRIMARY.findall(_gpg(target, directory, "--list-keys", "--with-colons"))
        if len(found) != 1:
            raise StageError(
                f"the file of the public key has {len(found)} keys; it must have one",
                hint="Export it with 'gpg --export FINGERPRINT'.",
            )
        exported = directory / "public.gpg"
        _gpg(target, directory, "--output", str(exported), "--export", found[0])
        yield GpgKey(directory, found[0], exported.read_bytes())


def _gpg(target: Target, directory: Path, *arguments: str) -> str:
    argv = ["gpg", "--homedir", str(directory), "--batch", "--no-tty", *arguments]
    try:
        return target.capture_outside(argv, timeout=GPG_SECONDS)
    except CommandFailed as error:
        raise StageError(
            "gpg cannot read the signing key",
            hint="The secret must be a secret key of gpg without a passphrase.",
            tail=error.tail,
        ) from error
