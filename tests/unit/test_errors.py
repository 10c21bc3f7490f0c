import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from particle_os.errors import (
    InvalidDocument,
    Problem,
    printable,
    whole_line,
    without_credentials,
)

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text\twith a tab", "plain text\twith a tab"),
        ("Grüße, 日本, €", "Grüße, 日本, €"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x9b31m", "\\x9b31m"),
        ("a\nb\rc\x07\x7f\0", "a\\nb\\rc\\x07\\x7f\\x00"),
        ("\u202eevil\u2066", "\\u202eevil\\u2066"),
        ("zero\u200bwidth\u200f", "zero\\u200bwidth\\u200f"),
        ("\u061c", "\\u061c"),
        ("\u2028\u2029", "\\u2028\\u2029"),
        ("\ud800 alone", "\\ud800 alone"),
        ("x ##[error]y", "x #\\x23[error]y"),
        ("##vso[task.x]", "#\\x23vso[task.x]"),
        ("## a title, #[derive]", "## a title, #[derive]"),
        ("\U000e0041", "\\U000e0041"),
    ],
    ids=ascii,
)
def test_what_could_play_tricks_is_escaped(text, shown):
    assert ascii(printable(text)) == ascii(shown)


@given(ANY_TEXT)
def test_any_text_can_be_written_and_holds_no_controls(text):
    shown = printable(text)
    shown.encode("utf-8")
    controls = {c for c in shown if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")}
    assert controls <= {"\t"}
    bidirectional = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    assert not {unicodedata.bidirectional(c) for c in shown} & bidirectional


def test_text_is_cut():
    assert len(printable("x" * 10_000)) == 2000
    assert printable("abcdef", 3) == "abc"


def test_problems_come_in_the_order_of_the_file():
    late, early = Problem("r", 9, 1, "a", "late"), Problem("r", 2, 5, "b", "early")
    invalid = InvalidDocument([late, early])
    assert [p.message for p in invalid.problems] == ["early", "late"]
    assert invalid.brief == "r: 2 errors"
    assert str(early) == "r:2:5: early [b]"


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("::error::x", "\\x3a:error::x"),
        ("    ::add-mask::x", "    \\x3a:add-mask::x"),
        ("\t\u00a0\u3000::x", "\t\u00a0\u3000\\x3a:x"),
        ("\u00ad::x", "\u00ad\\x3a:x"),
        ("x ::error::y", "x ::error::y"),
        (": :x", ": :x"),
    ],
)
def test_no_line_begins_like_a_command(line, shown):
    assert whole_line(line) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("docker-archive:two@1", "docker-archive:two@1"),
        ("oci-archive:/srv/a:b@1", "oci-archive:/srv/a:b@1"),
        ("http://ann:pw@example.org/x", "http://***@example.org/x"),
        ("tar:http://ann:pw@example.org/x", "tar:***@example.org/x"),
        ("ann:pw@example.org", "ann:***@example.org"),
    ],
)
def test_a_file_is_no_address_with_a_password(text, shown):
    assert without_credentials(text) == shown
