"""Checks of the network: ports that listen, and answers over HTTP."""

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

# /proc/net/tcp: the state TCP_LISTEN, and for udp that of a socket that is not connected.
LISTENING = {"tcp": "0A", "udp": "07"}


@dataclass(frozen=True, kw_only=True)
class PortCheck(BaseCheck):
    """Something listens on a port."""

    kind = "port"
    port: PortNumber
    """The port."""
    protocol: Literal["tcp", "udp"] = "tcp"
    """The protocol."""
    reachable: bool = False
    """Whether the host must be able to connect to it (TCP)."""

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
    """The host gets an answer over HTTP."""

    kind = "http"
    http: WebPath
    """The path that is asked for."""
    port: PortNumber = 80
    """The port of the image."""
    status: Annotated[int, Between(100, 599)] = 200
    """The status that must come."""
    contains: str | None = None
    """A text that must be in the first 64 KiB of the body."""
    matches: Expression | None = None
    """A regular expression that must match somewhere in them."""

    @property
    def name(self) -> str:
        return f"http :{self.port}{self.http}"

    def judge_response(self, status: int, body: str) -> Judgement:
        """What the server's answer means."""
        if status != self.status:
            return Judgement(False, f"status {status}, not {self.status}: {body.strip()[:200]}")
        return judge_content(body, self.contains, self.matches)
