"""The record of a proxy is bounded and plain, whatever a stage asks for."""

import json

import pytest
from particle_os.egress.record import HOSTS_LIMIT, Hosts, HostTally


def line(**record):
    return json.dumps(record).encode()


def test_the_bytes_of_a_host_add_up():
    tally = HostTally()
    for port in (80, 443, 80):
        assert tally.add(line(host="a.example", port=port, sent=1, received=10))
    tally.add(line(host="b.example", port=80, refused="not-listed"))
    tally.add(line(host="b.example", port=80, refused="not-listed"))
    found = tally.result()
    reached = [(each.port, each.requests, each.sent, each.received) for each in found.reached]
    assert reached == [(80, 2, 2, 20), (443, 1, 1, 10)]
    assert [(each.host, each.reason, each.requests) for each in found.refused] == [
        ("b.example", "not-listed", 2)
    ]


@pytest.mark.parametrize("kind", [{"sent": 1, "received": 1}, {"refused": "not-listed"}])
def test_the_record_has_a_limit(kind):
    tally = HostTally()
    for number in range(HOSTS_LIMIT + 5):
        tally.add(line(host=f"h{number}.example", port=80, **kind))
    tally.add(line(host="h0.example", port=80, **kind))
    found = tally.result()
    (listed,) = [each for each in (found.reached, found.refused) if each]
    assert len(listed) == HOSTS_LIMIT
    assert listed[0].requests == 2
    assert found.more_requests == 5


@pytest.mark.parametrize(
    "wrong",
    [
        b"", b"x", b"[]", b"1", b"{}", b'{"host": "a"}', b'{"host": 1, "port": 1, "refused": "a"}',
        b'{"host": "a", "port": "b", "refused": "a"}', b"[" * 5000, b"\xff",
        b'{"host": "a", "port": 1, "sent": 1}',
    ],
)  # fmt: skip
def test_other_lines_are_no_record(wrong):
    tally = HostTally()
    assert not tally.add(wrong)
    assert tally.result() == Hosts()


def test_text_of_a_stage_is_escaped():
    tally = HostTally()
    tally.add(line(host="\x1b[2J::error::", port=80, refused="\u202e"))
    (found,) = tally.result().refused
    assert "\x1b" not in found.host
    assert "\u202e" not in found.reason
