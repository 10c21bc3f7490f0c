"""A small signed archive of Debian packages, served on loopback for one test."""

from __future__ import annotations

import base64
import functools
import http.server
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from .acng import free_port

SUITE = "test"
# A package: name, version, dependencies.
Package = tuple[str, str, str]
# apt-ftparchive writes Valid-Until only with ValidTime; its own text then stands there.
EXPIRED = {
    "Date": "Thu, 02 Jan 2020 03:04:05 UTC",
    "ValidTime": "604800",
    "Valid-Until": "Thu, 09 Jan 2020 03:04:05 UTC",
}


def build_deb(directory: Path, name: str, version: str = "1.0", depends: str = "") -> Path:
    """Builds a package whose file /usr/share/NAME/version holds the version."""
    tree = directory / f"{name}-{version}-tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "usr/share" / name).mkdir(parents=True)
    (tree / "usr/share" / name / "version").write_text(f"{version}\n")
    (tree / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: x <x@example.org>\n"
        + (f"Depends: {depends}\n" if depends else "")
        + "Description: a test\n"
    )
    deb = directory / f"{name}_{version}_all.deb"
    argv = ["dpkg-deb", "--root-owner-group", "--build", tree, deb]
    subprocess.run(argv, check=True, capture_output=True)
    return deb


@dataclass
class Archive:
    """A served directory: its port on loopback, its signing key, and the requested paths."""

    directory: Path
    port: int
    key: str
    asked: list[str] = field(default_factory=list)

    @contextmanager
    def at(self, address: str, port: int, login: str | None = None) -> Iterator[None]:
        """Serves the archive on `address` and `port`, to the `login` USER:PASSWORD or to all.

        Raises OSError.
        """
        asked = self.asked
        wanted = login and f"Basic {base64.b64encode(login.encode()).decode()}"

        class Handler(http.server.SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                if wanted in (None, self.headers.get("Authorization")):
                    super().do_GET()
                    return
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="archive"')
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                asked.append(self.path)

        handler = functools.partial(Handler, directory=str(self.directory))
        with http.server.ThreadingHTTPServer((address, port), handler) as server:
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
            yield
            server.shutdown()

    def publish(
        self, suite: str, *packages: Package, below: str = "", expired: bool = False
    ) -> None:
        """Adds a suite in the directory `below`; the indexes of an `expired` one are years old."""
        root = self.directory / below
        place = root / f"dists/{suite}"
        index = place / "main/binary-amd64"
        (root / "pool").mkdir(parents=True, exist_ok=True)
        index.mkdir(parents=True)
        pool = f"pool/{suite}"
        (root / pool).mkdir()
        for name, version, depends in packages:
            build_deb(root / pool, name, version, depends)
        (index / "Packages").write_text(_output(["apt-ftparchive", "packages", pool], root))
        fields = {"Suite": suite, "Components": "main", "Architectures": "amd64"}
        fields |= EXPIRED if expired else {}
        options = [f"-oAPT::FTPArchive::Release::{name}={text}" for name, text in fields.items()]
        text = _output(["apt-ftparchive", *options, "release", f"dists/{suite}"], root)
        (place / "Release").write_text(text)
        sign = [*_gpg(self.directory.parent / "gnupg"), "--clearsign"]
        _output([*sign, "--output", "InRelease", "Release"], place)


@contextmanager
def served(directory: Path, *packages: Package) -> Iterator[Archive]:
    """Serves an archive with one suite of packages."""
    with _signing(directory.parent / "gnupg") as key:
        archive = Archive(directory, free_port(), key)
        archive.publish(SUITE, *packages)
        with archive.at("127.0.0.1", archive.port):
            yield archive


@contextmanager
def _signing(home: Path) -> Iterator[str]:
    """Makes a signing key in a new GnuPG home; yields the armored public key."""
    home.mkdir(mode=0o700, parents=True)
    try:
        argv = [*_gpg(home), "--passphrase", "", "--quick-generate-key", "archive@example.org"]
        _output([*argv, "ed25519", "sign"], home)
        yield _output([*_gpg(home), "--armor", "--export"], home)
    finally:
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "gpg-agent"], check=False)


def _gpg(home: Path) -> list[str]:
    return ["gpg", "--homedir", str(home), "--batch", "--quiet"]


def _output(argv: list[str], directory: Path) -> str:
    done = subprocess.run(argv, cwd=directory, check=True, capture_output=True, text=True)
    return done.stdout
