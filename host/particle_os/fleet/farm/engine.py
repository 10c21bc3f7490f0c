"""The use of Dask's `distributed`, which is an extra: it is imported by what needs it."""

from __future__ import annotations

import logging
import shlex
import sys
from typing import TYPE_CHECKING, Any

from particle_os.errors import UsageError
from particle_os.fleet.farm.keys import FarmKeys

if TYPE_CHECKING:
    from distributed import Security

EXTRA = "particle-os[farm]"


def require() -> None:
    """Raises UsageError when `distributed` is not installed."""
    try:
        import distributed  # noqa: F401
    except ImportError as error:
        command = f"{shlex.quote(sys.executable)} -m pip install '{EXTRA}'"
        raise UsageError(
            f"the farm needs Dask's 'distributed', which is not installed: {error}",
            hint=f"Run: {command}",
        ) from error


def security(url: str, keys: FarmKeys | None) -> Security | None:
    """The certificates for a scheduler's URL; None for one without TLS. Raises UsageError."""
    from distributed import Security

    if not url.startswith("tls://"):
        return None
    assert keys is not None
    keys.check()
    ca, certificate, private = map(str, keys.files)
    roles: dict[str, Any] = {}
    for role in ("client", "scheduler", "worker"):
        roles |= {f"tls_{role}_cert": certificate, f"tls_{role}_key": private}
    return Security(tls_ca_file=ca, require_encryption=True, **roles)


def quiet() -> None:
    """Hides the messages of `distributed`: what matters to a user of `build` is an event."""
    for name in ("distributed", "tornado", "asyncio"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.CRITICAL + 1)
        logger.propagate = False
