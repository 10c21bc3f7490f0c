"""The static address of an image in the boot test comes from its stage `network`."""

import pytest
from particle_agent.stages.settings.network import Interface, Network
from particle_os.recipe.boot_options import Devices, StaticAddress, static_address


def network(*interfaces):
    return Network(interfaces=interfaces)


STATIC = Interface(
    match=("en*",), addresses=("2001:db8::2/64", "192.0.2.10/24"),
    gateways=("2001:db8::1", "192.0.2.1"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        ([], None),
        ([network(Interface(match=("en*",)))], None),
        ([network(STATIC)], StaticAddress(address="192.0.2.10/24", gateway="192.0.2.1")),
        ([network(Interface(match=("wl*",), addresses=("198.51.100.1/24",)), STATIC)],
         StaticAddress(address="192.0.2.10/24", gateway="192.0.2.1")),
        ([network(STATIC), network(Interface(match=("en*",)))], None),
        ([network(Interface(match=("eth0",), addresses=("192.0.2.10/24",)))],
         StaticAddress(address="192.0.2.10/24")),
        ([network(Interface(match=("en*",), addresses=("2001:db8::2/64",)))], None),
    ],
)  # fmt: skip
def test_the_address_is_that_of_the_interface_that_suits_the_card(stages, expected):
    assert static_address(stages) == expected


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"address": "2001:db8::2/64"}, "no IPv4 address"),
        ({"address": "192.0.2.300/24"}, "no IPv4 address"),
        ({"address": "192.0.2.10/24", "gateway": "198.51.100.1"}, "not in the network"),
        ({"address": "192.0.2.10/24", "gateway": "2001:db8::1"}, "no IPv4 address"),
    ],
)
def test_an_address_that_cannot_be_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        StaticAddress(**options)


def test_a_device_that_is_named_twice_is_refused():
    with pytest.raises(ValueError, match="network-card: each is named once"):
        Devices(network_card=("e1000e", "e1000e"))
