"""Stage network: network interfaces and name resolution."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, ClassVar, Literal

from particle_agent.contract import needs
from particle_agent.contract.needs import Need
from particle_agent.contract.options import AtLeastOne, Options, Place, refuse
from particle_agent.contract.values import HostName, InterfaceAddress, InterfaceName, IpAddress
from particle_agent.errors import StageError
from particle_agent.stages.base import StageOptions
from particle_agent.stages.settings.unit_states import keeping_disabled
from particle_agent.target.target import Target

# systemd.network(5): networkd reads the files in the order of their names; the first match wins.
DIRECTORY = "/etc/systemd/network"
FIRST_NUMBER = 10
RESOLV_CONF = "/etc/resolv.conf"
# systemd-resolved.service(8)
STUB = "../run/systemd/resolve/stub-resolv.conf"
NETWORKD = "systemd-networkd.service"
RESOLVED = "systemd-resolved.service"
NAMED = "name the servers in 'dns' of the stage's interfaces"
UNITS = "/usr/lib/systemd/system"
# resolv.conf(5)
NAME_SERVER = re.compile(r"^nameserver[ \t]+\S", re.MULTILINE)
ADDRESSES = "write an address such as 192.0.2.1 or 2001:db8::1"


@dataclass(frozen=True, kw_only=True)
class Interface(Options):
    """Network interfaces with one configuration. The first entry that matches an interface wins."""

    match: Annotated[tuple[InterfaceName, ...], AtLeastOne()]
    """Interface names, or patterns such as `en*`."""
    dhcp: Literal["yes", "no", "ipv4", "ipv6"] | None = None
    """Whether to use DHCP. The default is `no` with `addresses` and `yes` without."""
    addresses: tuple[InterfaceAddress, ...] = ()
    """Static addresses with prefix length, such as `192.0.2.10/24`."""
    gateways: tuple[IpAddress, ...] = ()
    """Default gateways: at most one for IPv4 and one for IPv6."""
    dns: tuple[IpAddress, ...] = ()
    """Name servers."""
    search_domains: tuple[HostName, ...] = ()
    """Search domains for short host names."""
    required: bool = True
    """Whether the system is online only when this interface is."""

    def __post_init__(self) -> None:
        name = f"interface {self.match[0]}"
        refuse((place, f"{name}: {message}") for place, message in self._faults())

    def _faults(self) -> Iterator[tuple[Place, str]]:
        networks = []
        for index, text in enumerate(self.addresses):
            try:
                networks.append(ipaddress.ip_interface(text).network)
            except ValueError:
                example = "write it with its prefix length, such as 192.0.2.10/24"
                yield ("addresses", index), f"{text} is no address: {example}"
        versions = set()
        for index, text in enumerate(self.gateways):
            place = ("gateways", index)
            gateway = _address(text)
            if gateway is None:
                yield place, f"{text} is no address: {ADDRESSES}"
                continue
            # The gateway may belong to an address that is wrong itself.
            unsure = len(networks) < len(self.addresses)
            if not (unsure or gateway.is_link_local or any(gateway in one for one in networks)):
                yield place, f"the gateway {text} is in no network of 'addresses'"
            if gateway.version in versions:
                yield place, f"there are two gateways for IPv{gateway.version}"
            versions.add(gateway.version)
        for index, text in enumerate(self.dns):
            if _address(text) is None:
                yield ("dns", index), f"{text} is no address: {ADDRESSES}"


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


@dataclass(frozen=True, kw_only=True)
class Network(StageOptions):
    """Configures the network of the image with systemd-networkd.

    systemd-resolved resolves names when it is installed (package `systemd-resolved`). Otherwise the
    stage writes the `dns` servers to /etc/resolv.conf, and leaves this file as it is without `dns`.
    """

    only_configures: ClassVar[bool] = True
    type: Literal["network"] = "network"
    interfaces: Annotated[tuple[Interface, ...], AtLeastOne()]
    """The interfaces to configure."""
    resolved: bool | None = None
    """Whether to enable systemd-resolved. The default is `true` where it is installed."""

    def __post_init__(self) -> None:
        refuse(self._hidden())

    def _hidden(self) -> Iterator[tuple[Place, str]]:
        before: list[str] = []
        for number, interface in enumerate(self.interfaces):
            for index, name in enumerate(interface.match):
                if first := next((other for other in before if _covers(other, name)), None):
                    place = ("interfaces", number, "match", index)
                    whose = "the same" if first == name else f"'{first}'"
                    yield place, f"match: '{name}' has no effect: {whose} is in an earlier entry"
            before += interface.match

    def needs(self) -> Iterator[Need]:
        yield needs.package("systemd", f"{UNITS}/{NETWORKD}", "network", others=True)
        if self.resolved:
            unit = f"{UNITS}/{RESOLVED}"
            yield needs.package("systemd-resolved", unit, "resolved", "resolved")

    def rewrites(self) -> Iterator[tuple[str, str]]:
        if self.resolved or any(each.dns for each in self.interfaces):
            yield RESOLV_CONF, NAMED
        for path in self._files():
            yield path, "set this in the 'interfaces' of the stage"

    def replaces(self, path: str, before: Sequence[StageOptions]) -> str | None:
        if path == RESOLV_CONF and self.resolved is None and _has_resolved(before):
            return f"{NAMED}, or set 'resolved: false'"
        return super().replaces(path, before)

    def _files(self) -> Iterator[str]:
        """The paths of the files of the interfaces."""
        for number, interface in enumerate(self.interfaces, start=FIRST_NUMBER):
            name = re.sub("[^a-z0-9]+", "-", interface.match[0].lower()).strip("-") or "any"
            yield f"{DIRECTORY}/{number}-{name}.network"

    def run(self, target: Target) -> None:
        _require(target, NETWORKD, "systemd")
        resolved = self.resolved
        if resolved is None:
            resolved = target.exists(f"{UNITS}/{RESOLVED}")
        elif resolved:
            _require(target, RESOLVED, "systemd-resolved")
        for path, interface in zip(self._files(), self.interfaces, strict=True):
            target.write(path, _unit(interface))
        units = (NETWORKD, RESOLVED) if resolved else (NETWORKD,)
        # systemd-networkd-wait-online.service and others are in `Also=` of NETWORKD.
        with keeping_disabled(target, units):
            for unit in units:
                target.chroot(["systemctl", "--quiet", "enable", "--", unit])
        if resolved:
            target.symlink(RESOLV_CONF, STUB)
        else:
            _write_resolv_conf(target, self.interfaces)
        if target.exists("/usr/sbin/NetworkManager"):
            target.reporter.note(
                "the image also has NetworkManager: configure it to ignore the interfaces that "
                "systemd-networkd manages"
            )


def _has_resolved(stages: Sequence[StageOptions]) -> bool:
    """Whether the stages certainly bring systemd-resolved."""
    package = "systemd-resolved"
    need = Need(what=f"package {package}", message="", hint="", packages=(package,))
    for stage in reversed(stages):
        if package in stage.removes():
            return False
        if stage.names(need):
            return True
    return False


def _covers(pattern: str, name: str) -> bool:
    """Whether `pattern` certainly matches all that `name` (a pattern, too) matches."""
    # The wildcards ? and [ match one character each, so they never cover a `*`.
    return pattern == name or (not set("?[") & set(pattern) and fnmatchcase(name, pattern))


def _require(target: Target, unit: str, package: str) -> None:
    if not target.exists(f"{UNITS}/{unit}"):
        raise StageError(
            f"the image has no {unit.removesuffix('.service')}",
            hint=f"Add '{package}' to the packages of an apt stage before this one.",
        )


def _unit(interface: Interface) -> str:
    """The text of a file of systemd.network(5)."""
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
    """Writes resolv.conf(5) from the `dns` and `search-domains` of the interfaces.

    Without `dns`, a file that names servers stays as it is.
    """
    servers = list(dict.fromkeys(server for one in interfaces for server in one.dns))
    domains = list(dict.fromkeys(domain for one in interfaces for domain in one.search_domains))
    if not servers:
        own = target.is_file(RESOLV_CONF) and NAME_SERVER.search(target.read(RESOLV_CONF))
        if not own:
            target.reporter.note(
                "nothing in the image resolves names: give 'dns' servers, or install "
                "systemd-resolved, which uses the servers from DHCP"
            )
        elif domains:
            target.reporter.note(
                f"'search-domains' has no effect: {RESOLV_CONF} of the image stays as it is; "
                "give 'dns' servers, too, or write the domains into the file"
            )
        return
    text = "".join(f"nameserver {server}\n" for server in servers)
    target.write(RESOLV_CONF, text + (f"search {' '.join(domains)}\n" if domains else ""))
