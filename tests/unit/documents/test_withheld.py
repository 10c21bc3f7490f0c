import pytest
from particle_os.documents.withheld import Withheld


@pytest.mark.parametrize(
    ("texts", "message", "shown"),
    [
        ((), "hunter2", "hunter2"),
        (("hunter2",), "x=hunter2, hunter2!", "x=***, ***!"),
        (("hunter2", "hunter2-and-more"), "hunter2-and-more hunter2", "*** ***"),
        (("abc",), "abc", "abc"),
        (("abcd",), "abcabcd", "abc***"),
        (("abcd", "cdefgh"), "abcdefgh!", "***!"),
        (("abcd",), "", ""),
        (("äöüß",), "größe äöüß", "größe ***"),
    ],
)
def test_texts_are_replaced_with_all_that_overlap(texts, message, shown):
    assert Withheld(texts).removed_from(message) == shown


def test_texts_can_be_added():
    both = Withheld(["first"]).and_these(["second", "no"])
    assert both.removed_from("first second no") == "*** *** no"
