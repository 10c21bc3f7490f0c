"""The addresses that a name may lead to."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator

from particle_agent.contract.hosts import HostPattern

# All addresses of this network lead to the host itself (RFC 1122, 3.2.1.3).
_THIS_HOST = ipaddress.IPv4Network("0.0.0.0/8")
# RFC 6052: addresses that a gateway translates. RFC 4291, 2.5.5.1: addresses with an IPv4 address.
_TRANSLATED = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::/96"))
DISCARD = 9


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
    if isinstance(found, ipaddress.IPv6Address) and (inner := _embedded(found)) is not None:
        return is_own(str(inner))
    if isinstance(found, ipaddress.IPv4Address) and found in _THIS_HOST:
        return True
    if found.is_loopback or found.is_link_local or found.is_unspecified or found.is_multicast:
        return True
    return _is_of_an_interface(address)


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 address stands for."""
    if any(address in network for network in _TRANSLATED) and int(address) > 1:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo and address.teredo[1])


def _is_of_an_interface(address: str) -> bool:
    """Whether an interface of this host has the address.

    The kernel sends to such an address from the address itself. connect(2) of UDP sends nothing.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, DISCARD))
        except OSError:
            return False
        return bool(probe.getsockname()[0] == address.partition("%")[0])
