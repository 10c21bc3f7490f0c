"""The hosts that a stage reached through its proxy, for the result."""

from __future__ import annotations

import json
from collections.abc import Mapping

from particle_os.errors import printable
from particle_os.records import Record

HOSTS_LIMIT = 200
NAME_CHARACTERS = 255


class HostReached(Record):
    """A host and port; `sent` and `received` are the bytes of all its requests and answers."""

    host: str
    port: int
    requests: int
    sent: int
    received: int


class HostRefused(Record):
    """A host and port that the proxy did not reach.

    `reason` is "not-listed", "own-address" (the name leads to the host itself), "no-address" (the
    name does not exist) or "no-answer".
    """

    host: str
    port: int
    reason: str
    requests: int


class Hosts(Record):
    """The hosts that a stage with a list of hosts has asked for.

    Each list has a limit; `more_requests` counts the requests for further hosts.
    """

    reached: tuple[HostReached, ...] = ()
    refused: tuple[HostRefused, ...] = ()
    more_requests: int = 0


class HostTally:
    """Adds up the records that the proxy prints."""

    def __init__(self) -> None:
        self._reached: dict[tuple[str, int], HostReached] = {}
        self._refused: dict[tuple[str, int, str], HostRefused] = {}
        self._more = 0

    def add(self, line: bytes) -> bool:
        """Counts the record in a line; returns False if the line has none."""
        try:
            record = json.loads(line)
            host, port = printable(record["host"], NAME_CHARACTERS), int(record["port"])
            if "refused" in record:
                self._refuse(host, port, printable(record["refused"], NAME_CHARACTERS))
            else:
                self._reach(host, port, record)
        except (ValueError, TypeError, KeyError, RecursionError):
            return False
        return True

    def _reach(self, host: str, port: int, record: Mapping[str, int]) -> None:
        before = self._reached.get((host, port))
        if before is None and len(self._reached) >= HOSTS_LIMIT:
            self._more += 1
            return
        self._reached[host, port] = HostReached(
            host=host,
            port=port,
            requests=1 + (before.requests if before else 0),
            sent=int(record["sent"]) + (before.sent if before else 0),
            received=int(record["received"]) + (before.received if before else 0),
        )

    def _refuse(self, host: str, port: int, reason: str) -> None:
        before = self._refused.get((host, port, reason))
        if before is None and len(self._refused) >= HOSTS_LIMIT:
            self._more += 1
            return
        self._refused[host, port, reason] = HostRefused(
            host=host,
            port=port,
            reason=reason,
            requests=1 + (before.requests if before else 0),
        )

    def result(self) -> Hosts:
        """The records so far."""
        return Hosts(
            reached=tuple(self._reached.values()),
            refused=tuple(self._refused.values()),
            more_requests=self._more,
        )
