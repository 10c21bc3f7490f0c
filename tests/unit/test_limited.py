"""The measure of hostile inputs detects what it is made to detect."""

import pytest

from ..limited import Exhausted, limited


def test_an_error_for_the_user_is_told():
    assert "UsageError: no" in limited(
        "from particle_os.errors import UsageError", "raise UsageError('no')"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "action",
    ["bytearray(300 << 20)", "while True: pass", "raise ValueError", "[0] * (1 << 26)"],
)
def test_too_much_and_other_errors_are_noticed(action):
    with pytest.raises(Exhausted):
        limited("", action)
