"""The machine and the network of the boot test, as recipes name them."""

from __future__ import annotations

import ipaddress
import typing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from particle_agent.contract.options import Between, OneOrMore, Options, Place, refuse
from particle_agent.contract.values import InterfaceAddress, IpAddress
from particle_agent.stages.settings.network import Interface, Network

from particle_os.documents.annotations import field_types
from particle_os.errors import UsageError
from particle_os.recipe.checks.base import MemorySize

# Names that Linux and udev give the card of the test machine (systemd.net-naming-scheme(7)).
CARDS = ("enp0s2", "ens2", "eth0")


@dataclass(frozen=True, kw_only=True)
class Devices(Options):
    """The devices of the test machine. The image boots once with each combination."""

    disk: Annotated[tuple[Literal["virtio", "nvme", "ahci", "usb", "scsi"], ...], OneOrMore()] = (
        "virtio",
    )
    """The kinds of disk: virtio, nvme, ahci (SATA), usb, or scsi."""
    network_card: Annotated[tuple[Literal["virtio", "e1000e"], ...], OneOrMore()] = ("virtio",)
    """The kinds of network card: virtio, or e1000e (Intel)."""
    tpm: bool = False
    """Whether the machine has a TPM 2.0; this needs the program swtpm on the host."""
    memory: Annotated[tuple[MemorySize, ...], OneOrMore()] | None = None
    """The sizes of the memory, such as '512M' or '2G'; by default 1G, or the check `memory`."""
    processors: Annotated[tuple[Annotated[int, Between(1, 64)], ...], OneOrMore()] | None = None
    """The numbers of processors; by default as many as suit the host, 2 at most."""

    def __post_init__(self) -> None:
        refuse(self._repeated())

    def changed(self, **given: Any) -> Devices:
        """The devices with the fields that are `given`, not empty. Raises UsageError."""
        try:
            return replace(self, **{name: value for name, value in given.items() if value})
        except ValueError as error:
            raise UsageError(str(error), hint="Give each value of an option once.") from error

    @property
    def unusual(self) -> list[str]:
        """The words for what differs from the usual machine."""
        words: list[str] = [word for word in (*self.disk, *self.network_card) if word != "virtio"]
        words += ["tpm"] if self.tpm else []
        words += self.memory or ()
        return words + [f"{count} processors" for count in self.processors or ()]

    def _repeated(self) -> Iterator[tuple[Place, str]]:
        for name in ("disk", "network_card", "memory", "processors"):
            given = getattr(self, name) or ()
            if len(set(given)) < len(given):
                key = name.replace("_", "-")
                yield (key,), f"{key}: each is named once"


USUAL_DEVICES = Devices()


def kinds_of(option: str) -> tuple[str, ...]:
    """The words for the kinds of disk or of network card."""
    several, *_ = typing.get_args(field_types(Devices)[option])
    item, *_ = typing.get_args(several)
    return typing.get_args(item)


@dataclass(frozen=True, kw_only=True)
class Upgrade(Options):
    """The test of an update to the commit of the build."""

    from_: Literal["parent"]
    """`parent`: the system of the stage's `parent` boots and takes the update."""


@dataclass(frozen=True, kw_only=True)
class StaticAddress(Options):
    """The static address of the image in the network of the test machine."""

    address: InterfaceAddress
    """The IPv4 address with its prefix length, such as `192.0.2.10/24`."""
    gateway: IpAddress | None = None
    """The gateway of the image; the host answers for it."""

    def __post_init__(self) -> None:
        refuse(self._faults())

    def _faults(self) -> Iterator[tuple[Place, str]]:
        try:
            interface = ipaddress.IPv4Interface(self.address)
        except ValueError:
            yield ("address",), f"{self.address} is no IPv4 address such as 192.0.2.10/24"
            return
        try:
            gateway = None if self.gateway is None else ipaddress.IPv4Address(self.gateway)
        except ValueError:
            yield ("gateway",), f"{self.gateway} is no IPv4 address such as 192.0.2.1"
            return
        if gateway is not None and gateway not in interface.network:
            yield ("gateway",), f"the gateway {gateway} is not in the network of {interface}"


def static_address(stages: Iterable[object]) -> StaticAddress | None:
    """Returns the static IPv4 address that the stages give the card of the test machine.

    The last stage `network` counts, and in it the first interfaces whose names suit the card.
    """
    networks = [stage for stage in stages if isinstance(stage, Network)]
    interfaces = networks[-1].interfaces if networks else ()
    return next((_first_address(each) for each in interfaces if _suits(each)), None)


def _suits(interface: Interface) -> bool:
    return any(fnmatchcase(card, name) for card in CARDS for name in interface.match)


def _first_address(interface: Interface) -> StaticAddress | None:
    versions = [(ipaddress.ip_interface(text), text) for text in interface.addresses]
    found = next((text for address, text in versions if address.version == 4), None)
    if found is None:
        return None
    network = ipaddress.IPv4Interface(found).network
    gateways = [text for text in interface.gateways if ":" not in text]
    reached = (text for text in gateways if ipaddress.IPv4Address(text) in network)
    return StaticAddress(address=found, gateway=next(reached, None))
