"""A small signed archive of Debian packages, served on loopback for as long as a test lasts."""

from __future__ import annotations

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


def build_deb(directory: Path, name: str, version: str = "1.0", depends: str = "") -> Path:
    """A package with the file /usr/share/NAME/version, which holds the version."""
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
    """What is served: a directory, its address on loopback, and the key that signs it."""

    directory: Path
    port: int
    key: str
    asked: list[str] = field(default_factory=list)


@contextmanager
def served(directory: Path, *packages: tuple[str, str, str]) -> Iterator[Archive]:
    """An archive with one suite of packages, each by name, version and dependencies."""
    pool = directory / "pool"
    index = directory / f"dists/{SUITE}/main/binary-amd64"
    pool.mkdir(parents=True)
    index.mkdir(parents=True)
    for name, version, depends in packages:
        build_deb(pool, name, version, depends)
    (index / "Packages").write_text(_said(["apt-ftparchive", "packages", "pool"], directory))
    release = [f"-oAPT::FTPArchive::Release::Suite={SUITE}"]
    release += ["-oAPT::FTPArchive::Release::Components=main"]
    release += ["-oAPT::FTPArchive::Release::Architectures=amd64"]
    text = _said(["apt-ftparchive", *release, "release", f"dists/{SUITE}"], directory)
    (directory / f"dists/{SUITE}/Release").write_text(text)
    key = _sign(directory / f"dists/{SUITE}", directory.parent / "gnupg")
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            asked.append(self.path)

    handler = functools.partial(Handler, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", free_port()), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield Archive(directory, server.server_port, key, asked)
        server.shutdown()


def _said(argv: list[str], directory: Path) -> str:
    done = subprocess.run(argv, cwd=directory, check=True, capture_output=True, text=True)
    return done.stdout


def _sign(suite: Path, home: Path) -> str:
    """Signs the Release file with a fresh key; returns the key, armored."""
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--passphrase", ""]
    try:
        _said([*gpg, "--quick-generate-key", "archive@example.org", "ed25519", "sign"], suite)
        _said([*gpg, "--clearsign", "--output", "InRelease", "Release"], suite)
        return _said([*gpg, "--armor", "--export"], suite)
    finally:
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "gpg-agent"], check=False)
