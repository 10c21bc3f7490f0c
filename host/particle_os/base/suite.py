"""Bases of Debian suites (`mmdebstrap:SUITE`): made once, then kept in the cache."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from particle_agent.contract.wire import AgentEvent

from particle_os.apt.proxy import ChosenProxy
from particle_os.base.bootstrap import SandboxOpener, bootstrapped
from particle_os.base.model import Base, TarBase
from particle_os.system import process, publication
from particle_os.system.checksum import file_sha256
from particle_os.system.confinement import Confinement
from particle_os.system.deadline import Deadline
from particle_os.system.regular_file import read_regular
from particle_os.system.workspace import Workspace, locked

if TYPE_CHECKING:
    from particle_os.sandbox.running import Sandbox

# Increase it when the same packages give a different base.
FORMAT = 7
MAKE_SECONDS = 1800.0
DIGEST_LIMIT = 1000


def find_suite(
    suite: str, mirror: str | None, architecture: str, cache: Path, *, plain: bool
) -> TarBase | None:
    """The base of `mmdebstrap:SUITE` in the cache; None when it is not there.

    The cache keeps bases that were made with `plain` apart from others.
    """
    tarball = cache / "bases" / f"{suite_key(suite, mirror, architecture, plain)}.tar.zst"
    digest = tarball.with_name(tarball.name.replace(".tar.zst", ".sha256"))
    try:
        os.utime(digest)
    except FileNotFoundError:
        return None
    return TarBase(f"mmdebstrap:{suite}", tarball, read_digest(digest))


def read_digest(path: Path) -> str:
    """The digest in a file of the cache. Raises OSError."""
    return read_regular(path, DIGEST_LIMIT).decode("ascii", "replace").strip()


def is_damaged(base: Base) -> bool:
    """Whether `base` is a base of a suite in the cache that no longer has its digest."""
    if not isinstance(base, TarBase) or not base.reference.startswith("mmdebstrap:"):
        return False
    try:
        return f"sha256:{file_sha256(base.tarball)}" != base.digest
    except FileNotFoundError:
        return True


def adopt(key: str, tarball: Path, cache: Path) -> None:
    """Moves a base that another machine has made into the cache, if it lacks one of this key."""
    store = cache / "bases"
    store.mkdir(exist_ok=True, mode=0o700)
    with locked(store / f"{key}.lock", Deadline.after(MAKE_SECONDS, "keeping the base image")):
        if not (store / f"{key}.sha256").exists():
            _keep(tarball, store / key)


def suite_key(suite: str, mirror: str | None, architecture: str, plain: bool) -> str:
    """The key of the base of `mmdebstrap:SUITE` in the cache."""
    parts = (FORMAT, suite, mirror, architecture, process.identity("mmdebstrap"), plain)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def ensure_suite(
    suite: str,
    *,
    mirror: str | None,
    architecture: str,
    rebuild: bool,
    cache: Path,
    work: Workspace,
    open_sandbox: SandboxOpener,
    finished: Callable[[Sandbox, TarBase], None],
    listen: Callable[[AgentEvent], None],
    log: Callable[[str], None],
    note: Callable[[str], None],
    proxy: ChosenProxy,
    plain: bool,
) -> TarBase:
    """The base of `mmdebstrap:SUITE`; makes it when the cache lacks it.

    A lock makes concurrent callers make it once. With `rebuild` a new base replaces the cached one.
    With `plain` dpkg itself unpacks the packages. `finished` is called while the helper VM of
    `open_sandbox` still has the base unpacked. `work` holds temporary files.
    """
    store = cache / "bases"
    store.mkdir(exist_ok=True, mode=0o700)
    key = suite_key(suite, mirror, architecture, plain)
    deadline = Deadline.after(MAKE_SECONDS, f"making the base image mmdebstrap:{suite}")
    with locked(store / f"{key}.lock", deadline):
        base = find_suite(suite, mirror, architecture, cache, plain=plain)
        if base is not None and not rebuild:
            return base
        note(f"making the base image mmdebstrap:{suite} (once)")
        with bootstrapped(
            suite,
            mirror,
            architecture,
            directory=work.path / "base-files",
            open_sandbox=open_sandbox,
            listen=listen,
            log=log,
            deadline=deadline,
            proxy=proxy,
            plain=plain,
        ) as (sandbox, tarball):
            _keep(_compress(tarball, 6, deadline), store / key)
            base = find_suite(suite, mirror, architecture, cache, plain=plain)
            assert base is not None
            finished(sandbox, base)
    return base


def _keep(compressed: Path, place: Path) -> None:
    """Moves a compressed tarball into the cache; it replaces an older tarball."""
    digest = compressed.with_name("digest")
    digest.write_text(f"sha256:{file_sha256(compressed)}\n")
    # A tarball counts only with its digest, so the digest comes last.
    place.with_suffix(".sha256").unlink(missing_ok=True)
    publication.keep(compressed, place.with_suffix(".tar.zst"))
    publication.keep(digest, place.with_suffix(".sha256"))


def _compress(path: Path, level: int, deadline: Deadline) -> Path:
    """Compresses a file with zstd: fewer bytes pass the slow emulated cipher to the VM."""
    process.run(
        ["zstd", "--quiet", "--rm", "-T0", f"-{level}", path],
        deadline=deadline,
        what="compressing the base tarball",
        within=Confinement(writes=(path.parent,)),
    )
    return path.with_name(f"{path.name}.zst")
