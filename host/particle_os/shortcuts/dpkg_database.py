"""Makes dpkg's database of unpacked packages from the package files, without running dpkg.

Under emulation, tar extracts a package many times faster than dpkg. With this database dpkg accepts
the extracted files as unpacked, and configures the packages. dpkg makes missing records of triggers
itself. Sources: process_archive in dpkg's src/main/unpack.c; deb-control(5), deb-conffiles(5).
"""

from __future__ import annotations

import io
import json
import re
import tarfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import md5
from pathlib import Path
from typing import BinaryIO

from particle_agent.apt.dpkg import DPKG, STATUS, find_member
from particle_agent.contract.decode import encode
from particle_agent.contract.packages import Loose, merged
from particle_agent.errors import EnvironmentFailed

from particle_os.system import tar_archive
from particle_os.system.deadline import Deadline

SCRIPTS = ("config", "preinst", "postinst", "prerm", "postrm")
# dpkg's placeholder for the hash of a conffile that it has not configured.
NO_HASH = "newconffile"
REMOVE = "remove-on-upgrade "
REMOVED = re.compile(rf"(?m)^ (/.*) {NO_HASH} remove-on-upgrade$")
# Files in these directories have an effect before their package is configured.
AT_ONCE = ("/etc/apt/", "/etc/dpkg/")
FORMAT = "1\n"
# The end of the seconds that a tar header without extensions holds.
LATEST = 1 << 33
# The errors of tarfile, also for a link that leads to itself, and of our own reading.
MALFORMED = (tarfile.TarError, LookupError, ValueError, RecursionError)
SECONDS = 300.0


class Unusual(Exception):
    """Only dpkg can unpack these packages; the text gives the reason."""


@dataclass(frozen=True)
class _File:
    content: bytes
    mode: int
    mtime: float


@dataclass(frozen=True)
class _Package:
    """The entries of one package in dpkg's database."""

    stanza: str
    # The name of the files in dpkg's `info` directory, without extension.
    name: str
    info: dict[str, _File]
    # Directories, keyed by their names in the list, with owner, group and mode; then other files.
    directories: dict[str, tuple[str | int, ...]]
    files: list[str]


def write(debs: Sequence[Path], place: Path) -> None:
    """Writes a tar archive with the database to `place`.

    `debs` are decompressed packages in the order in which dpkg would unpack them. Raises Unusual if
    the result of tar could differ from the result of dpkg.
    """
    packages = _read_all(debs)
    _check_overlaps(packages)
    with tarfile.open(place, "w:", format=tarfile.PAX_FORMAT) as archive:
        status = "".join(f"{package.stanza}\n" for package in packages)
        _add(archive, STATUS, _made(status))
        _add(archive, f"{DPKG}/info/format", _made(FORMAT))
        for package in packages:
            _add_info(archive, package)


def write_loose(debs: Sequence[Path], directory: Path) -> None:
    """Writes two files to `directory` for each loose package, named after its package file.

    NAME.tar contains its files in dpkg's database, NAME.json is `Loose` in JSON. A package is loose
    if unpacking it only writes files: it has no preinst script, it watches no trigger, it
    configures neither apt nor dpkg, and no other package contains its files, or its directories
    with another owner or mode. `debs` are decompressed. Raises Unusual if a package is malformed.
    """
    packages = list(zip(debs, _read_all(debs), strict=True))
    owners = Counter(merged(path) for _, package in packages for path in package.files)
    kinds: dict[str, set[tuple[str | int, ...]]] = {}
    for _, package in packages:
        for path, kind in package.directories.items():
            kinds.setdefault(merged(path), set()).add(kind)
    for deb, package in packages:
        triggers = package.info.get("triggers")
        if "preinst" in package.info or (triggers and b"interest" in triggers.content):
            continue
        if any(path.startswith(AT_ONCE) for path in package.files):
            continue
        places = [merged(path) for path in package.files]
        if any(owners[place] > 1 or place in kinds for place in places):
            continue
        places = [merged(path) for path in package.directories]
        if any(len(kinds[place]) > 1 or place in owners for place in places):
            continue
        with tarfile.open(directory / f"{deb.name}.tar", "w:") as archive:
            _add_info(archive, package)
        loose = Loose(
            stanza=package.stanza,
            directories=tuple(package.directories),
            # dpkg moves a file away if a package lists it as remove-on-upgrade.
            files=(*package.files, *REMOVED.findall(package.stanza)),
        )
        (directory / f"{deb.name}.json").write_text(json.dumps(encode(loose)))


def _add_info(archive: tarfile.TarFile, package: _Package) -> None:
    for extension, file in package.info.items():
        _add(archive, f"{DPKG}/info/{package.name}.{extension}", file)


def _made(text: str) -> _File:
    """A file that dpkg writes. dpkg uses the time of the installation as its time."""
    return _File(text.encode("utf-8", "surrogateescape"), 0o644, int(time.time()))


def _add(archive: tarfile.TarFile, path: str, file: _File) -> None:
    member = tarfile.TarInfo(f".{path}")
    member.size, member.mode, member.mtime = len(file.content), file.mode, file.mtime
    archive.addfile(member, io.BytesIO(file.content))


def _check_overlaps(packages: Sequence[_Package]) -> None:
    """Raises Unusual if two packages contain a file: Replaces and the order decide who owns it."""
    owners: dict[str, str] = {}
    for package in packages:
        for path in package.files:
            if path in owners:
                raise Unusual(f"{owners[path]} and {package.name} both contain {path}")
            owners[path] = package.name


def _read_all(debs: Sequence[Path]) -> list[_Package]:
    """Reads packages. Raises Unusual, also for a package that is malformed."""
    try:
        return [_read(deb) for deb in debs]
    except (*MALFORMED, EnvironmentFailed) as error:
        raise Unusual(f"a package is malformed: {error}") from error


def _read(deb: Path) -> _Package:
    with deb.open("rb") as file:
        control = _control(file.read(find_member(file, b"control.tar")))
        conffiles = list(_conffiles(_text(control["conffiles"]))) if "conffiles" in control else []
        end = find_member(file, b"data.tar") + file.tell()
        _check(file, end - file.tell(), deb.name)
        with tarfile.open(fileobj=file, mode="r:") as data:
            listed = _list(data, {path for path, _ in conffiles}, "md5sums" not in control)
            file.seek(data.offset)
        if any(file.read(end - file.tell())):
            raise Unusual(f"{deb.name} contains data after the end of its archive")
    text = _text(control.pop("control"))
    control["list"] = _made("".join(f"{path}\n" for path in listed.names))
    if "md5sums" not in control:
        sums = (f"{digest}  {path[1:]}\n" for path, digest in listed.hashes.items())
        control["md5sums"] = _made("".join(sums))
    return _Package(
        _stanza(text, conffiles, listed.hashes),
        _info_name(text),
        control,
        listed.directories,
        listed.files,
    )


def _check(stream: BinaryIO, size: int, what: str) -> None:
    try:
        tar_archive.check(stream, size, Deadline.after(SECONDS, f"reading {what}"))
    except tar_archive.Excessive as error:
        raise Unusual(f"{what}: {error}") from error


def _control(archive: bytes) -> dict[str, _File]:
    """The files of a control archive that dpkg copies to its database, keyed by name."""
    found = {}
    _check(io.BytesIO(archive), len(archive), "the control archive of a package")
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as tar:
        for member in tar:
            name = _path(member)[1:]
            if "." in name:
                continue
            if not member.isreg():
                raise Unusual(f"the control file {name} of a package is not a regular file")
            # An extended header can give any number, and also "nan".
            if not 0 <= member.mtime < LATEST:
                raise Unusual(f"the control file {name} of a package has no date")
            mode = member.mode & 0o7777
            # dpkg makes the scripts executable.
            if name in SCRIPTS and mode & 0o555 != 0o555:
                mode = 0o755
            found[name] = _File(_content(tar, member), mode, member.mtime)
    return found


def _info_name(text: str) -> str:
    """The name of the `info` files; with the architecture if several can be installed."""
    found = re.findall(r"(?m)^(Package|Architecture|Multi-Arch): *(\S+)", text)
    fields: dict[str, str] = dict(found)
    same = fields.get("Multi-Arch") == "same"
    return fields["Package"] + (f":{fields['Architecture']}" if same else "")


def _conffiles(text: str) -> Iterator[tuple[str, bool]]:
    """Yields the path of each conffile, and whether the package removes it on upgrade."""
    for line in filter(None, map(str.rstrip, text.splitlines())):
        path = line.removeprefix(REMOVE)
        if not path.startswith("/"):
            raise Unusual(f"a list of conffiles contains the line '{line}'")
        yield path, path != line


@dataclass(frozen=True)
class _Listed:
    """The names in a data archive as dpkg lists them, and the MD5 sums that dpkg records."""

    names: list[str]
    directories: dict[str, tuple[str | int, ...]]
    # All members except directories.
    files: list[str]
    hashes: dict[str, str]


def _list(data: tarfile.TarFile, conffiles: set[str], all_hashes: bool) -> _Listed:
    listed = _Listed([], {}, [], {})
    for member in data:
        path = _path(member)
        listed.names.append(path)
        if member.isdir():
            owner = (member.uname, member.gname, member.uid, member.gid)
            listed.directories[path] = (*owner, member.mode)
        else:
            listed.files.append(path)
        if path in conffiles and not member.isreg():
            raise Unusual(f"the conffile {path} is not a regular file")
        if path in conffiles or (all_hashes and (member.isreg() or member.islnk())):
            digest = md5(_content(data, member), usedforsecurity=False)
            listed.hashes[path] = digest.hexdigest()
    return listed


def _stanza(text: str, conffiles: Sequence[tuple[str, bool]], hashes: Mapping[str, str]) -> str:
    """The package's paragraph of the status file."""
    text = f"{text.strip()}\nStatus: install ok unpacked\n"
    if conffiles:
        text += "Conffiles:\n"
    for path, removed in conffiles:
        digest = NO_HASH if removed else hashes.get(path, NO_HASH)
        text += f" {path} {digest}{' remove-on-upgrade' if removed else ''}\n"
    return text


def _path(member: tarfile.TarInfo) -> str:
    """A member's name in dpkg's form: absolute, without a final slash; the root is "/."."""
    return "/" + (member.name.removeprefix("./").strip("/") or ".")


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    if file is None:
        raise Unusual(f"{member.name} in a package is a link to what is no file")
    return file.read()


def _text(file: _File) -> str:
    return file.content.decode("utf-8", "surrogateescape")
