"""The contents of an image or a base, as data and as lines for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from particle_agent.contract.contents import CONTENTS
from particle_agent.contract.decode import encode
from particle_agent.contract.inspection import Deployment, Inspection, Partition

from particle_os.errors import Defective, printable
from particle_os.report.table import human_bytes
from particle_os.sandbox import verification
from particle_os.sandbox.verification import Verification

USUAL_SECTOR = 512
SEALED_WORDS = ", whose content is not read"
CHECKSUM_SHOWN = 12


@dataclass(frozen=True)
class InspectionReport:
    """The result of an inspection.

    `container` describes a container image or a commit (`Base.description`), and is empty for all
    else.
    `verification` is None unless the user asks for one.
    """

    found: Inspection
    container: Mapping[str, Any] = field(default_factory=dict)
    verification: Verification | None = None

    def data(self) -> dict[str, Any]:
        """The report as JSON shows it."""
        data: dict[str, Any] = encode(self.found)
        if self.container:
            data["commit" if "ref" in self.container else "container"] = dict(self.container)
        if self.verification is not None:
            data["verification"] = self.verification.model_dump()
        return data

    def lines(self, *, packages: bool = False) -> Iterator[str]:
        """One line for each thing that was found; with `packages`, for each package, too."""
        for word, text in self._pairs():
            yield f"{word:<12} {text}"
        if packages and self.found.system is not None:
            for package in self.found.system.packages:
                text = f"{package.name} {package.version} {package.architecture}"
                yield f"{'package':<12} {printable(text)}"

    def _pairs(self) -> Iterator[tuple[str, str]]:
        if "ref" in self.container:
            yield from _commit(self.container)
        elif self.container:
            yield from _container(self.container)
        yield from described(self.found)
        if self.verification is not None:
            yield from verification.lines(self.verification)
            if not self.verification.findings:
                yield "verified", "nothing is wrong with it"

    def error(self) -> Defective | None:
        """The error for an image in which the verification found errors."""
        if self.verification is None or not self.verification.errors:
            return None
        return verification.defective(self.verification, None)


def _commit(about: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    version = f", version {about['version']}" if about["version"] else ""
    yield "commit", printable(f"{about['checksum']} of {about['ref']}{version}")
    yield "signature", str(about["signature"])


def _container(about: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    count = f"{len(about['layers'])} layers"
    yield "container", f"{about['digest']}, {about['architecture']}, {count}"
    for layer in about["layers"]:
        yield "layer", f"{layer['digest']}, {human_bytes(layer['size'])}"
    for key, value in sorted(about["config"].items()):
        yield "config", printable(f"{key}: {json.dumps(value)}")


def _partition(part: Partition, table: str | None) -> str:
    words = [f"{part.number}:"] if table else []
    words.append(human_bytes(part.size))
    if part.name:
        words.append(f"'{part.name}'")
    if part.file_system is None:
        return " ".join([*words, "no file system that is known"])
    words += [part.file_system.kind, part.file_system.uuid]
    if part.file_system.used is not None:
        words.append(f"{human_bytes(part.file_system.used)} used")
    text = " ".join(filter(None, words))
    content = CONTENTS.get(part.file_system.kind)
    if content is None:
        return text
    return f"{text}: {content.words}{SEALED_WORDS if content.sealed else ''}"


def _deployment(found: Deployment) -> str:
    words = [f"version {found.version}:"] if found.version else []
    words += [found.checksum[:CHECKSUM_SHOWN], "of", found.origin or "no branch"]
    return " ".join([*words, *(["(the default)"] if found.default else [])])


def described(found: Inspection) -> Iterator[tuple[str, str]]:
    """The lines for an inspection: a word and its text, which is printable."""
    if found.size:
        table = found.table or "no partition table"
        if found.sector_size != USUAL_SECTOR:
            table += f", sectors of {found.sector_size} bytes"
        yield "disk", f"{human_bytes(found.size)}, {table}"
    for part in found.partitions:
        yield "partition" if found.table else "content", printable(_partition(part, found.table))
    if found.size:
        yield "boot loader", ", ".join(found.boot_loaders) or "none that is known"
    for deployment in found.deployments:
        yield "deployment", printable(_deployment(deployment))
    if found.system is None:
        yield "system", "none found"
        return
    release = {s.key: s.value for s in found.system.os_release}
    yield "system", printable(release.get("PRETTY_NAME", "unknown: there is no os-release"))
    if found.system.hostname:
        yield "host name", printable(found.system.hostname)
    yield "kernel", printable(", ".join(found.system.kernels)) or "none"
    yield "packages", str(len(found.system.packages))
    for account in found.system.accounts:
        password = {"set": "a password", "empty": "NO PASSWORD NEEDED", "locked": "password locked"}
        text = f"{account.name} ({account.uid}), {account.shell}, {password[account.password]}"
        yield "user", printable(text)
