"""Checks of the network: listening ports, and HTTP responses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from particle_agent.contract.options import Between

from particle_os.recipe.checks.base import (
    CONTENT_BYTES,
    BaseCheck,
    Expression,
    Judgement,
    PortNumber,
    Reply,
    WebPath,
    judge_content,
)

# Socket states in /proc/net/tcp (TCP_LISTEN) and /proc/net/udp (not connected).
LISTENING = {"tcp": "0A", "udp": "07"}


@dataclass(frozen=True, kw_only=True)
class PortCheck(BaseCheck):
    """A program listens on a port."""

    kind = "port"
    port: PortNumber
    """The port number."""
    protocol: Literal["tcp", "udp"] = "tcp"
    """The transport protocol."""
    reachable: bool = False
    """Whether the host must also be able to connect to the port (TCP only)."""

    def __post_init__(self) -> None:
        if self.reachable and self.protocol == "udp":
            raise ValueError(f"port {self.port}: 'reachable' is for TCP only")

    @property
    def name(self) -> str:
        return f"port {self.port}/{self.protocol}"

    def asks(self) -> tuple[tuple[str, ...], ...]:
        tables = (f"/proc/net/{self.protocol}", f"/proc/net/{self.protocol}6")
        return tuple(("head", f"--bytes={CONTENT_BYTES}", "--", table) for table in tables)

    def judge(self, replies: Sequence[Reply]) -> Judgement:
        state = LISTENING[self.protocol]
        listening = re.compile(
            rf"^ *\d+: [0-9A-F]+:{self.port:04X} [0-9A-F]+:0000 {state} ", re.MULTILINE
        )
        holds = any(listening.search(reply.output) for reply in replies)
        return Judgement(holds, "something listens" if holds else "nothing listens there")


@dataclass(frozen=True, kw_only=True)
class HttpCheck(BaseCheck):
    """The image answers an HTTP request of the host."""

    kind = "http"
    http: WebPath
    """The path to request."""
    port: PortNumber = 80
    """The port in the image."""
    status: Annotated[int, Between(100, 599)] = 200
    """The expected status."""
    contains: str | None = None
    """A text that the first 64 KiB of the body must contain."""
    matches: Expression | None = None
    """A regular expression that must match somewhere in the first 64 KiB of the body."""

    @property
    def name(self) -> str:
        return f"http :{self.port}{self.http}"

    def judge_response(self, status: int, body: str) -> Judgement:
        """Judges the status and the body of a response."""
        if status != self.status:
            return Judgement(False, f"status {status}, not {self.status}: {body.strip()[:200]}")
        return judge_content(body, self.contains, self.matches)
