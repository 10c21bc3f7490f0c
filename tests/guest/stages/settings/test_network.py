import configparser
import os

import pytest
from particle_agent.errors import StageError
from particle_agent.stages.settings.network import Interface, Network
from particle_agent.stages.settings.services import Services

UNITS = "/usr/lib/systemd/system"


@pytest.fixture
def debian(target):
    target.write(f"{UNITS}/systemd-networkd.service", "")
    return target


def set_up(target, *interfaces, **options):
    Network(interfaces=interfaces, **options).run(target)
    files = target.list("/etc/systemd/network")
    return {name: target.read(f"/etc/systemd/network/{name}") for name in files}


def test_dhcp_for_all_that_match(debian):
    files = set_up(debian, Interface(match=("en*", "eth*")))
    assert files == {"10-en.network": "[Match]\nName=en* eth*\n\n[Network]\nDHCP=yes\n"}
    assert debian.commands[0].argv == ("systemctl", "--quiet", "enable", "--",
                                       "systemd-networkd.service")  # fmt: skip
    assert len(debian.commands) == 1


def test_a_static_address_and_all_that_goes_with_it(debian):
    (text,) = set_up(
        debian,
        Interface(
            match=("ens3",),
            addresses=("192.0.2.10/24", "2001:db8::10/64"),
            gateways=("192.0.2.1", "fe80::1"),
            dns=("192.0.2.53", "2001:db8::53"),
            search_domains=("example.org", "example.net"),
            required=False,
        ),
    ).values()
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.read_string(text)
    assert parser["Network"]["DHCP"] == "no"
    assert parser["Network"]["Domains"] == "example.org example.net"
    assert parser["Link"]["RequiredForOnline"] == "no"
    for line in (
        "Address=192.0.2.10/24",
        "Address=2001:db8::10/64",
        "Gateway=192.0.2.1",
        "Gateway=fe80::1",
        "DNS=192.0.2.53",
        "DNS=2001:db8::53",
    ):
        assert f"\n{line}\n" in text


def test_the_order_of_the_recipe_is_the_order_in_which_they_hold(debian):
    files = set_up(debian, Interface(match=("ens3",), dhcp="no"), Interface(match=("*",)))
    assert list(files) == ["10-ens3.network", "11-any.network"]
    assert "DHCP=no" in files["10-ens3.network"]


def test_static_addresses_beside_dhcp(debian):
    interface = Interface(match=("a",), addresses=("192.0.2.1/24",), dhcp="ipv6")
    assert "DHCP=ipv6\n" in set_up(debian, interface)["10-a.network"]


def test_resolved_is_used_where_it_is_installed(debian):
    debian.write(f"{UNITS}/systemd-resolved.service", "")
    debian.write("/etc/resolv.conf", "nameserver 10.0.2.3\n")
    set_up(debian, Interface(match=("*",)))
    assert debian.commands[-1].argv[-1] == "systemd-resolved.service"
    link = os.readlink(debian.root / "etc/resolv.conf")
    assert link == "../run/systemd/resolve/stub-resolv.conf"


def test_resolved_can_be_left_out(debian):
    debian.write(f"{UNITS}/systemd-resolved.service", "")
    interface = Interface(match=("*",), dns=("192.0.2.53",), search_domains=("example.org",))
    set_up(debian, interface, resolved=False)
    assert len(debian.commands) == 1
    assert debian.read("/etc/resolv.conf") == "nameserver 192.0.2.53\nsearch example.org\n"
    assert debian.report.notes == []


def test_an_image_that_resolves_no_names_is_reported(debian):
    set_up(debian, Interface(match=("*",)))
    assert not debian.exists("/etc/resolv.conf")
    assert "resolves names" in debian.report.notes[0]


@pytest.mark.parametrize("text", ["", "# nameserver 192.0.2.53\n", "search example.org\n"])
def test_a_file_without_servers_resolves_no_names(debian, text):
    debian.write("/etc/resolv.conf", text)
    set_up(debian, Interface(match=("*",)))
    assert "resolves names" in debian.report.notes[0]


def test_servers_of_an_earlier_stage_resolve_names(debian):
    text = "search example.org\nnameserver\t192.0.2.53\n"
    debian.write("/etc/resolv.conf", text)
    set_up(debian, Interface(match=("*",)))
    assert debian.read("/etc/resolv.conf") == text
    assert debian.report.notes == []


def test_search_domains_do_not_change_a_file_of_an_earlier_stage(debian):
    debian.write("/etc/resolv.conf", "nameserver 192.0.2.53\n")
    set_up(debian, Interface(match=("*",), search_domains=("example.org",)))
    assert debian.read("/etc/resolv.conf") == "nameserver 192.0.2.53\n"
    (note,) = debian.report.notes
    assert note.startswith("'search-domains' has no effect: /etc/resolv.conf of the image stays")


def also_enables(target):
    """Imitates `systemctl enable` for systemd-networkd, which has others in `Also=`."""

    def systemctl(command):
        if "enable" in command.argv:
            for unit in ("systemd-networkd.service", "systemd-networkd-wait-online.service"):
                target.symlink(f"/etc/systemd/system/some.target.wants/{unit}", f"{UNITS}/{unit}")

    target.write("/bin/systemctl", "")
    target.write(f"{UNITS}/systemd-networkd-wait-online.service", "")
    target.when("systemctl", systemctl)


def test_a_unit_that_an_earlier_stage_disables_stays_disabled(debian):
    also_enables(debian)
    Services(disable=("systemd-networkd-wait-online",)).run(debian)
    set_up(debian, Interface(match=("*",)))
    wants = debian.list("/etc/systemd/system/some.target.wants")
    assert wants == ["systemd-networkd.service"]


def test_a_unit_that_no_stage_disables_is_enabled_with_networkd(debian):
    also_enables(debian)
    set_up(debian, Interface(match=("*",)))
    assert len(debian.list("/etc/systemd/system/some.target.wants")) == 2


@pytest.mark.parametrize(
    ("missing", "options", "package"),
    [("systemd-networkd", {}, "'systemd'"), ("systemd-resolved", {"resolved": True}, "-resolved'")],
)
def test_what_is_not_installed_is_named(debian, missing, options, package):
    debian.remove(f"{UNITS}/{missing}.service")
    with pytest.raises(StageError, match=f"the image has no {missing}") as raised:
        set_up(debian, Interface(match=("*",)), **options)
    assert package in raised.value.hint
    assert debian.commands == []
    assert debian.list("/etc/systemd/network") == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"addresses": ("192.0.2.300/24",)}, "192.0.2.300"),
        ({"addresses": ("192.0.2.3/33",)}, "192.0.2.3/33"),
        ({"addresses": ("192.0.2.3/24",), "gateways": ("192.0.3.1",)}, "gateway 192.0.3.1"),
        ({"gateways": ("192.0.2.1",)}, "gateway 192.0.2.1 is in no network"),
        ({"addresses": ("192.0.2.3/24",), "gateways": ("192.0.2.1", "192.0.2.2")}, "two gateways"),
        ({"dns": ("1.2.3",)}, "1.2.3"),
    ],
)
def test_addresses_that_cannot_be_are_refused_on_the_host(options, message):
    with pytest.raises(ValueError, match=f"interface en: .*{message}"):
        Interface(match=("en",), **options)
