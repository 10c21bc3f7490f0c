"""The console of a boot loader is read as a terminal shows it."""

import random

import pytest
from particle_os.boot.observation.shown_console import LINES, ShownConsole

from ....limited import limited


def shown(*pieces):
    console = ShownConsole()
    return [text for piece in pieces for text, _ in console.feed(piece)]


@pytest.mark.parametrize(
    ("said", "seen"),
    [
        (b"SeaBIOS\r\nEXTLINUX 6.04\r\n", b"SeaBIOS\nEXTLINUX 6.04"),
        (b"Welcome to \x1b[1;12HGRUB!\r\n", b"Welcome to GRUB!"),
        (b"Welcome to \x1b[04;11H \x1b[04;12HGRUB!\r\n", b"Welcome to\n           GRUB!"),
        (b"\x1b[2J\x1b[1;1Hfirst\x1b[1;1Hother", b"other"),
        (b"111\r\n222\r\n333\x1b[2;2H\x1b[J", b"111\n2"),
        (b"111\r\n222\r\n333\x1b[2;2H\x1b[1J", b"  2\n333"),
        (b"\x1b[1;31mred\x1b[0m", b"red"),
        (b"\xc3\xa4\xff", "\ufffd\ufffd\ufffd".encode()),
    ],
)
def test_control_sequences_are_applied(said, seen):
    assert shown(said) == [seen]
    whole = [text for byte in said for text in shown(bytes([byte]))]
    assert whole


def test_pieces_change_the_lines_that_are_there():
    assert shown(b"boo", b"t: ") == [b"boo", b"boot:"]
    assert shown(b"Welcome \x1b", b"[1;9Hto") == [b"Welcome", b"Welcome to"]


def test_no_line_scrolls_out_of_sight_unread():
    text = b"".join(b"line %d\r\n" % number for number in range(10 * LINES))
    lines = b"\n".join(shown(text)).split(b"\n")
    assert {b"line %d" % number for number in range(10 * LINES)} <= set(lines)


def test_the_rest_follows_what_was_shown():
    text = b"".join(b"line %d\r\n" % number for number in range(2 * LINES))
    for seen, rest in ShownConsole().feed(text):
        last = seen.split(b"\n")[-1]
        assert rest == text.partition(last + b"\r\n")[2]


def test_malformed_sequences_end_nothing():
    source = random.Random(1)
    console = ShownConsole()
    for _ in range(200):
        for _ in console.feed(
            bytes(source.choice(b"\x1b[]?;0189hmABHJKPX#%()\r\n\xff") for _ in range(300))
        ):
            pass
    for sequence in (b"\x1b[?1m", b"\x1b[" + b"9" * 5000 + b"H", b"\x1b[?1;2;3A", b"\x1b[1;2;3A"):
        list(console.feed(sequence))
    assert [text for text, _ in console.feed(b"\x07\x18\x1bc\r\nboot:")][-1].endswith(b"boot:")


@pytest.mark.slow
@pytest.mark.parametrize(
    "sequence",
    ["\\n", "x\\n", "\\x1b#8", "\\x1b[2J", "\\x1b[200Cx\\n", "e\\xcc\\x81", "\\x1b[5L", "\\x1b]0;",
     "abc\\x1b[2J", "abc\\x1bc"],
)  # fmt: skip
def test_a_flood_is_read_in_bounds(sequence):
    setup = "from particle_os.boot.observation.shown_console import ShownConsole"
    action = f"""
    console = ShownConsole()
    for _ in range(3):
        for _ in console.feed(b"{sequence}" * ((1 << 15) // len(b"{sequence}"))):
            pass
    """
    assert limited(setup, action) == ""


def test_words_that_later_ones_erase_are_seen_even_if_all_come_at_once():
    """A busy host may read nothing until the kernel runs: OVMF, systemd-boot, and the kernel."""
    said = (
        b"\x1b[2J\x1b[01;01H\x1b[=3hBdsDxe: loading Boot0001\r\nBdsDxe: starting Boot0001\r\n"
        b" \x1b[2J\x1b[01;01H\x1b[15;33H\x1b[0mDebian\x1b[18;01HBoot in 1 s."
        b"\x1b[2J\x1b[01;01HEFI stub: Loaded initrd\r\n[    0.000000] Linux version 6\r\n"
    )
    seen = [text for text in shown(said) if text]
    assert len(seen) == 3
    for text, words in zip(seen, (b"starting Boot0001", b"Boot in 1 s", b"Linux"), strict=True):
        assert words in text
