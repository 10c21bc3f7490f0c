"""A name leads to the services of the host itself only if the recipe means them."""

import pytest
from particle_agent.contract.hosts import HostPattern
from particle_os.egress import addresses
from particle_os.egress.addresses import is_own, permitted, resolve

OWN = (
    "127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "169.254.169.254", "224.0.0.1", "::1",
    "::", "fe80::1", "fe80::1%eth0", "ff02::1", "::ffff:127.0.0.1", "::ffff:0.0.0.0",
    "::ffff:169.254.1.1", "64:ff9b::7f00:1", "::7f00:1", "2002:7f00:1::1",
)  # fmt: skip
OTHERS = ("192.0.2.1", "10.0.0.1", "192.168.1.1", "2001:db8::1", "fd00::1", "::ffff:192.0.2.1")


@pytest.fixture
def no_interface(monkeypatch):
    """No interface has an address of the tests, whatever the host's own address is."""
    monkeypatch.setattr(addresses, "_is_of_an_interface", lambda address: False)


@pytest.mark.parametrize("address", OWN)
def test_an_address_of_the_host_itself_is_known(address):
    assert is_own(address)


@pytest.mark.parametrize("address", OTHERS)
def test_other_addresses_lead_elsewhere(address, no_interface):
    assert not is_own(address)


def allowed(found, host, *written):
    return list(permitted(found, host, tuple(map(HostPattern.written, written))))


def test_a_name_does_not_lead_to_the_host_itself(no_interface):
    assert allowed([*OWN, *OTHERS], "a.example.org", "a.example.org") == list(OTHERS)
    assert allowed(["127.0.0.1"], "a.example.org", "*.example.org") == []
    assert allowed(["127.0.0.1"], "localhost.example.org", "localhost.example.org") == []


def test_a_recipe_may_mean_the_host_itself():
    assert allowed(["::1", "127.0.0.1"], "localhost", "localhost:8080") == ["::1", "127.0.0.1"]
    assert allowed(["127.0.0.1"], "127.0.0.1", "127.0.0.1:8080") == ["127.0.0.1"]
    assert allowed(["127.0.0.1"], "127.0.0.1", "localhost") == []
    assert allowed(["127.0.0.1"], "a.localhost", "*.localhost") == []


def test_each_address_is_there_once_and_in_order(monkeypatch):
    answer = [(0, 0, 0, "", ("2001:db8::1", 80, 0, 0)), (0, 0, 0, "", ("192.0.2.1", 80))]
    monkeypatch.setattr(addresses.socket, "getaddrinfo", lambda *_, **__: [*answer, answer[0]])
    assert resolve("a.example.org", 80) == ["2001:db8::1", "192.0.2.1"]


def test_the_address_of_an_interface_is_the_host_itself(monkeypatch):
    assert addresses._is_of_an_interface("127.0.0.1")
    # This network has no hosts (RFC 6890).
    assert not addresses._is_of_an_interface("240.0.0.1")
    monkeypatch.setattr(addresses, "_is_of_an_interface", lambda address: address == "192.0.2.1")
    assert is_own("192.0.2.1")
    assert is_own("::ffff:192.0.2.1")
    assert not is_own("192.0.2.2")
