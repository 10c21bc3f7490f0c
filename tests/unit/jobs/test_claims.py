import errno
import fcntl
import os

import pytest
from particle_os.jobs.execution.claims import Claims


@pytest.fixture
def claims(tmp_path):
    """Opens the claims of one more process."""
    return lambda: Claims(tmp_path / "claims")


def test_a_key_is_claimed_once_until_it_is_dropped(claims):
    with claims() as one, claims() as other:
        assert one.take("a") and one.take("b")
        assert not other.take("a") and not other.take("b") and other.take("c")
        assert one.take("a"), "the owner may ask again"
        one.drop("a")
        assert other.take("a") and not other.take("b")


def test_the_end_of_a_process_drops_its_claims(claims):
    """The kernel closes the files of a process, however it ends."""
    with claims() as one:
        assert one.take("a")
        child = os.fork()
        if not child:
            # The lock belongs to the open file, which the child shares: it opens its own.
            other = claims()
            os._exit(other.take("b") and not other.take("a"))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
        assert one.take("b")
    with claims() as later:
        assert later.take("a")


def test_no_file_is_left_for_each_key(claims, tmp_path):
    with claims() as one:
        assert all(one.take(f"key {number}") for number in range(100))
    assert [path.name for path in tmp_path.iterdir()] == ["claims"]
    assert (tmp_path / "claims").stat().st_size == 0


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EINVAL, errno.ENOSYS])
def test_without_locks_each_process_works_for_itself(claims, monkeypatch, number):
    def refused(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "fcntl", refused)
    with claims() as one, claims() as other:
        assert one.take("a") and other.take("a")
        one.drop("a")
