"""Rules for the files that each machine makes: the content of /var.

An update replaces /usr only. Rules of tmpfiles.d(5) make the directories that are missing in /var.
Each file comes to a machine once, and stays away when the machine removes it.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from particle_agent.ostree.container.layer import VarDirectory
from particle_agent.ostree.image.layout import DATABASE, OLD_DATABASE
from particle_agent.ostree.image.lints import TMPFILES, paths_with_rules
from particle_agent.ostree.repositories.commit_record import VAR_DIRECTORIES, workshop
from particle_agent.target.target import Target

OWN_RULES = f"{TMPFILES}/ostree-machine.conf"
UNITS, PROGRAMS = "/usr/lib/systemd/system", "/usr/lib/particle-os"
# A line has the escaped path, a tab, and a rule.
ONCE = f"{PROGRAMS}/machine-files.conf"
SEEN = "/var/lib/particle-os/machine-files"
SCRIPT = f"{PROGRAMS}/machine-files"
SCRIPT_TEXT = f"""\
#!/bin/sh
# Brings the files of the image to /var, and each of them once: one that the machine has removed
# stays away.
set -eu
rules={ONCE}
seen={SEEN}
mkdir -p "${{seen%/*}}"
touch "$seen"
new=$(awk -F '\\t' 'FILENAME == ARGV[1] {{ seen[$1]; next }} !($1 in seen)' "$seen" "$rules")
[ -n "$new" ] || exit 0
printf '%s\\n' "$new" | cut -f 2- | systemd-tmpfiles --create -
printf '%s\\n' "$new" | cut -f 1 >>"$seen"
"""
SERVICE = "particle-os-machine-files.service"
# systemd-tmpfiles-setup.service has these statuses, too. It makes the directories.
SERVICE_TEXT = f"""\
[Unit]
Description=Bring the files of the image to /var
Documentation=man:tmpfiles.d(5)
DefaultDependencies=no
After=local-fs.target systemd-tmpfiles-setup.service
Before=sysinit.target shutdown.target
Conflicts=shutdown.target
RequiresMountsFor=/var
ConditionPathExists=/run/ostree-booted

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={SCRIPT}
SuccessExitStatus=DATAERR CANTCREAT

[Install]
WantedBy=sysinit.target
"""
# tmpfiles.d(5): `C` and `L` without an argument copy from this directory.
FACTORY = "/usr/share/factory"
# The paths and rules of every commit.
ALWAYS = (
    (OLD_DATABASE, f"L {OLD_DATABASE} - - - - ../..{DATABASE}"),
    ("/run/media", "d /run/media 0755 root root -"),
)
PLAIN = re.compile(r"[^\s\"'\\#]+")
NOT_BARE = re.compile(rb"[^A-Za-z0-9%._/+:@,=~-]")


def write_rules(target: Target) -> None:
    """Moves the content of /var to /usr/share/factory, with rules that bring it to each machine.

    The lints have found the names and the kinds of files that no rule can make.
    """
    known = paths_with_rules(target)
    always: list[tuple[str, str]] = list(ALWAYS)
    once: list[tuple[str, str]] = []
    for place in list(_contents(target.path("/var"), target)):
        path = "/" + str(place.relative_to(target.root))
        line = _rule(target, place, path)
        if path not in known:
            (always if line.startswith("d") else once).append((path, line))
    # A file may be open to all in a directory that is not.
    target.make_directory(f"{FACTORY}/var", mode=0o700)
    target.write(OWN_RULES, "".join(f"{line}\n" for _, line in always))
    target.write(ONCE, "".join(f"{_escaped(path)}\t{line}\n" for path, line in once))
    target.write(SCRIPT, SCRIPT_TEXT, mode=0o755)
    target.write(f"{UNITS}/{SERVICE}", SERVICE_TEXT)
    target.symlink(f"{UNITS}/sysinit.target.wants/{SERVICE}", f"../{SERVICE}")
    _note_unsafe(target)
    _record(target)
    _empty(target)


def _record(target: Target) -> None:
    """Records the directories of /var, which a container image has, too."""
    top = target.path("/var")
    found = [
        VarDirectory.of(place, str(place.relative_to(target.root)))
        for place in _contents(top, target)
        if place.is_dir() and not place.is_symlink()
    ]
    workshop(target).mkdir(exist_ok=True)
    (workshop(target) / VAR_DIRECTORIES).write_text(json.dumps([asdict(each) for each in found]))


def keep(target: Target) -> None:
    """Leaves the content of /var in the commit, which only the first deployment takes over."""
    target.write(OWN_RULES, "".join(f"{line}\n" for _, line in ALWAYS))


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
    # With colons, the machine's own mode and owner stay.
    owner = f":{stat.S_IMODE(status.st_mode):04o} :{status.st_uid} :{status.st_gid} -"
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
