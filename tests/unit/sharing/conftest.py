"""A shared cache for tests, with the keys of its writer."""

import os
import subprocess

import pytest
from particle_os.sharing.entry import CHUNK, SharedEntry
from particle_os.sharing.shared_cache import Unusable, of_options

from .keys import KEY


@pytest.fixture
def pair(tmp_path):
    """Makes a pair of keys as the documentation says; returns the two files."""

    def make(name="cache", kind="ed25519"):
        secret, public = tmp_path / f"{name}.key", tmp_path / f"{name}.pub"
        subprocess.run(["openssl", "genpkey", "-algorithm", kind, "-out", secret], check=True,
                       capture_output=True)  # fmt: skip
        subprocess.run(["openssl", "pkey", "-in", secret, "-pubout", "-out", public], check=True)
        return secret, public

    return make


@pytest.fixture
def world(tmp_path, pair):
    """A shared cache in `directory`, the notes of its reader, and a sparse file."""

    class World:
        directory = tmp_path / "shared"
        secret, public = pair()

        def __init__(self):
            self.notes = []
            self.file = tmp_path / "disk.qcow2"
            with self.file.open("wb") as file:
                file.truncate(5 * CHUNK + 123)
                for place in (0, CHUNK - 10, 3 * CHUNK + 4096):
                    file.seek(place)
                    file.write(os.urandom(5000))
            os.utime(self.file, ns=(10**18 + 1, 10**18 + 1))

        def cache(self, keys=None):
            url = f"file://{self.directory}"
            return of_options([url], keys or [self.public], url, self.secret)

        def entry(self, kind="checkpoint", key=KEY, **more):
            return SharedEntry(kind=kind, key=key, created=1.0, **more)

        def keep(self, kind="checkpoint", key=KEY, file=None, **more):
            files = {"disk.qcow2": file or self.file}
            self.cache().keep(self.entry(kind, key, **more), files)

        def fetch(self, kind="checkpoint", key=KEY, keys=None):
            """The fetched file; None with a note."""
            place = tmp_path / "fetched"
            place.mkdir(exist_ok=True)
            for old in place.iterdir():
                old.unlink()
            found = self.cache(keys).entry(kind, key, self.notes.append)
            if found is None:
                return None
            try:
                found.fetch(place)
            except Unusable as error:
                self.notes.append(str(error))
                return None
            return place / "disk.qcow2"

        @property
        def place(self):
            (found,) = self.directory.glob("entries/*/*.json")
            return found

        @property
        def blobs(self):
            return sorted(path for path in self.directory.glob("blobs/sha256/*/*"))

    return World()
