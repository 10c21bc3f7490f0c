"""The addresses that a name may lead to."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator

from particle_agent.contract.hosts import HostPattern

# All addresses of this network lead to the host itself (RFC 1122, 3.2.1.3).
_THIS_HOST = ipaddress.IPv4Network("0.0.0.0/8")


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host, in the order of getaddrinfo(3). Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(place[0]) for *_, place in found))


def permitted(found: list[str], host: str, places: tuple[HostPattern, ...]) -> Iterator[str]:
    """The addresses of a host that the stage may reach.

    The owner of a name chooses its addresses, and must not lead a stage to the services of the host
    itself. A recipe that means these names them: `localhost`, or the address.
    """
    meant = host == "localhost" or host in found
    for address in found:
        if (meant and any(place.name == host for place in places)) or not is_own(address):
            yield address


def is_own(address: str) -> bool:
    """Whether the address leads to the host itself, to its link, or to no single host."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    if isinstance(found, ipaddress.IPv4Address) and found in _THIS_HOST:
        return True
    return found.is_loopback or found.is_link_local or found.is_unspecified or found.is_multicast
