"""The network of the running system."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, ClassVar, Literal

from particle_agent.contract import needs
from particle_agent.contract.needs import Need
from particle_agent.contract.options import AtLeastOne, Options, Place, refuse
from particle_agent.contract.values import HostName, InterfaceAddress, InterfaceName, IpAddress
from particle_agent.errors import StageError
from particle_agent.stages.base import StageOptions
from particle_agent.target.target import Target

# systemd.network(5): files are read in the order of their names, and the first that matches holds.
DIRECTORY = "/etc/systemd/network"
FIRST_NUMBER = 10
RESOLV_CONF = "/etc/resolv.conf"
# systemd-resolved.service(8)
STUB = "../run/systemd/resolve/stub-resolv.conf"
NETWORKD = "systemd-networkd.service"
RESOLVED = "systemd-resolved.service"
UNITS = "/usr/lib/systemd/system"
ADDRESSES = "write one such as 192.0.2.1 or 2001:db8::1"


@dataclass(frozen=True, kw_only=True)
class Interface(Options):
    """Network interfaces that are set up alike; the first entry that matches one holds for it."""

    match: Annotated[tuple[InterfaceName, ...], AtLeastOne()]
    """Names, or patterns such as `en*`."""
    dhcp: Literal["yes", "no", "ipv4", "ipv6"] | None = None
    """Whether DHCP gives addresses; `yes` when there are no `addresses`, else `no`."""
    addresses: tuple[InterfaceAddress, ...] = ()
    """Static addresses with the length of their prefix, such as `192.0.2.10/24`."""
    gateways: tuple[IpAddress, ...] = ()
    """The routers by which everything else is reached, at most one for IPv4 and one for IPv6."""
    dns: tuple[IpAddress, ...] = ()
    """Name servers."""
    search_domains: tuple[HostName, ...] = ()
    """Domains in which short names are looked up."""
    required: bool = True
    """Whether the system counts as online only when the interface is."""

    def __post_init__(self) -> None:
        name = f"interface {self.match[0]}"
        refuse((place, f"{name}: {message}") for place, message in self._faults())

    def _faults(self) -> Iterator[tuple[Place, str]]:
        networks = []
        for index, text in enumerate(self.addresses):
            try:
                networks.append(ipaddress.ip_interface(text).network)
            except ValueError:
                example = "write one with the length of its prefix, such as 192.0.2.10/24"
                yield ("addresses", index), f"there is no address {text}: {example}"
        versions = set()
        for index, text in enumerate(self.gateways):
            place = ("gateways", index)
            gateway = _address(text)
            if gateway is None:
                yield place, f"there is no address {text}: {ADDRESSES}"
                continue
            # It may be meant for an address that is wrong.
            told = len(networks) < len(self.addresses)
            if not (told or gateway.is_link_local or any(gateway in one for one in networks)):
                yield place, f"the gateway {text} is in no network of 'addresses'"
            if gateway.version in versions:
                yield place, f"there are two gateways for IPv{gateway.version}"
            versions.add(gateway.version)
        for index, text in enumerate(self.dns):
            if _address(text) is None:
                yield ("dns", index), f"there is no address {text}: {ADDRESSES}"


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


@dataclass(frozen=True, kw_only=True)
class Network(StageOptions):
    """Sets up the network of the running system with systemd-networkd.

    Names are resolved by systemd-resolved when it is installed (package `systemd-resolved`), or
    else by the `dns` servers, which are written to /etc/resolv.conf.
    """

    only_configures: ClassVar[bool] = True
    type: Literal["network"] = "network"
    interfaces: Annotated[tuple[Interface, ...], AtLeastOne()]
    """The interfaces, by name or pattern."""
    resolved: bool | None = None
    """Whether systemd-resolved is enabled; when not given, if it is installed."""

    def __post_init__(self) -> None:
        refuse(self._hidden())

    def _hidden(self) -> Iterator[tuple[Place, str]]:
        before: list[str] = []
        for number, interface in enumerate(self.interfaces):
            for index, name in enumerate(interface.match):
                if first := next((other for other in before if _covers(other, name)), None):
                    place = ("interfaces", number, "match", index)
                    whose = "the same" if first == name else f"'{first}'"
                    yield place, f"match: '{name}' is of no use: {whose} stands in an entry before"
            before += interface.match

    def needs(self) -> Iterator[Need]:
        yield needs.package("systemd", f"{UNITS}/{NETWORKD}", "network", others=True)
        if self.resolved:
            brought, unit = ("libnss-resolve",), f"{UNITS}/{RESOLVED}"
            yield needs.package("systemd-resolved", unit, "resolved", "resolved", also=brought)

    def run(self, target: Target) -> None:
        _require(target, NETWORKD, "systemd")
        resolved = self.resolved
        if resolved is None:
            resolved = target.exists(f"{UNITS}/{RESOLVED}")
        elif resolved:
            _require(target, RESOLVED, "systemd-resolved")
        for number, interface in enumerate(self.interfaces, start=FIRST_NUMBER):
            name = re.sub("[^a-z0-9]+", "-", interface.match[0].lower()).strip("-") or "any"
            target.write(f"{DIRECTORY}/{number}-{name}.network", _unit(interface))
        target.chroot(["systemctl", "--quiet", "enable", "--", NETWORKD])
        if resolved:
            target.chroot(["systemctl", "--quiet", "enable", "--", RESOLVED])
            target.symlink(RESOLV_CONF, STUB)
        else:
            _write_resolv_conf(target, self.interfaces)
        if target.exists("/usr/sbin/NetworkManager"):
            target.reporter.note(
                "the image has NetworkManager, too; it leaves alone what systemd-networkd manages "
                "only if it is told so"
            )


def _covers(pattern: str, name: str) -> bool:
    """Whether all that `name` matches is surely matched by `pattern`."""
    # Those other wildcards match one character of a name, and not any pattern in its place.
    return pattern == name or (not set("?[") & set(pattern) and fnmatchcase(name, pattern))


def _require(target: Target, unit: str, package: str) -> None:
    if not target.exists(f"{UNITS}/{unit}"):
        raise StageError(
            f"the image has no {unit.removesuffix('.service')}",
            hint=f"Add '{package}' to the packages of an apt stage before this one.",
        )


def _unit(interface: Interface) -> str:
    """A file of systemd.network(5)."""
    dhcp = interface.dhcp or ("no" if interface.addresses else "yes")
    lines = ["[Match]", f"Name={' '.join(interface.match)}", "", "[Network]", f"DHCP={dhcp}"]
    lines += [f"Address={address}" for address in interface.addresses]
    lines += [f"Gateway={gateway}" for gateway in interface.gateways]
    lines += [f"DNS={server}" for server in interface.dns]
    if interface.search_domains:
        lines.append(f"Domains={' '.join(interface.search_domains)}")
    if not interface.required:
        lines += ["", "[Link]", "RequiredForOnline=no"]
    return "\n".join(lines) + "\n"


def _write_resolv_conf(target: Target, interfaces: tuple[Interface, ...]) -> None:
    """resolv.conf(5) with what the interfaces say; networkd itself writes none."""
    servers = list(dict.fromkeys(server for one in interfaces for server in one.dns))
    domains = list(dict.fromkeys(domain for one in interfaces for domain in one.search_domains))
    if not servers:
        target.reporter.note(
            "nothing in the image resolves names: name 'dns' servers, or install systemd-resolved, "
            "which takes those of DHCP"
        )
        return
    text = "".join(f"nameserver {server}\n" for server in servers)
    target.write(RESOLV_CONF, text + (f"search {' '.join(domains)}\n" if domains else ""))
