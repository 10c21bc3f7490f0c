"""Unpacks many packages in one pass, with the result of dpkg, which unpacks them one by one.

dpkg starts four programs for each package that it unpacks, which is slow under emulation. If
unpacking only writes files, tar(1) writes the files of all packages in one pass, and this module
writes the entries of dpkg's database. dpkg then configures these packages, and unpacks the packages
whose scripts must run before (process_archive in dpkg's src/main/unpack.c). The host checks the
package files (dpkg_database.py); this module checks the target.
"""

from __future__ import annotations

import io
import json
import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from particle_agent.apt import dpkg, from_host
from particle_agent.apt.dpkg import DPKG, STATUS
from particle_agent.contract import packages
from particle_agent.contract.decode import decode
from particle_agent.contract.packages import FIELD, Loose, merged
from particle_agent.errors import CommandFailed, EnvironmentFailed
from particle_agent.target.command import TAR_RECORDS
from particle_agent.target.target import Target

# The root directory in dpkg's lists of files.
ROOT = "/."
CONFIGURATION = ("/etc/dpkg/dpkg.cfg", "/etc/dpkg/dpkg.cfg.d", "/root/.dpkg.cfg")
# The options that dpkg's configuration may contain. Others leave files out, or run programs.
HARMLESS = re.compile(r"\s*(#.*|no-debsig|log[ =].*|force-unsafe-io|force-conf[a-z]+|)\s*")
DPKG_OPTIONS = "DPkg::Options::"
FORMAT = "1\n"
EXTENDED_STATES = "/var/lib/apt/extended_states"


@contextmanager
def unpacked(target: Target, disk: str, wanted: Sequence[str]) -> Iterator[list[str] | None]:
    """Unpacks the loose packages of the host's disk, which is mounted at `disk`.

    `wanted` are the names for `apt-get install`. Yields the names that apt-get must get instead, or
    None when nothing was unpacked. Nothing is unpacked if apt may have interpreted a name of
    `wanted` as another package.
    """
    if target.plain or not _is_known_format(target):
        yield None
        return
    status = target.read_bytes(STATUS)
    known = {found["Package"] for found in _paragraphs(status.decode("utf-8", "replace"))}
    index = _paragraphs(target.read(f"{disk}/{packages.INDEX}"))
    names = {re.split("[:=/]", name)[0] for name in wanted}
    chosen = {}
    if names <= known | {package["Package"] for package in index}:
        surroundings = _Surroundings(target)
        chosen = {
            deb: loose
            for deb, loose in _loose(target, disk)
            if loose.package not in known and surroundings.permit(loose)
        }
    if not chosen:
        yield None
        return
    with target.timings.part(f"Unpacking {len(chosen)} packages at once"):
        target.reporter.output(f"Unpacking {len(chosen)} packages at once ...")
        _extract(target, disk, chosen)
        surroundings.settle(chosen.values())
        stanzas = "".join(f"{loose.stanza}\n" for loose in chosen.values())
        # dpkg needs an empty line between two paragraphs. Paragraphs need not be UTF-8.
        both = status.rstrip() + b"\n\n" + stanzas.encode("utf-8", "surrogateescape")
        target.write_from(io.BytesIO(both.lstrip()), STATUS)
        for trigger in surroundings.triggered(chosen.values()):
            target.chroot(["dpkg-trigger", "--no-await", trigger])
    # apt refuses to work with packages that lack dependencies, unless it gets these, too.
    yield [*wanted, *(f"{p['Package']}:{p['Architecture']}={p['Version']}" for p in index)]
    _note_automatic(target, [package for package in index if package["Package"] not in names])


def _is_known_format(target: Target) -> bool:
    """Whether dpkg's database has the format that this module writes."""
    place = f"{DPKG}/info/format"
    return not target.exists(place) or target.read(place) == FORMAT


def _paragraphs(text: str) -> list[dict[str, str]]:
    """The fields of each paragraph of a file in dpkg's format. Only fields of one line are read."""
    paragraphs = (dict(FIELD.findall(paragraph)) for paragraph in text.split("\n\n"))
    return [fields for fields in paragraphs if "Package" in fields]


def _loose(target: Target, disk: str) -> Iterator[tuple[str, Loose]]:
    """The names of the loose packages' files, and the host's descriptions of them."""
    place = target.path(f"{disk}/{packages.LOOSE}")
    for path in sorted(place.glob("*.json")):
        yield path.stem, decode(Loose, json.loads(path.read_text()))


def _extract(target: Target, disk: str, debs: Iterable[str]) -> None:
    """Writes the files of these packages, then the files of dpkg's database."""
    archives = target.path(f"{disk}/{packages.ARCHIVES}")
    databases = target.path(f"{disk}/{packages.LOOSE}")

    def contents() -> Iterator[bytes]:
        for deb in debs:
            with (archives / deb).open("rb") as file:
                yield from dpkg.chunks(file, dpkg.find_member(file, b"data.tar"))
        for deb in debs:
            yield (databases / f"{deb}.tar").read_bytes()

    argv = ["tar", "--extract", "--file=-", "--directory=/", "--ignore-zeros", TAR_RECORDS]
    argv += ["--same-owner", "--same-permissions", "--keep-directory-symlink"]
    try:
        target.chroot_from(argv, contents())
    except CommandFailed as failed:
        if not any("No space left" in line for line in failed.tail):
            raise
        raise EnvironmentFailed(
            "the packages do not fit on the scratch disk",
            hint="Give the scratch disk more room with --scratch-size.",
            tail=failed.tail,
        ) from failed


def _note_automatic(target: Target, found: Sequence[dict[str, str]]) -> None:
    """Marks packages as automatically installed, so that autoremove applies (apt-mark(8))."""
    native = target.capture(["dpkg", "--print-architecture"]).strip()
    automatic = {}
    for fields in found:
        architecture = fields["Architecture"].replace("all", native)
        automatic[fields["Package"], architecture] = (
            f"Package: {fields['Package']}\nArchitecture: {architecture}\nAuto-Installed: 1\n\n"
        )
    before = target.read(EXTENDED_STATES) if target.exists(EXTENDED_STATES) else ""
    others = [
        f"{paragraph.strip()}\n\n"
        for paragraph in before.split("\n\n")
        if paragraph.strip() and _key(paragraph) not in automatic
    ]
    target.write(EXTENDED_STATES, "".join([*others, *automatic.values()]))


def _key(paragraph: str) -> tuple[str, str]:
    fields = dict(FIELD.findall(paragraph))
    return fields.get("Package", ""), fields.get("Architecture", "")


class _Surroundings:
    """The state of the target that decides whether a package can be unpacked without dpkg."""

    def __init__(self, target: Target) -> None:
        self._target = target
        # The names in the directories of packages. A missing directory is None.
        self._entries: dict[str, frozenset[str] | None] = {}
        self._directories: dict[Path, os.stat_result] = {}
        settings = from_host.settings_of(target)
        options = (value.removeprefix("--") for name, value in settings if name == DPKG_OPTIONS)
        lines = (line for text in self._configuration() for line in text.split("\n"))
        self._plainly = all(HARMLESS.fullmatch(line) for line in (*options, *lines))
        # dpkg-divert(1): three lines for each diversion: the path, the diverted path, the package.
        diversions = self._lines("diversions")
        # dpkg-statoverride(1): user, group, mode and path.
        overridden = [line.split(" ", 3)[3] for line in self._lines("statoverride")]
        special = (*diversions[::3], *diversions[1::3], *overridden)
        self._special = {merged(path) for path in special}
        # deb-triggers(5): a package that activates an awaited trigger is not installed until the
        # trigger has been processed.
        watched = [line.partition(" ") for line in self._lines("triggers/File")]
        self._watched = {path for path, _, who in watched if who.endswith("/noawait")}
        self._awaited = {path for path, _, who in watched if not who.endswith("/noawait")}

    def _configuration(self) -> Iterator[str]:
        for path in CONFIGURATION:
            names = self._target.list(path)
            for one in [f"{path}/{name}" for name in names] or [path]:
                if self._target.exists(one) and not self._target.path(one).is_dir():
                    yield self._target.read(one)

    def _lines(self, name: str) -> list[str]:
        path = f"{DPKG}/{name}"
        return self._target.read(path).splitlines() if self._target.exists(path) else []

    def permit(self, loose: Loose) -> bool:
        """Whether dpkg would write all files of the package and replace no existing file."""
        return (
            self._plainly
            and self._special.isdisjoint(map(merged, loose.files))
            and self._special.isdisjoint(map(merged, loose.directories))
            and not any(map(self._holds, loose.files))
            and not any(map(self._is_no_directory, loose.directories))
            and not self._touched([loose], self._awaited)
        )

    def _holds(self, path: str) -> bool:
        """Whether the path exists, or a new conffile that dpkg left there."""
        directory, _, name = path.rpartition("/")
        names = self._listed(directory) or ()
        return name in names or f"{name}.dpkg-new" in names

    def _is_no_directory(self, path: str) -> bool:
        return self._listed(path) is None and self._holds(path)

    def _listed(self, directory: str) -> frozenset[str] | None:
        """The names in a directory; None when there is no such directory."""
        if directory not in self._entries:
            above, _, name = directory.rpartition("/")
            entries = None
            if not directory or name in (self._listed(above) or ()):
                place = self._target.path(directory)
                if place.is_dir():
                    entries = frozenset(os.listdir(place))
                    self._directories[place] = place.stat()
            self._entries[directory] = entries
        return self._entries[directory]

    def settle(self, chosen: Iterable[Loose]) -> None:
        """Restores owner and mode of existing directories, and updates the times of changed ones.

        tar sets the times from the archive. Programs such as man-db need the time of the change.
        """
        for place, before in self._directories.items():
            now = place.stat()
            if (now.st_uid, now.st_gid) != (before.st_uid, before.st_gid):
                os.chown(place, before.st_uid, before.st_gid)
            place.chmod(stat.S_IMODE(before.st_mode))
        changed = {
            path.rpartition("/")[0]
            for loose in chosen
            for path in (*loose.files, *loose.directories)
            if path != ROOT
        }
        for directory in changed:
            os.utime(self._target.path(directory))

    def triggered(self, chosen: Iterable[Loose]) -> list[str]:
        """The paths with new files that packages of the target watch by triggers."""
        return sorted(self._touched(chosen, self._watched))

    def _touched(self, changed: Iterable[Loose], watched: Collection[str]) -> set[str]:
        found = set()
        for loose in changed if watched else ():
            for path in (*loose.directories, *loose.files):
                while path:
                    if path in watched:
                        found.add(path)
                    path = path.rpartition("/")[0]
        return found
