"""What keeps the scripts of packages from work that a build has no use for, or does once."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager

from particle_agent.apt.dpkg import DPKG
from particle_agent.system import kernels
from particle_agent.target.target import ENVIRONMENT, Target

POLICY = "/usr/sbin/policy-rc.d"
# dpkg and the maintainer scripts find these programs here first.
STAND_INS = "/run/particle-os-bin"
# What is asked for once all packages are there, and what may be done beside dpkg.
ASKED_FOR = "/run/particle-os-asked"
BESIDE = "/run/particle-os-beside"
DEPMOD, HWDB, LOCALES = "depmod-", "systemd-hwdb", "locales"
KERNEL = "linux-image-"


def _ask(what: str) -> str:
    """A shell command that asks for `what`, by a file of a name of its own.

    The file stays until what it asks for is done: a shell that reads the directory meanwhile sees
    it for certain. One that asks while the same is being done makes another file.
    """
    return f'mkdir -p {BESIDE} && mktemp "{BESIDE}/{what}.XXXXXX" >/dev/null'


NOTES = {
    "update-initramfs": f"mkdir -p {ASKED_FOR} && : >{ASKED_FOR}/update-initramfs",
    "systemd-hwdb": _ask(HWDB),
    "locale-gen": f"""\
{_ask(LOCALES)}
PATH={ENVIRONMENT["PATH"]} exec locale-gen "$@"
""",
    # Whoever asks for anything but the lists of one kernel sees what was asked for before. The
    # shell reads names alone: a program that looks at the files finds some of them gone.
    "depmod": f"""\
case "$#:$1" in
1:[0-9]*) {_ask(f"{DEPMOD}$1")} && exit ;;
esac
while [ "$(echo {BESIDE}/{DEPMOD}*)" != "{BESIDE}/{DEPMOD}*" ]; do sleep 0.2; done
PATH="${{PATH#{STAND_INS}:}}" exec depmod "$@"
""",
}
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
    """What packages have generated again and again is generated once, beside what goes on.

    That is the initramfs of each kernel, at the end; and on the other processor, beside dpkg
    already, the lists of a kernel's modules (every one of them is decompressed for it), udev's
    database of hardware, and what stages to come can do ahead. Yields the options with which
    apt-get only notes that these were asked for. `installs` names packages that may need help.
    """
    scripts = {name: f"#!/bin/sh\n{text}\n" for name, text in NOTES.items()}
    if "locales" in installs:
        scripts["sed"] = SED
    for name, text in scripts.items():
        target.write(f"{STAND_INS}/{name}", text, mode=0o755)
    with ThreadPoolExecutor(1) as pool:
        side = _Beside(target, pool)
        try:
            with side.serving():
                yield [f"-oDPkg::Path={STAND_INS}:{ENVIRONMENT['PATH']}"]
        finally:
            target.remove(STAND_INS)
            asked = target.list(ASKED_FOR)
            target.remove(ASKED_FOR)
            target.remove(BESIDE)
        pool.submit(target.ahead)
        if "update-initramfs" in asked:
            for version in kernels.versions(target):
                if not kernels.takes_list(target, version):
                    # Its initramfs holds the database.
                    side.finish()
                kernels.make_initramfs(target, version)
        side.finish()


def begin_ahead(target: Target) -> None:
    """Lets what stages to come can do ahead begin, as far as packages are unpacked."""
    target.make_directory(BESIDE)
    target.path(f"{BESIDE}/{LOCALES}.begin").touch()


class _Beside:
    """What the stand-ins ask for that is done while dpkg goes on.

    `pool` does what nothing else waits for.
    """

    def __init__(self, target: Target, pool: Executor) -> None:
        self._target = target
        self._pool = pool
        self._under_way: list[Future[object]] = []
        # The lists of modules made before anybody asks for them, by the kernel.
        self._early: dict[str, Future[Mapping[str, int]]] = {}
        self._kernels = self._unpacked_kernels()

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Does what is asked for as long as the context lasts; all lists of modules are made then.

        Raises CommandFailed as depmod does.
        """
        ended = threading.Event()
        with ThreadPoolExecutor(1) as own:
            served = own.submit(self._serve, ended)
            try:
                yield
            finally:
                ended.set()
            if failures := served.result():
                raise failures[0]

    def finish(self) -> None:
        """Waits for the rest. Raises CommandFailed as the programs do."""
        for future in self._under_way:
            future.result()

    def _serve(self, ended: threading.Event) -> list[Exception]:
        failures: list[Exception] = []
        last = False
        while not last:
            last = ended.wait(POLL_SECONDS)
            for name, requests in self._requests().items():
                try:
                    self._do(name)
                except Exception as error:
                    # Whatever it is, nobody waits for it any longer.
                    failures.append(error)
                for request in requests:
                    self._target.remove(request)
            self._begin_early()
        return failures

    def _requests(self) -> dict[str, list[str]]:
        """The files that ask for something now, by what they ask for."""
        found: dict[str, list[str]] = {}
        for name in self._target.list(BESIDE):
            found.setdefault(name.rpartition(".")[0], []).append(f"{BESIDE}/{name}")
        return found

    def _begin_early(self) -> None:
        """Begins with the lists of modules of kernels that dpkg has unpacked meanwhile."""
        try:
            for version in self._unpacked_kernels() - self._kernels - self._early.keys():
                if self._target.exists("/sbin/depmod"):
                    self._early[version] = self._pool.submit(self._list_modules, version)
        except OSError:
            pass  # dpkg is at work there.

    def _unpacked_kernels(self) -> set[str]:
        """The kernels whose packages dpkg has unpacked: it writes the list of files last."""
        names = self._target.list(f"{DPKG}/info")
        found = {n[len(KERNEL) : -5] for n in names if n.startswith(KERNEL) and n.endswith(".list")}
        return {version for version in found if self._target.exists(f"/lib/modules/{version}")}

    def _list_modules(self, version: str) -> Mapping[str, int]:
        """Makes the lists of a kernel's modules; returns what they were made of."""
        modules = self._modules(version)
        self._target.chroot(["depmod", version])
        return modules

    def _modules(self, version: str) -> Mapping[str, int]:
        """The modules of a kernel, and when they changed last (ns)."""
        place = self._target.path(f"/lib/modules/{version}")
        return {
            f"{directory}/{name}": os.lstat(f"{directory}/{name}").st_ctime_ns
            for directory, _, names in os.walk(place)
            for name in names
            if ".ko" in name
        }

    def _is_listed(self, version: str) -> bool:
        """Whether the lists of modules were made ahead, of the modules that are there now."""
        early = self._early.get(version)
        if early is None or early.cancel() or early.exception() is not None:
            return False
        try:
            return early.result() == self._modules(version)
        except OSError:
            return False

    def _do(self, name: str) -> None:
        if name.startswith(DEPMOD):
            version = name.removeprefix(DEPMOD)
            if not self._is_listed(version):
                self._target.chroot(["depmod", version])
        elif name == HWDB:
            argv = ["systemd-hwdb", "--usr", "update"]
            self._under_way.append(self._pool.submit(self._target.chroot, argv))
        elif name == LOCALES:
            # What fails fails again in the stage, which tells of it.
            self._pool.submit(self._target.ahead)
