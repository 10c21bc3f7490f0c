"""A good update: the parent's disk, the repository with both versions, and the key that signs."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

REF = "debian/13/amd64/edge"
BUILD_SECONDS = 3600
PACKAGES = (
    "dbus gpg grub-efi-amd64-bin grub-pc-bin grub2-common linux-image-cloud-amd64 ostree-boot "
    "systemd-sysv"
).split()


@dataclass(frozen=True)
class Update:
    """The disk of the parent, an unpacked repository, and a directory of gpg with its key."""

    parent: Path
    repository: Path
    home: Path

    @property
    def disk(self) -> Path:
        """The file system with the repository, which the machine under test updates from."""
        return self.parent.with_name("update.raw")

    def ostree(self, verb: str, *arguments: str | Path) -> str:
        """Runs a command of ostree(1) on the repository; returns its output."""
        argv = ["ostree", verb, f"--repo={self.repository}", *arguments]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()

    @property
    def commit(self) -> str:
        """The checksum of the new version, which the only branch names."""
        return self.ostree("rev-parse", self.ostree("refs"))

    def object(self, checksum: str, kind: str) -> Path:
        """The file of an object."""
        return self.repository / "objects" / checksum[:2] / f"{checksum[2:]}.{kind}"

    def sign(self, home: Path | None = None) -> None:
        """Signs the newest commit, with another key's directory if one is given."""
        home = home or self.home
        self.ostree("gpg-sign", f"--gpg-homedir={home}", self.commit, fingerprint(home))
        self.ostree("summary", "--update")

    def add(self, files: Mapping[str, str], links: Mapping[str, str] | None = None) -> None:
        """Commits the new version with more files, as root's, and signs it.

        A program is a file whose text begins with '#!'.
        """
        place = self.repository.with_name("more.tar")
        with tarfile.open(place, "w") as tar:
            for path, text in files.items():
                found = tarfile.TarInfo(path.lstrip("/"))
                found.size = len(text.encode())
                found.mode = 0o755 if text.startswith("#!") else 0o644
                content = place.with_name("content")
                content.write_text(text)
                with content.open("rb") as stream:
                    tar.addfile(found, stream)
            for path, target in (links or {}).items():
                found = tarfile.TarInfo(path.lstrip("/"))
                found.type, found.linkname = tarfile.SYMTYPE, target
                tar.addfile(found)
        old = self.commit
        trees = [f"--tree=ref={old}", f"--tree=tar={place}", "--tar-autocreate-parents"]
        words = [f"--branch={REF}", f"--parent={old}", "--bootable"]
        words.append("--add-metadata-string=version=broken")
        self.ostree("commit", *words, *trees)
        self.sign()

    def finish(self) -> None:
        """Makes the file system of the repository as it is now."""
        size = 2 * sum(path.stat().st_size for path in self.repository.rglob("*")) + (256 << 20)
        self.disk.unlink(missing_ok=True)
        argv = ["/sbin/mke2fs", "-q", "-t", "ext4", "-N", "100000", "-d", self.repository]
        subprocess.run([*argv, self.disk, f"{size >> 10}k"], check=True)

    def copied(self, directory: Path) -> Update:
        """A copy that a mutation may change."""
        directory.mkdir()
        found = Update(directory / "parent.raw", directory / "repository", self.home)
        for argv in (
            ["cp", "--sparse=always", self.parent, found.parent],
            ["cp", "-r", self.repository, found.repository],
        ):
            subprocess.run(argv, check=True)
        return found


def make_key(home: Path) -> Path:
    """Makes a directory of gpg with a new key."""
    home.mkdir(mode=0o700, parents=True)
    words = [
        "--quick-gen-key",
        f"{home.name} <{home.name}@example.org>",
        "ed25519",
        "sign",
        "never",
    ]
    gpg(home, "--passphrase", "", *words)
    return home


def gpg(home: Path, *words: str) -> str:
    """Runs gpg(1); returns its output."""
    argv = ["gpg", "--homedir", home, "--batch", "--quiet", *words]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def fingerprint(home: Path) -> str:
    """The fingerprint of the key."""
    listed = gpg(home, "--list-secret-keys", "--with-colons")
    return next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr"))


def build(program: Sequence[str], directory: Path) -> Update:
    """Builds two versions, and returns the update from the first one to the second."""
    home = make_key(directory / "key")
    (directory / "secret.gpg").write_text(gpg(home, "--armor", "--export-secret-keys"))
    for version in ("1", "2"):
        commit = {
            "type": "ostree",
            "ref": REF,
            "version": version,
            "secrets": [{"name": "signing-key", "file": "secret.gpg"}],
            "sign": {"gpg-secret": "signing-key"},
            "remote": {"url": "https://updates.example.org/edge"},
        }
        stages = [{"type": "apt", "packages": PACKAGES}, commit]
        if version == "1":
            stages.append({"type": "qemu", "boot-loader": "grub"})
        else:
            commit["parent"] = "edge.ostree.tar"
        name = "edge" if version == "1" else "next"
        recipe = directory / f"{name}.yml"
        recipe.write_text(json.dumps({"name": name, "stages": stages}))
        argv = [*program, "build", recipe, "--output", directory, "--no-boot-test"]
        subprocess.run(argv, check=True, timeout=BUILD_SECONDS)
    return unpacked(directory / "edge.raw", directory / "next.ostree.tar", home)


def unpacked(parent: Path, archive: Path, home: Path) -> Update:
    """The update from a disk to the version in an archive."""
    place = archive.with_name("repository")
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    subprocess.run(["tar", "-xf", archive, "-C", place], check=True)
    return Update(parent, place, home)
