"""The members of a package that is malformed."""

import io

import pytest
from particle_agent.apt.dpkg import chunks, find_member
from particle_agent.errors import EnvironmentFailed


def package(*members):
    """An ar archive of (name, text of the size, content)."""
    data = b"!<arch>\n"
    for name, size, content in members:
        data += name.ljust(48) + size.ljust(10) + b"`\n" + content + b"\n" * (len(content) % 2)
    file = io.BytesIO(data)
    file.name = "a.deb"
    return file


def test_a_member_is_found_behind_one_of_an_odd_size():
    deb = package((b"debian-binary", b"3", b"2.0"), (b"data.tar", b"4", b"data"))
    assert find_member(deb, b"data.tar") == 4
    assert b"".join(chunks(deb, 4)) == b"data"


@pytest.mark.parametrize("size", [b"-60", b"four", b"", b"1e3"])
def test_a_member_without_a_size_is_refused(size):
    with pytest.raises(EnvironmentFailed, match=r"a\.deb is malformed: a member has no size"):
        find_member(package((b"debian-binary", size, b"")), b"data.tar")


@pytest.mark.parametrize("name", [b"data.tar.gz", b"data.ta", b"control.tar"])
def test_a_member_with_another_name_is_not_the_one(name):
    with pytest.raises(EnvironmentFailed, match=r"no uncompressed data\.tar"):
        find_member(package((name, b"4", b"data")), b"data.tar")


def test_a_package_that_ends_too_soon_is_refused():
    deb = package((b"data.tar", b"9", b"data"))
    with pytest.raises(EnvironmentFailed, match="ends too soon"):
        list(chunks(deb, find_member(deb, b"data.tar")))
