"""What keeps the scripts of packages from work that a build has no use for, or does once."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from particle_agent import kernels
from particle_agent.target import ENVIRONMENT, Target

POLICY = "/usr/sbin/policy-rc.d"
# dpkg and the maintainer scripts find these programs here first.
STAND_INS = "/run/particle-os-bin"
ASKED_FOR = "/run/particle-os-asked"
MODULES_ASKED_FOR = "/run/particle-os-depmod"
# Whoever asks for anything but the lists of one kernel sees what was asked for before.
DEPMOD = f"""\
#!/bin/sh
case "$#:$1" in
1:[0-9]*) mkdir -p {MODULES_ASKED_FOR} && : >"{MODULES_ASKED_FOR}/$1" && exit ;;
esac
while [ -n "$(ls {MODULES_ASKED_FOR} 2>/dev/null)" ]; do sleep 0.2; done
PATH="${{PATH#{STAND_INS}:}}" exec depmod "$@"
"""
# The package `locales` of Debian 12 and 13 asks sed for all locales that there are, and then grep
# for each of the 500, whether locale.gen lists it, and adds the line if not. All at once takes a
# hundredth of the time; sed says nothing then, and nothing is left to be looked for.
SED = f"""\
#!/bin/sh
PATH={ENVIRONMENT["PATH"]} list=/etc/locale.gen
if [ "$*" = '-e /^[a-zA-Z]/!d -e s/ *$//g /usr/share/i18n/SUPPORTED' ] && [ -f "$list" ]; then
	missing=$(sed "$@" | sort -u | awk '
		listing {{ sub(/^[# ]*/, ""); sub(/ *$/, ""); listed[$0]; next }}
		!($0 in listed) {{ print "# " $0 }}
	' listing=1 "$list" listing=0 -) && {{
		[ -z "$missing" ] || printf '%s\\n' "$missing" >>"$list"
		exit
	}}
fi
exec sed "$@"
"""
POLL_SECONDS = 0.1
HOST_KEYS = tuple(f"/etc/ssh/ssh_host_{kind}_key" for kind in ("rsa", "ecdsa", "ed25519"))


@contextmanager
def services_stay_off(target: Target) -> Iterator[None]:
    """invoke-rc.d(8) asks policy-rc.d; 101 forbids the action."""
    if target.exists(POLICY):
        yield
        return
    target.write(POLICY, "#!/bin/sh\nexit 101\n", mode=0o755)
    try:
        yield
    finally:
        target.remove(POLICY)


@contextmanager
def no_host_keys(target: Target) -> Iterator[None]:
    """openssh-server makes no keys where a file exists; the image makes its own at first boot."""
    placeholders = [path for path in HOST_KEYS if not target.exists(path)]
    had_directory = target.exists("/etc/ssh")
    for path in placeholders:
        target.write(path, "", mode=0o600)
    try:
        yield
    finally:
        for path in placeholders:
            if target.exists(path) and target.read(path) == "":
                target.remove(path)
        if not had_directory and not target.list("/etc/ssh"):
            target.remove("/etc/ssh")


@contextmanager
def generated_once(target: Target, installs: Collection[str] = ()) -> Iterator[list[str]]:
    """What packages have generated again and again is generated once, at the end, side by side.

    That is the initramfs of each kernel, and udev's database of hardware; what stages to come can
    do ahead is done beside them. Yields the options with which apt-get only notes that these were
    asked for, and has depmod(8) run beside dpkg: it decompresses every module of a kernel, and
    nothing but the initramfs needs its result. `installs` names packages that may need help.
    """
    for name in ("update-initramfs", "systemd-hwdb"):
        text = f'#!/bin/sh\nmkdir -p {ASKED_FOR}\necho "$*" > {ASKED_FOR}/{name}\n'
        target.write(f"{STAND_INS}/{name}", text, mode=0o755)
    target.write(f"{STAND_INS}/depmod", DEPMOD, mode=0o755)
    if "locales" in installs:
        target.write(f"{STAND_INS}/sed", SED, mode=0o755)
    try:
        with _beside(target):
            yield [f"-oDPkg::Path={STAND_INS}:{ENVIRONMENT['PATH']}"]
    finally:
        target.remove(STAND_INS)
        asked = target.list(ASKED_FOR)
        target.remove(ASKED_FOR)
        target.remove(MODULES_ASKED_FOR)
    with ThreadPoolExecutor() as pool:
        pool.submit(target.ahead)
        hwdb = pool.submit(_make_hwdb if "systemd-hwdb" in asked else lambda target: None, target)
        if "update-initramfs" in asked:
            for version in kernels.versions(target):
                if not kernels.takes_list(target, version):
                    # Its initramfs holds the database.
                    hwdb.result()
                kernels.make_initramfs(target, version)
        hwdb.result()


@contextmanager
def _beside(target: Target) -> Iterator[None]:
    """Runs depmod for the kernels that the stand-in is told of, while others do something.

    At the end all of them are complete. Raises CommandFailed as depmod does.
    """
    ended = threading.Event()
    failures = []

    def serve() -> None:
        last = False
        while not last:
            last = ended.wait(POLL_SECONDS)
            for version in target.list(MODULES_ASKED_FOR):
                try:
                    target.chroot(["depmod", version])
                except Exception as error:
                    # Whatever it is, nobody waits for it any longer.
                    failures.append(error)
                target.remove(f"{MODULES_ASKED_FOR}/{version}")

    with ThreadPoolExecutor(1) as pool:
        served = pool.submit(serve)
        try:
            yield
        finally:
            ended.set()
        served.result()
    if failures:
        raise failures[0]


def _make_hwdb(target: Target) -> None:
    target.chroot(["systemd-hwdb", "--usr", "update"])
