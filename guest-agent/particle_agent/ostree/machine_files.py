"""Rules for the files that each machine makes: the content of /var.

An update replaces /usr only. The rules of tmpfiles.d(5) make what is missing in /var.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from particle_agent.ostree.image.layout import DATABASE, OLD_DATABASE
from particle_agent.target.target import Target

TMPFILES = "/usr/lib/tmpfiles.d"
OWN_RULES = f"{TMPFILES}/ostree-machine.conf"
# tmpfiles.d(5): `C` and `L` without an argument copy from this directory.
FACTORY = "/usr/share/factory"
# The types of rules that make a path.
MAKERS = set("dDvqQfCL")
PLAIN = re.compile(r"[^\s\"'\\#]+")
NOT_BARE = re.compile(rb"[^A-Za-z0-9%._/+:@,=~-]")


def write_rules(target: Target) -> None:
    """Moves the content of /var to /usr/share/factory, with rules that bring it to each machine.

    The lints have found the names and the kinds of files that no rule can make.
    """
    known = _paths_with_rules(target)
    lines = [f"L {OLD_DATABASE} - - - - ../..{DATABASE}", "d /run/media 0755 root root -"]
    for place in list(_contents(target.path("/var"), target)):
        path = "/" + str(place.relative_to(target.root))
        line = _rule(target, place, path)
        if path not in known:
            lines.append(line)
    # A file may be open to all in a directory that is not.
    target.make_directory(f"{FACTORY}/var", mode=0o700)
    target.write(OWN_RULES, "".join(f"{line}\n" for line in lines))
    _note_unsafe(target)
    _empty(target)


def _note_unsafe(target: Target) -> None:
    """Notes directories in which systemd-tmpfiles(8) makes nothing.

    It trusts no directory of one user in a directory of another who is not root.
    """
    found = [
        str(place.relative_to(target.root))
        for place in _contents(target.path("/var"), target)
        if place.is_dir()
        and not place.is_symlink()
        and _owner(place.parent) not in (0, _owner(place))
    ]
    if found:
        more = f" and {len(found) - 1} more directories" if len(found) > 1 else ""
        target.reporter.note(
            f"/{found[0]}{more} will be empty on the machines: it belongs to another user than the "
            "directory that it is in; change the owner before the stage 'ostree'"
        )


def _owner(place: Path) -> int:
    return place.lstat().st_uid


def _contents(top: Path, target: Target) -> Iterator[Path]:
    """Everything below a directory of the target, parents first, without mounts of the build."""
    for directory, directories, files in os.walk(top):
        names = sorted((*directories, *files))
        directories[:] = sorted(each for each in directories if target.holds(Path(directory, each)))
        yield from (Path(directory, name) for name in names)


def _rule(target: Target, place: Path, path: str) -> str:
    """The rule that makes a path of /var on each machine. Moves a file to the factory."""
    status = place.lstat()
    kind = stat.S_IFMT(status.st_mode)
    owner = f"{stat.S_IMODE(status.st_mode):04o} {status.st_uid} {status.st_gid} -"
    if kind == stat.S_IFDIR:
        return f"d {_quoted(path)} {owner}"
    if kind == stat.S_IFLNK:
        return f"L {_quoted(path)} - - - - {_escaped(os.readlink(place))}"
    kept = f"{FACTORY}{path}"
    target.make_directory(kept.rpartition("/")[0])
    place.rename(target.path(kept, follow=False))
    return f"C {_quoted(path)} {owner} {_escaped(kept)}"


def _quoted(path: str) -> str:
    """A path in tmpfiles.d(5): `%` begins a specifier, a backslash an escape."""
    plain = path.replace("\\", r"\\").replace('"', r"\"").replace("%", "%%")
    return plain if PLAIN.fullmatch(plain) else f'"{plain}"'


def _escaped(text: str) -> str:
    """The argument, the last field of tmpfiles.d(5): quotes are part of it, and `-` is none."""
    found = NOT_BARE.sub(lambda match: f"\\x{match[0][0]:02x}".encode(), os.fsencode(text))
    return r"\x2d" if text == "-" else found.decode().replace("%", "%%")


def _paths_with_rules(target: Target) -> set[str]:
    """The paths that the rules of the packages make."""
    found = set()
    for name in target.list(TMPFILES):
        if name.endswith(".conf") and target.is_file(f"{TMPFILES}/{name}"):
            for line in target.read(f"{TMPFILES}/{name}").splitlines():
                kind, path, *_ = (*line.split(maxsplit=2), "", "")
                if kind[:1] in MAKERS:
                    found.add(path.strip('"').rstrip("/"))
    return found


def _empty(target: Target) -> None:
    """Empties /var, which is no part of a commit."""
    for directory, directories, files in os.walk(target.path("/var"), topdown=False):
        here = Path(directory)
        if not target.holds(here):
            continue
        for name in (*files, *directories):
            place = here / name
            if place.is_symlink():
                place.unlink()
            elif target.holds(place) and not os.listdir(place):
                _remove_directory(place)


def _remove_directory(place: Path) -> None:
    try:
        place.rmdir()
    except OSError:
        return  # Something is mounted here, or below.
