"""Work that the stand-ins request, and that the agent does while dpkg continues.

A request is a file with a unique name, which a stand-in creates in one step. The agent removes it
when the work is done. So a shell that reads the directory sees every unfinished request. A stand-in
that requests work in progress again makes another file, and the agent repeats the work.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress

from particle_agent.apt.dpkg import DPKG
from particle_agent.target.target import Target

REQUESTS = "/run/particle-os-beside"
DEPMOD, HWDB, LOCALES = "depmod-", "systemd-hwdb", "locales"
KERNEL = "linux-image-"
POLL_SECONDS = 0.1


def ask(what: str) -> str:
    """The shell command that requests `what`."""
    return f'mkdir -p {REQUESTS} && mktemp "{REQUESTS}/{what}.XXXXXX" >/dev/null'


def ask_here(target: Target, what: str) -> None:
    """Makes a request from the agent itself. There is at most one at a time."""
    target.make_directory(REQUESTS)
    target.path(f"{REQUESTS}/{what}.here").touch()


class Beside:
    """Serves the requests of the stand-ins while dpkg continues.

    `pool` does the work that no stand-in waits for.
    """

    def __init__(self, target: Target, pool: Executor) -> None:
        self._target = target
        self._pool = pool
        self._under_way: list[Future[object]] = []
        # The lists of modules that are made before a request, by kernel.
        self._early: dict[str, Future[Mapping[str, int]]] = {}
        self._kernels = self._unpacked_kernels()

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Serves requests until the context ends. All requested lists of modules are made then.

        Raises the first error, for example CommandFailed when depmod fails. After an error no
        stand-in waits.
        """
        ended = threading.Event()
        with ThreadPoolExecutor(1) as own:
            served = own.submit(self._serve, ended)
            try:
                yield
            finally:
                ended.set()
            if error := served.result():
                raise error

    def finish(self) -> None:
        """Waits for the remaining work. Raises CommandFailed when a program fails."""
        for future in self._under_way:
            future.result()

    def _serve(self, ended: threading.Event) -> Exception | None:
        """Serves requests until `ended` is set. Returns the first error."""
        first = None
        last = False
        while not last:
            last = ended.wait(POLL_SECONDS)
            try:
                self._serve_once()
            except Exception as error:
                first = first or error
                # Remove all requests after any error, so that no stand-in waits forever.
                with suppress(Exception):
                    self._target.remove(REQUESTS)
        return first

    def _serve_once(self) -> None:
        for name, requests in self._requests().items():
            self._do(name)
            for request in requests:
                self._target.remove(request)
        self._begin_early()

    def _requests(self) -> dict[str, list[str]]:
        """The current request files, by the requested work."""
        found: dict[str, list[str]] = {}
        for name in self._target.list(REQUESTS):
            found.setdefault(name.rpartition(".")[0], []).append(f"{REQUESTS}/{name}")
        return found

    def _begin_early(self) -> None:
        """Starts to make the lists of modules of kernels that dpkg has unpacked since."""
        try:
            for version in self._unpacked_kernels() - self._kernels - self._early.keys():
                if self._target.exists("/sbin/depmod"):
                    self._early[version] = self._pool.submit(self._list_modules, version)
        except OSError:
            pass  # dpkg is changing these files. The next round tries again.

    def _unpacked_kernels(self) -> set[str]:
        """The kernels whose packages dpkg has unpacked. It writes the list of files last."""
        names = self._target.list(f"{DPKG}/info")
        found = {n[len(KERNEL) : -5] for n in names if n.startswith(KERNEL) and n.endswith(".list")}
        return {version for version in found if self._target.exists(f"/lib/modules/{version}")}

    def _list_modules(self, version: str) -> Mapping[str, int]:
        """Makes the lists of a kernel's modules. Returns the modules that it read."""
        modules = self._modules(version)
        self._target.chroot(["depmod", version])
        return modules

    def _modules(self, version: str) -> Mapping[str, int]:
        """The modules of a kernel, with the times of their last change (ns)."""
        place = self._target.path(f"/lib/modules/{version}")
        return {
            f"{directory}/{name}": os.lstat(f"{directory}/{name}").st_ctime_ns
            for directory, _, names in os.walk(place)
            for name in names
            if ".ko" in name
        }

    def _is_listed(self, version: str) -> bool:
        """Whether the lists were made in advance, from the current modules."""
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
            # A failure here occurs again in the stage, which reports it.
            self._pool.submit(self._target.ahead)
