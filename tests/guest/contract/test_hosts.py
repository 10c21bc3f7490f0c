"""The hosts that a stage may reach: which texts name some, and which hosts a text includes."""

import re

import pytest
from particle_agent.contract import hosts
from particle_agent.contract.decode import DecodeError, decode
from particle_agent.contract.hosts import HOSTS_LIMIT, HostPattern, meant, variables
from particle_agent.stages.contents.run import Run
from particle_agent.stages.settings.timezone import Timezone


def stage(network):
    return decode(Run, {"type": "run", "command": ["a"], "network": network})


@pytest.mark.parametrize(
    "host",
    [
        "mirror.example.org", "localhost", "a", "xn--bcher-kva.example", "a-b.c1.example:8443",
        "*.example.org", "*.example.org:1", "192.0.2.1", "127.0.0.1:65535", "_x.example.org"[1:],
    ],
)  # fmt: skip
def test_a_stage_takes_hosts(host):
    assert stage([host]).hosts == (host,)


@pytest.mark.parametrize(
    "host",
    [
        "", "*", "*.", ".example.org", "example.org.", "a..b", "-a.example", "a-.example",
        "A.example.org", "http://a.example", "a.example/", "user@a.example", "a.example:0",
        "a.example:65536", "a.example:080", "a.example:", "127.1", "2130706433", "0x7f.1",
        "0177.0.0.1", "256.0.0.1", "1.2.3", "*.192.0.2.1", "[::1]", "::1", "a.*.example",
        "*a.example", "a b", "a.example\n", "b\u00fccher.example", "a" * 64 + ".example",
    ],
)  # fmt: skip
def test_a_stage_refuses_what_is_no_host(host):
    with pytest.raises(DecodeError):
        stage([host])


def test_a_stage_has_one_host_at_least_and_not_too_many():
    many = [f"h{number}.example" for number in range(HOSTS_LIMIT)]
    assert len(stage(many).hosts) == HOSTS_LIMIT
    for wrong in ([], [*many, "one-more.example"]):
        with pytest.raises(DecodeError):
            stage(wrong)


@pytest.mark.parametrize("word", ["none", "packages", None])
def test_a_word_lists_no_hosts(word):
    found = stage(word)
    assert (found.network, found.hosts) == (word, ())


@pytest.mark.parametrize("wrong", ["mirror.example.org", {"a": "b"}, 1, [1], [["a"]]])
def test_anything_else_is_no_network(wrong):
    with pytest.raises(DecodeError):
        stage(wrong)


def test_a_stage_with_hosts_reads_the_network_and_has_no_cable():
    found = stage(["a.example"])
    assert found.asks_network
    assert not found.reaches_network
    assert Timezone(zone="UTC", network=("a.example",)).hosts == ()


def has(text, host, port):
    return HostPattern.written(text).has(host, port)


def test_a_host_without_a_port_has_those_of_the_web():
    assert has("a.example", "a.example", 80)
    assert has("a.example", "a.example", 443)
    assert not has("a.example", "a.example", 8080)
    assert has("a.example:8080", "a.example", 8080)
    assert not has("a.example:8080", "a.example", 80)


@pytest.mark.parametrize(
    ("host", "included"),
    [
        ("a.example.org", True),
        ("b.a.example.org", True),
        ("example.org", False),
        ("badexample.org", False),
        ("a.example.org.evil.example", False),
    ],
)
def test_a_star_stands_for_all_names_below(host, included):
    assert has("*.example.org", host, 443) == included


def test_a_name_includes_no_other_name():
    assert not has("example.org", "a.example.org", 80)
    assert not has("example.org", "xexample.org", 80)


def test_a_url_is_meant_as_its_host():
    assert meant("https://Mirror.Example.org/debian/") == "mirror.example.org"
    assert meant("MIRROR.example.org:8080") == "mirror.example.org:8080"
    assert meant("a b") is None
    assert meant("mirror.example.org") is None


def test_programs_find_the_proxy_in_either_spelling():
    found = variables(["a.example"])
    assert found["http_proxy"] == found["HTTPS_PROXY"] == "http://127.0.0.1:3128"
    assert found["no_proxy"] == "localhost,127.0.0.1,::1"
    assert variables(["localhost:80"])["NO_PROXY"] == "127.0.0.1,::1"
    assert re.fullmatch(hosts.AUTHORITY, found["http_proxy"].removeprefix("http://"))
