"""Base images: from a reference to a root file system on the host and its digest."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import shlex
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

from particle_agent.contract.wire import AgentEvent
from particle_agent.stages.output.export import Export
from particle_agent.stages.software.bootstrap import Bootstrap

from particle_os.apt import depot, mmdebstrap
from particle_os.apt.proxy import NO_PROXY, AptProxy
from particle_os.base import container
from particle_os.base.container import ImageReference
from particle_os.base.oci import ContainerImage
from particle_os.errors import InfrastructureError, UsageError
from particle_os.sandbox.agent import Agent, Listener
from particle_os.system import process
from particle_os.system.checksum import file_sha256
from particle_os.system.deadline import Deadline
from particle_os.system.workspace import Workspace, locked

if TYPE_CHECKING:
    from particle_os.sandbox.running import Sandbox

FORMAT = 6
MAKE_SECONDS = 1800.0
FETCH_SECONDS = 600.0
SCAN_MEMBERS = 200_000
# ELF specification: e_machine, the 16-bit number at offset 18.
ELF_MACHINES = {3: "i386", 21: "ppc64el", 22: "s390x", 40: "arm", 62: "amd64", 183: "arm64"}
# init-system-helpers of bookworm would else bring usrmerge, which converts at installation.
EXTRA_PACKAGES = {"bookworm": ("usr-is-merged",)}
SandboxOpener = Callable[[str, Path], AbstractContextManager["Sandbox"]]


class Base(Protocol):
    """A root file system that can be sent to a VM; `digest` names its content."""

    @property
    def reference(self) -> str: ...

    @property
    def digest(self) -> str: ...

    def size(self) -> int:
        """Bytes as it is sent: compressed, if it is."""
        ...

    def fetch(self, work: Workspace, deadline: Deadline, log: Callable[[str], None]) -> None:
        """Brings what is missing to the host."""
        ...

    def is_here(self) -> bool:
        """Whether all of it is on the host."""
        ...

    def push(self, agent: Agent, deadline: Deadline, listen: Listener) -> None:
        """Has the agent unpack it.

        Raises StageFailed when it is no base, InfrastructureError when it has changed.
        """
        ...


@dataclass(frozen=True)
class TarBase:
    """A base as a tarball; `digest` is "sha256:" and the file's SHA-256."""

    reference: str
    tarball: Path
    digest: str

    def size(self) -> int:
        return self.tarball.stat().st_size

    def fetch(self, work: Workspace, deadline: Deadline, log: Callable[[str], None]) -> None:
        pass

    def is_here(self) -> bool:
        return True

    def push(self, agent: Agent, deadline: Deadline, listen: Listener) -> None:
        with self.tarball.open("rb") as stream:
            sent = agent.unpack(stream, deadline, listen)
        if f"sha256:{sent}" != self.digest:
            raise InfrastructureError(
                f"{self.tarball} has changed: it is not {self.digest} any more",
                hint="Remove the file from the cache, or do not write it during a build.",
            )


@dataclass(frozen=True)
class ImageBase:
    """A base as a container image; `digest` is that of its manifest."""

    image: ContainerImage
    source: ImageReference
    cache: Path

    @property
    def reference(self) -> str:
        return self.image.reference

    @property
    def digest(self) -> str:
        return self.image.digest

    def size(self) -> int:
        return self.image.size()

    def fetch(self, work: Workspace, deadline: Deadline, log: Callable[[str], None]) -> None:
        container.fetch(
            self.image, self.source, cache=self.cache, work=work, deadline=deadline, log=log
        )

    def is_here(self) -> bool:
        return container.is_fetched(self.image, self.cache)

    def push(self, agent: Agent, deadline: Deadline, listen: Listener) -> None:
        with container.opened(self.image, self.cache) as stream:
            agent.unpack(stream, deadline, listen, verb="unpack-image")


def resolve(reference: str, relative_to: Path, architecture: str, cache: Path) -> Base | None:
    """The base of a reference that stands for itself; None for `mmdebstrap:` ones.

    Of a container image only the description is fetched. Raises UsageError when there is no such
    base, or it is of another architecture; InfrastructureError when a registry does not answer.
    """
    source = container.parse(reference, relative_to)
    if source is None:
        return resolve_file(reference, relative_to, architecture)
    image = container.describe(reference, relative_to, architecture, cache)
    return ImageBase(image, source, cache)


def resolve_file(reference: str, relative_to: Path, architecture: str) -> TarBase | None:
    """The base of a `tar:` reference; None for the others.

    Raises UsageError when the file is missing, is no tar archive, or is of another architecture.
    """
    if not reference.startswith("tar:"):
        return None
    path = relative_to / reference.removeprefix("tar:")
    if not path.is_file():
        raise UsageError(f"the base image {reference} does not exist: {path}")
    found = architecture_of(path)
    if found is None:
        raise UsageError(
            f"{path} holds no root file system: there is no program in /usr/bin or /bin",
            hint="The archive must have the root directory itself at its top.",
        )
    if found != architecture:
        raise UsageError(f"{path} is for {found}, but the recipe wants {architecture}")
    return TarBase(reference, path, f"sha256:{file_sha256(path)}")


@contextmanager
def _decompressed(path: Path) -> Iterator[BinaryIO]:
    with path.open("rb") as file:
        magic = file.read(6)
    if magic.startswith(b"\x1f\x8b"):
        with gzip.open(path) as stream:
            yield cast(BinaryIO, stream)
    elif magic.startswith(b"\xfd7zXZ"):
        with lzma.open(path) as stream:
            yield cast(BinaryIO, stream)
    elif magic.startswith(b"\x28\xb5\x2f\xfd"):
        argv = ["zstd", "--decompress", "--stdout", "--quiet", str(path)]
        with process.started(argv, stderr=subprocess.DEVNULL) as decompressor:
            with cast(BinaryIO, decompressor.stdout) as stream:
                yield stream
    else:
        with path.open("rb") as stream:
            yield stream


def architecture_of(path: Path) -> str | None:
    """The Debian architecture of the first program in /usr/bin or /bin of a tarball.

    Only headers are read; nothing is unpacked. Raises UsageError when it is no tar archive.
    """
    try:
        with _decompressed(path) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            for count, member in enumerate(archive):
                if count > SCAN_MEMBERS:
                    break
                name = member.name.removeprefix("./").lstrip("/")
                if not member.isreg() or not name.startswith(("usr/bin/", "bin/")):
                    continue
                file = archive.extractfile(member)
                head = file.read(20) if file else b""
                if head[:4] == b"\x7fELF" and len(head) == 20:
                    order = "little" if head[5] == 1 else "big"
                    number = int.from_bytes(head[18:20], order)  # type: ignore[arg-type]
                    return ELF_MACHINES.get(number, f"ELF machine {number}")
    except (tarfile.TarError, OSError, EOFError, lzma.LZMAError) as error:
        raise UsageError(
            f"{path} cannot be read as a tar archive (plain, gzip, xz or zstd): {error}"
        ) from error
    return None


def find_suite(suite: str, mirror: str | None, architecture: str, cache: Path) -> TarBase | None:
    """The cached base of `mmdebstrap:SUITE`, if it was made before."""
    tarball = cache / "bases" / f"{_suite_key(suite, mirror, architecture)}.tar.zst"
    digest = tarball.with_name(tarball.name.replace(".tar.zst", ".sha256"))
    try:
        os.utime(digest)
    except FileNotFoundError:
        return None
    return TarBase(f"mmdebstrap:{suite}", tarball, digest.read_text().strip())


def _suite_key(suite: str, mirror: str | None, architecture: str) -> str:
    parts = (FORMAT, suite, mirror, architecture, process.identity("mmdebstrap"))
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def ensure_suite(
    suite: str,
    *,
    mirror: str | None,
    architecture: str,
    anew: bool,
    cache: Path,
    work: Workspace,
    open_sandbox: SandboxOpener,
    finished: Callable[[Sandbox, TarBase], None],
    listen: Callable[[AgentEvent], None],
    log: Callable[[str], None],
    proxy: AptProxy = NO_PROXY,
) -> TarBase:
    """The base of `mmdebstrap:SUITE`, made now if need be; two callers at once make it once.

    With `anew` it is made even when there is one, which it then replaces.

    The packages are fetched and verified on the host without privilege; they are extracted and
    installed (their scripts run) in a helper VM, which `open_sandbox` starts meanwhile. `finished`
    is called while that VM still has the base unpacked. What is unfinished lies in `work`, and
    goes away with it.
    """
    store = cache / "bases"
    store.mkdir(exist_ok=True, mode=0o700)
    key = _suite_key(suite, mirror, architecture)
    deadline = Deadline.after(MAKE_SECONDS, f"making the base image mmdebstrap:{suite}")
    with locked(store / f"{key}.lock", deadline):
        base = find_suite(suite, mirror, architecture, cache)
        if base is not None and not anew:
            return base
        made = work.path / "base-files"
        debs = made / "debs"
        debs.mkdir(mode=0o700, parents=True)
        output = made / "base.tar"
        with (
            _fetching(debs, suite, mirror, architecture, log, deadline, proxy) as finish,
            open_sandbox("base", output) as sandbox,
        ):
            sources = finish()
            archives = list(debs.glob("*.deb"))
            depot.write_disk(archives, sandbox.packages, made, deadline, log=log, database=True)
            sandbox.agent.extract(sources, deadline, listen)

            def on_event(event: AgentEvent) -> None:
                if not sandbox.take_disk_event(event, deadline):
                    listen(event)

            sandbox.agent.run(
                [Bootstrap(), Export()], hostname=suite, deadline=deadline, listen=on_event
            )
            if sandbox.written is None:
                raise InfrastructureError("the helper VM wrote no base tarball")
            os.truncate(output, sandbox.written)
            compressed = _compress(output, 6, deadline)
            sha256 = file_sha256(compressed)
            # A tarball without its digest is none; the digest comes last.
            (store / f"{key}.sha256").unlink(missing_ok=True)
            compressed.rename(store / f"{key}.tar.zst")
            (made / "digest").write_text(f"sha256:{sha256}\n")
            (made / "digest").rename(store / f"{key}.sha256")
            base = find_suite(suite, mirror, architecture, cache)
            assert base is not None
            finished(sandbox, base)
    return base


def _compress(path: Path, level: int, deadline: Deadline) -> Path:
    """Replaces a file by its zstd form: the VM gets it through an emulated cipher."""
    process.run(
        ["zstd", "--quiet", "--rm", "-T0", f"-{level}", path],
        deadline=deadline,
        what="compressing the base tarball",
    )
    return path.with_name(f"{path.name}.zst")


@contextmanager
def _fetching(
    debs: Path,
    suite: str,
    mirror: str | None,
    architecture: str,
    log: Callable[[str], None],
    deadline: Deadline,
    proxy: AptProxy,
) -> Iterator[Callable[[], str]]:
    """Puts the packages of a base into `debs` while others do something.

    Yields what waits for the end and returns the sources.list(5) that they came from.
    """
    place = shlex.quote(str(debs))
    # The suites before trixie leave these links to the installer; later ones bring them.
    merge = (
        '--setup-hook=for d in bin sbin lib lib64; do mkdir -p "$1/usr/$d" && '
        'ln -s "usr/$d" "$1/$d" || exit 1; done'
    )
    keep = (
        f'--extract-hook=cp "$1/etc/apt/sources.list" {place} && '
        f'find "$1/var/cache/apt/archives" -name "*.deb" -exec mv -t {place} {{}} +'
    )
    essential = ["?essential", "?priority(required)", "apt", *EXTRA_PACKAGES.get(suite, ())]
    wanted = mmdebstrap.Wanted(suite, mirror, architecture, essential, hooks=[merge, keep])
    with mmdebstrap.extracting_packages(
        wanted,
        work=debs.parent,
        log=log,
        deadline=deadline.sooner(FETCH_SECONDS, f"fetching the packages of {suite}"),
        proxy=proxy,
    ) as finish:

        def sources() -> str:
            finish()
            return (debs / "sources.list").read_text()

        yield sources
