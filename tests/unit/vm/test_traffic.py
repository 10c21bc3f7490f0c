"""The frames of a network card show the hosts that a guest reaches, whatever it writes."""

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from particle_os.vm.traffic import (
    ADDRESSES_LIMIT,
    FRAME_BYTES,
    NAMES_LIMIT,
    Dump,
    Reached,
    Tally,
    Traffic,
    question,
)

GUEST, THERE = b"\x0a\x00\x02\x0f", b"\xc6\x33\x64\x07"


def frame(protocol=6, source=GUEST, destination=THERE, ports=(40000, 443), *, more=b"", flags=0):
    """An Ethernet frame with an IPv4 packet."""
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 40, 1, flags, 64, protocol, 0) + source + destination
    return b"\xff" * 12 + b"\x08\x00" + ip + struct.pack(">HH", *ports) + more


def query(name, *, flags=0x0100, count=1):
    labels = b"".join(bytes([len(part)]) + part for part in name.split(b"."))
    return struct.pack(">6H", 7, flags, count, 0, 0, 0) + labels + b"\0\0\x01\0\x01"


def ask(name):
    return frame(17, ports=(40000, 53), more=b"\0" * 4 + query(name))


def reached(protocol, port, **sizes):
    return Reached(protocol=protocol, address="198.51.100.7", port=port, **sizes)


def tally(*frames):
    found = Tally()
    for each in frames:
        found.add(each, len(each), sent=True)
    return found


def test_the_bytes_of_both_directions_are_added_up_by_address_and_port():
    found = Tally()
    found.add(frame(), 60, sent=True)
    found.add(frame(), 1514, sent=True)
    found.add(frame(source=THERE, destination=GUEST, ports=(443, 40000)), 900, sent=False)
    found.add(frame(17, ports=(40000, 123)), 90, sent=True)
    assert found.result() == Traffic(
        reached=(
            reached("tcp", 443, sent=1574, received=900),
            reached("udp", 123, sent=90, received=0),
        )
    )


def test_a_guest_cannot_hide_where_it_sends_by_what_it_claims_to_be():
    """The queue gives the direction, not the addresses in the frame."""
    forged = frame(source=THERE, destination=b"\xcb\x00\x71\x09", ports=(443, 25))
    (found,) = tally(forged).result().reached
    assert (found.address, found.port) == ("203.0.113.9", 25)


@pytest.mark.parametrize("flags", [0x2000, 0x0001, 0x1FFF, 0x3000])
def test_a_fragment_has_no_port_that_one_could_trust(flags):
    (found,) = tally(frame(flags=flags)).result().reached
    assert (found.protocol, found.address, found.port) == ("tcp", "198.51.100.7", None)


def test_other_protocols_have_their_number():
    found = tally(frame(1), frame(47)).result().reached
    assert {(each.protocol, each.port) for each in found} == {("icmp", None), ("47", None)}


def test_the_names_that_a_guest_asks_for_are_listed_once():
    found = tally(ask(b"Deb.Example.org"), ask(b"deb.example.org"), ask(b"example.net")).result()
    assert found.names == ("deb.example.org", "example.net")
    assert [each.port for each in found.reached] == [53]


def test_an_answer_of_a_server_names_nothing():
    found = Tally()
    found.add(frame(17, ports=(53, 40000), more=b"\0" * 4 + query(b"a.b")), 90, sent=False)
    assert found.result().names == ()


@pytest.mark.parametrize(
    "message",
    [
        b"", query(b"a.b")[:11], query(b"a.b", count=0), query(b"a.b", flags=0x8000),
        query(b"a.b")[:14], query(b"a.b")[:12] + b"\xc0\x0c", query(b"a.b")[:12] + b"\0",
        query(b"a.b")[:12] + b"\x01a" * 200 + b"\0", query(b"a.b")[:12] + b"\x01a",
    ],
)  # fmt: skip
def test_what_is_no_question_names_nothing(message):
    assert question(message) is None


def test_a_name_is_escaped():
    assert tally(ask(b"a\x1b[2J.\xff")).result().names == ("a\\x1b[2j.\xff",)


def test_the_lists_are_bounded_and_what_is_beyond_is_counted():
    found = Tally()
    for number in range(ADDRESSES_LIMIT + 3):
        address = b"\xcb\x00" + struct.pack(">H", number)
        found.add(frame(destination=address), 100, sent=True)
    for number in range(NAMES_LIMIT + 2):
        found.add(ask(b"n%d" % number), 100, sent=True)
    result = found.result()
    assert (len(result.reached), len(result.names)) == (ADDRESSES_LIMIT, NAMES_LIMIT)
    # Three addresses, and the DNS server of every query.
    assert (result.more_bytes, result.more_names) == ((3 + NAMES_LIMIT + 2) * 100, 2)


@given(data=st.binary(max_size=FRAME_BYTES), sent=st.booleans(), head=st.booleans())
def test_no_frame_raises(data, sent, head):
    found = Tally()
    found.add(frame(17, ports=(1, 53))[:34] + data if head else data, len(data), sent=sent)
    assert len(found.result().reached) <= 1


@given(data=st.binary(max_size=300))
def test_no_message_raises(data):
    for message in (data, query(b"a")[:12] + data):
        assert len(question(message) or "") <= len(message)


HEADER = struct.pack("=IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, FRAME_BYTES, 1)


def dumped(*frames):
    return HEADER + b"".join(
        struct.pack("=IIII", 0, 0, len(data), size) + data for data, size in frames
    )


@given(cuts=st.lists(st.integers(0, 120), max_size=6))
def test_a_dump_may_arrive_in_any_pieces(cuts):
    frames = [(b"a" * 5, 60), (b"", 1514), (b"b" * 40, 40)]
    data, dump, found = dumped(*frames), Dump(), []
    places = [0, *sorted(cuts), len(data)]
    for start, end in itertools.pairwise(places):
        found += dump.feed(data[start:end])
    assert found == frames


@pytest.mark.parametrize("data", [b"\0" * 24, dumped((b"a" * (FRAME_BYTES + 1), 9999))])
def test_what_is_no_dump_is_refused_once_and_then_ignored(data):
    dump = Dump()
    with pytest.raises(ValueError, match=r"dump|frame"):
        list(dump.feed(data))
    assert list(dump.feed(dumped((b"a", 1)))) == []
