"""Stand-ins: programs that replace programs of Debian while dpkg runs.

Maintainer scripts repeatedly request work that a build can do once, or in parallel to dpkg. A
stand-in imitates a program, or the use of a program by a script. It does so only for scripts whose
SHA-256 is known (known_scripts.py). For other scripts the real program runs, with a note.
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

# The first directory in the PATH of dpkg and the maintainer scripts.
STAND_INS = "/run/particle-os-bin"
# Requests to be served when all packages are installed.
ASKED_FOR = "/run/particle-os-asked"
# Files named after programs that ran themselves. Each contains the path of the unknown script.
UNKNOWN = "/run/particle-os-unknown"
CALLER = f"{DPKG}/info/$DPKG_MAINTSCRIPT_PACKAGE.$DPKG_MAINTSCRIPT_NAME"
UPDATE = "/usr/sbin/update-initramfs"
PATH = f"PATH={ENVIRONMENT['PATH']}"


# Waits for depmod. The shell only reads names: a program that opens the files may find them gone.
WAIT = f"""\
while [ "$(echo {REQUESTS}/{DEPMOD}*)" != "{REQUESTS}/{DEPMOD}*" ]; do sleep 0.2; done
"""
# The postinst of `locales` lists all 500 locales with sed. For each it runs grep on locale.gen, and
# adds a missing line. This stand-in adds all missing lines in one pass, in a hundredth of the time.
# It prints nothing, so that the script has no locale left to look for.
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
# Removing a kernel (-d) removes its initramfs immediately.
UPDATE_INITRAMFS = f"""\
case " $*" in
*" -d"*) ;;
*) KNOWN && mkdir -p {ASKED_FOR} && : >{ASKED_FOR}/update-initramfs && exit ;;
esac
{WAIT}"""
HWDB_UPDATE = f"""\
[ "$*" = "--usr update" ] && KNOWN && {ask(HWDB)} && exit
"""
# Calls other than for the lists of one kernel wait for the earlier requests. With dracut there are
# no requests, because it reads the lists as soon as the kernel's script continues.
LIST_MODULES = f"""\
case "$#:$1" in
1:[0-9]*) [ ! -e /usr/bin/dracut ] && KNOWN && {ask(f"{DEPMOD}$1")} && exit ;;
esac
{WAIT}"""


def _texts(installs: Collection[str]) -> dict[str, str]:
    """The texts of the stand-ins, by name. Each runs the real program for all other calls."""
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
    """A shell command that succeeds when the script at `path` is a known one of this kind.

    It replaces the text `without` by "@" first: a kernel's script contains the kernel's version.
    """
    patterns = "|".join(f"{sha256}*" for sha256 in SCRIPTS[kind])
    return f"""{{ case "$(sed "s/{without}/@/g" "{path}" | sha256sum)" in
{patterns}) ;;
*) mkdir -p {UNKNOWN} && echo "{path}" >"{UNKNOWN}/${{0##*/}}"; false ;;
esac; }}"""


@contextmanager
def generated_once(target: Target, installs: Collection[str] = ()) -> Iterator[list[str]]:
    """Generates once what maintainer scripts would generate repeatedly.

    At the end it makes the initramfs of each kernel. In parallel to dpkg, on the other processor,
    it makes the lists of a kernel's modules, for which depmod decompresses all modules. There it
    also makes udev's hardware database, and does the work that later stages can do in advance.
    Yields the options that make apt-get use the stand-ins. `installs` are the packages to install.
    """
    before = kernels.images(target)
    if target.plain:
        yield []
        # A script has made an initramfs with other settings than those of images.
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
                    # This initramfs contains the hardware database, so wait for it.
                    side.finish()
                kernels.make_initramfs(target, version)
        side.finish()


def rewrites() -> Iterator[tuple[str, str]]:
    """The files that `generated_once` replaces (see `StageOptions.rewrites`)."""
    return kernels.rewrites()


def _note_unknown(target: Target) -> None:
    for name in target.list(UNKNOWN):
        script = target.read(f"{UNKNOWN}/{name}").strip()
        target.reporter.note(
            f"the real {name} ran, which takes longer: {script} is not a script that particle-os "
            "knows"
        )


def begin_ahead(target: Target) -> None:
    """Starts the work that later stages can do in advance with the unpacked packages."""
    beside.ask_here(target, LOCALES)
