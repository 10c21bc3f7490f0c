"""The hosts that a guest reaches through a network card, from the Ethernet frames that QEMU dumps.

A guest writes the frames. No frame raises an error, and the memory for the results is bounded. Only
IPv4 counts, because QEMU's user networking forwards nothing else of our machines (`ipv6=off`).
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator

from particle_os.errors import printable
from particle_os.records import Record

# The bytes of a frame that QEMU dumps: enough for all headers and for a name of 255 bytes.
FRAME_BYTES = 384
ADDRESSES_LIMIT = 200
NAMES_LIMIT = 200
# https://www.iana.org/assignments/protocol-numbers/
PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp"}
TCP, UDP = 6, 17
DNS = 53


class Reached(Record):
    """The frames between the guest and one port of an address; `sent` and `received` in bytes.

    `port` is None for protocols without ports, and for fragments of packets.
    """

    protocol: str
    address: str
    port: int | None
    sent: int
    received: int


class Traffic(Record):
    """The names and addresses that a guest has reached.

    Each list has a limit; `more_...` count the rest. `names` are the names that the guest has asked
    a DNS server for. `complete` is false if the host may have missed frames.
    """

    names: tuple[str, ...] = ()
    reached: tuple[Reached, ...] = ()
    more_names: int = 0
    more_bytes: int = 0
    complete: bool = True


class Tally:
    """Adds up the frames of a card."""

    def __init__(self) -> None:
        self._bytes: dict[tuple[int, bytes, int | None], list[int]] = {}
        self._names: dict[bytes, None] = {}
        self._more_names = 0
        self._more_bytes = 0

    def add(self, frame: bytes, size: int, *, sent: bool) -> None:
        """Counts a frame of `size` bytes; `frame` holds its first bytes.

        `sent` is true if the guest has sent it. Formats: RFC 894, RFC 791, RFC 768, RFC 9293.
        """
        if frame[12:14] != b"\x08\x00" or len(frame) < 34 or frame[14] >> 4 != 4:
            return
        protocol, ports = frame[23], 14 + (frame[14] & 15) * 4
        address = frame[30:34] if sent else frame[26:30]
        # Fragments have ports only at the beginning of the packet, which other ones can overwrite.
        fragment = frame[20] & 0x3F or frame[21]
        port = None
        if protocol in (TCP, UDP) and not fragment and 34 <= ports <= len(frame) - 4:
            (port,) = struct.unpack_from(">H", frame, ports + 2 if sent else ports)
            if sent and protocol == UDP and port == DNS:
                self._ask(frame[ports + 8 :])
        key = (protocol, address, port)
        if (counts := self._bytes.get(key)) is None:
            if len(self._bytes) >= ADDRESSES_LIMIT:
                self._more_bytes += size
                return
            counts = self._bytes[key] = [0, 0]
        counts[0 if sent else 1] += size

    def _ask(self, message: bytes) -> None:
        """Notes the name of a DNS query (RFC 1035, 4.1)."""
        name = question(message)
        if name is None or name in self._names:
            return
        if len(self._names) >= NAMES_LIMIT:
            self._more_names += 1
        else:
            self._names[name] = None

    def result(self, *, complete: bool = True) -> Traffic:
        """The frames so far, the addresses with the most bytes first."""
        counts = sorted(self._bytes.items(), key=lambda item: -sum(item[1]))
        return Traffic(
            names=tuple(printable(name.decode("latin-1")) for name in self._names),
            reached=tuple(
                Reached(
                    protocol=PROTOCOLS.get(protocol, str(protocol)),
                    address=str(ipaddress.IPv4Address(address)),
                    port=port,
                    sent=sent,
                    received=received,
                )
                for (protocol, address, port), (sent, received) in counts
            ),
            more_names=self._more_names,
            more_bytes=self._more_bytes,
            complete=complete,
        )


def question(message: bytes) -> bytes | None:
    """The name in a DNS query, in small letters; None if there is none."""
    if len(message) < 12 or message[2] & 0x80 or message[4:6] == b"\0\0":
        return None
    labels, at = [], 12
    while at < len(message) and (length := message[at]):
        label = message[at + 1 : at + 1 + length]
        if length > 63 or len(label) < length or at > 12 + 255:
            return None
        labels.append(label)
        at += 1 + length
    return b".".join(labels).lower() if labels and at < len(message) else None


class Dump:
    """The frames in QEMU's dump, which arrives in pieces.

    Format (pcap): https://datatracker.ietf.org/doc/draft-ietf-opsawg-pcap/.
    """

    HEADER, RECORD = struct.Struct("=IHHIIII"), struct.Struct("=IIII")
    MAGIC = 0xA1B2C3D4

    def __init__(self) -> None:
        self._rest = b""
        self._started = self._broken = False

    def feed(self, data: bytes) -> Iterator[tuple[bytes, int]]:
        """Yields the beginning of each frame that is complete, and its whole size in bytes.

        Raises ValueError when the data is no such dump, and ignores all that follows.
        """
        if self._broken:
            return
        data, at = self._rest + data, 0
        if not self._started and len(data) >= self.HEADER.size:
            if self.HEADER.unpack_from(data)[0] != self.MAGIC:
                self._broken = True
                raise ValueError("not a dump")
            self._started, at = True, self.HEADER.size
        while self._started and len(data) - at >= self.RECORD.size:
            _, _, here, size = self.RECORD.unpack_from(data, at)
            if here > FRAME_BYTES:
                self._broken = True
                raise ValueError(f"a frame of {here} bytes")
            end = at + self.RECORD.size + here
            if end > len(data):
                break
            yield data[at + self.RECORD.size : end], size
            at = end
        self._rest = data[at:]
