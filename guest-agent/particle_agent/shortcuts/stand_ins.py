"""Programs that stand in for those of Debian while dpkg runs.

Maintainer scripts ask again and again for work that a build does once, or beside dpkg. A stand-in
imitates a program, or what a script does with a program, so it knows that script by its SHA-256
(known_scripts.py). For another script the program itself runs, and a note says so.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from particle_agent.apt.dpkg import DPKG
from particle_agent.shortcuts import beside
from particle_agent.shortcuts.beside import DEPMOD, HWDB, LOCALES, REQUESTS, Beside, ask
from particle_agent.shortcuts.known_scripts import SCRIPTS
from particle_agent.system import kernels
from particle_agent.target.target import ENVIRONMENT, Target

# dpkg and the maintainer scripts find these programs here first.
STAND_INS = "/run/particle-os-bin"
# What is asked for once all packages are there.
ASKED_FOR = "/run/particle-os-asked"
# By the name of a program that ran itself, the script that its stand-in does not know.
UNKNOWN = "/run/particle-os-unknown"
CALLER = f"{DPKG}/info/$DPKG_MAINTSCRIPT_PACKAGE.$DPKG_MAINTSCRIPT_NAME"
UPDATE = "/usr/sbin/update-initramfs"
PATH = f"PATH={ENVIRONMENT['PATH']}"


# The shell reads names alone: a program that looks at the files finds some of them gone.
WAIT = f"""\
while [ "$(echo {REQUESTS}/{DEPMOD}*)" != "{REQUESTS}/{DEPMOD}*" ]; do sleep 0.2; done
"""
# The postinst of `locales` asks sed for all locales that there are, and then grep for each of the
# 500, whether locale.gen lists it, and adds the line if not. All at once takes a hundredth of the
# time; sed says nothing then, and nothing is left to be looked for.
SED = """\
list=/etc/locale.gen
if [ "$*" = '-e /^[a-zA-Z]/!d -e s/ *$//g /usr/share/i18n/SUPPORTED' ] && [ -f "$list" ] &&
KNOWN; then
	missing=$(sed "$@" | sort -u | awk '
		listing { sub(/^[# ]*/, ""); sub(/ *$/, ""); listed[$0]; next }
		!($0 in listed) { print "# " $0 }
	' listing=1 "$list" listing=0 -) && {
		[ -z "$missing" ] || printf '%s\\n' "$missing" >>"$list"
		exit
	}
fi
"""
# A kernel that goes away takes its initramfs with it at once.
UPDATE_INITRAMFS = f"""\
case " $*" in
*" -d"*) ;;
*) KNOWN && mkdir -p {ASKED_FOR} && : >{ASKED_FOR}/update-initramfs && exit ;;
esac
{WAIT}"""
HWDB_UPDATE = f"""\
[ "$*" = "--usr update" ] && KNOWN && {ask(HWDB)} && exit
"""
# Whoever asks for anything but the lists of one kernel sees what was asked for before. dracut
# reads the lists as soon as the kernel's script goes on.
LIST_MODULES = f"""\
case "$#:$1" in
1:[0-9]*) [ ! -e /usr/bin/dracut ] && KNOWN && {ask(f"{DEPMOD}$1")} && exit ;;
esac
{WAIT}"""


def _texts(installs: Collection[str]) -> dict[str, str]:
    """The stand-ins, by their names. What one does not do, the program of that name does."""
    texts = {
        "update-initramfs": UPDATE_INITRAMFS.replace("KNOWN", _knows("update-initramfs", UPDATE)),
        "systemd-hwdb": HWDB_UPDATE.replace("KNOWN", _knows("udev", CALLER)),
        "locale-gen": f"{ask(LOCALES)}\n",
        "depmod": LIST_MODULES.replace("KNOWN", _knows("linux", CALLER, without="$1")),
    }
    if "locales" in installs:
        texts["sed"] = SED.replace("KNOWN", _knows("locales", CALLER))
    return {n: f'#!/bin/sh\n{PATH}\n{text}exec {n} "$@"\n' for n, text in texts.items()}


def _knows(kind: str, path: str, *, without: str = "@") -> str:
    """A shell command that succeeds when the script at `path` is one of this kind that is known.

    A kernel's script has the kernel's version in it, which is taken out by `without`.
    """
    patterns = "|".join(f"{sha256}*" for sha256 in SCRIPTS[kind])
    return f"""{{ case "$(sed "s/{without}/@/g" "{path}" | sha256sum)" in
{patterns}) ;;
*) mkdir -p {UNKNOWN} && echo "{path}" >"{UNKNOWN}/${{0##*/}}"; false ;;
esac; }}"""


@contextmanager
def generated_once(target: Target, installs: Collection[str] = ()) -> Iterator[list[str]]:
    """What packages have generated again and again is generated once, beside what goes on.

    That is the initramfs of each kernel, at the end; and on the other processor, beside dpkg
    already, the lists of a kernel's modules (every one of them is decompressed for it), udev's
    database of hardware, and what stages to come can do ahead. Yields the options with which
    apt-get only notes that these were asked for. `installs` names packages that may need help.
    """
    before = kernels.images(target)
    if target.plain:
        yield []
        # Images have an initramfs of their own kind, whoever made another one before.
        if kernels.images(target).items() - before.items():
            for version in kernels.versions(target):
                kernels.make_initramfs(target, version)
        return
    for name, text in _texts(installs).items():
        target.write(f"{STAND_INS}/{name}", text, mode=0o755)
    with ThreadPoolExecutor(1) as pool:
        side = Beside(target, pool)
        try:
            with side.serving():
                yield [f"-oDPkg::Path={STAND_INS}:{ENVIRONMENT['PATH']}"]
        finally:
            target.remove(STAND_INS)
            asked = target.list(ASKED_FOR)
            _note_unknown(target)
            for place in (ASKED_FOR, REQUESTS, UNKNOWN):
                target.remove(place)
        pool.submit(target.ahead)
        if asked or kernels.images(target).items() - before.items():
            for version in kernels.versions(target):
                if not kernels.takes_list(target, version):
                    # Its initramfs holds the database.
                    side.finish()
                kernels.make_initramfs(target, version)
        side.finish()


def _note_unknown(target: Target) -> None:
    for name in target.list(UNKNOWN):
        script = target.read(f"{UNKNOWN}/{name}").strip()
        target.reporter.note(
            f"{name} ran as Debian has it, which takes longer: {script} is not a script that "
            "particle-os knows"
        )


def begin_ahead(target: Target) -> None:
    """Lets what stages to come can do ahead begin, as far as packages are unpacked."""
    beside.ask_here(target, LOCALES)
