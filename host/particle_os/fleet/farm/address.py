"""The address of a farm, as `--on` names it."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from particle_os.errors import UsageError

PORT, DASHBOARD_PORT = 8786, 8787
PORT_NUMBER = re.compile(r"[0-9]{1,5}")
MOST_WORKERS = 64
LOCAL = re.compile(r"local:([1-9][0-9]?)")
SCHEDULER = re.compile(r"(tls|tcp)://([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:]+\])(?::([0-9]{1,5}))?")
FORMS = "Name a scheduler (tls://HOST:8786), or a number of workers on this machine (local:2)."


@dataclass(frozen=True)
class FarmAddress:
    """The URL of a scheduler, or the number of workers of a farm on this machine."""

    url: str | None = None
    workers: int = 0

    @classmethod
    def parse(cls, text: str) -> FarmAddress:
        """Reads `local:N`, tls://HOST[:PORT], or tcp://HOST[:PORT] on loopback.

        Raises UsageError.
        """
        if found := LOCAL.fullmatch(text):
            if int(found[1]) > MOST_WORKERS:
                raise UsageError(f"'{text}': a farm has at most {MOST_WORKERS} workers of its own")
            return cls(workers=int(found[1]))
        return cls(url=scheduler_url(text))

    @property
    def is_local(self) -> bool:
        """Whether the farm has its own scheduler and workers on this machine."""
        return self.url is None


def scheduler_url(text: str) -> str:
    """The complete URL of a scheduler. Raises UsageError, also for TCP without TLS elsewhere."""
    found = SCHEDULER.fullmatch(text)
    if found is None or int(found[3] or PORT) > 65535:
        raise UsageError(f"'{text}' is no farm", hint=FORMS)
    scheme, host, port = found[1], found[2], int(found[3] or PORT)
    if scheme == "tcp" and not is_loopback(host):
        raise UsageError(
            f"'{text}': tcp:// neither hides nor proves anything, so it is for loopback only",
            hint=f"Use tls://{host}:{port}; 'particle-os farm keys' makes the keys (docs/farm.md).",
        )
    return f"{scheme}://{host}:{port}"


def dashboard_address(text: str) -> str:
    """The address HOST:PORT of a page without TLS and password. Raises UsageError elsewhere."""
    host, _, port = text.rpartition(":")
    if not is_loopback(host) or not PORT_NUMBER.fullmatch(port) or int(port) > 65535:
        raise UsageError(
            f"'{text}': the dashboard has no TLS and no password, so it is for loopback only",
            hint=f"Use 127.0.0.1:{DASHBOARD_PORT}, and reach it through SSH (docs/farm.md).",
        )
    return text


def loopback_host(url: str) -> str | None:
    """The host of a scheduler's URL if it is loopback: others need not reach its workers then."""
    host = url.partition("://")[2].rpartition(":")[0]
    return host if is_loopback(host) else None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
