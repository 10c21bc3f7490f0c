"""The addresses of QEMU's user network for a guest with a static address.

The network must contain the guest's address, and the gateway's must be the host's: otherwise the
guest cannot answer the host. Options: https://www.qemu.org/docs/master/system/invocation.html
(`-netdev user`).
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

# QEMU needs three addresses beside the guest's network: host, name server and guest.
LONGEST_PREFIX = 29
# QEMU refuses a shorter prefix (net/slirp.c).
SHORTEST_PREFIX = 4


@dataclass(frozen=True)
class UserNetwork:
    """The static address of a guest, with its prefix length, and the guest's gateway, if any."""

    guest: IPv4Interface
    gateway: IPv4Address | None = None

    @property
    def network(self) -> IPv4Network:
        """The network that QEMU emulates: the guest's, or a larger one if that is too small."""
        length = min(max(self.guest.network.prefixlen, SHORTEST_PREFIX), LONGEST_PREFIX)
        return IPv4Network((self.guest.ip, length), strict=False)

    def modes(self) -> list[str]:
        """Returns the options of `-netdev user` for the addresses.

        A guest that asks by DHCP gets the same address.
        """
        others = (host for host in self.network.hosts() if host != self.guest.ip)
        free = (host for host in others if host != self.gateway)
        host = next(free) if self._usable_gateway is None else self._usable_gateway
        return [
            f"net={self.network}",
            f"host={host}",
            f"dns={next(free)}",
            f"dhcpstart={self.guest.ip}",
        ]

    @property
    def _usable_gateway(self) -> IPv4Address | None:
        gateway = self.gateway
        if gateway is None or gateway not in self.network or gateway == self.guest.ip:
            return None
        return gateway
