import base64
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from particle_os.vm import smbios


@given(value=st.binary(max_size=200), number=st.integers(0, 99))
def test_a_table_holds_one_string_with_the_credential(value, number):
    data = smbios.table(number, "unit,name", value)
    kind, length, handle, count = struct.unpack("<BBHB", data[:5])
    assert (kind, length, count) == (11, 5, 1)
    assert handle == 0x0B00 + number
    assert data.endswith(b"\0\0")
    prefix, _, encoded = data[5:-2].decode().rpartition(":unit,name=")
    assert prefix == "io.systemd.credential.binary"
    assert base64.b64decode(encoded) == value


@pytest.mark.parametrize("name", ["a", "ab", "abc", "abcd", "a-longer.name-000"])
def test_a_table_is_never_longer_than_a_page(name):
    room = smbios.room(name)
    assert 4090 < len(smbios.table(0, name, bytes(room))) <= 4096
    with pytest.raises(ValueError, match="too long"):
        smbios.table(0, name, bytes(room + 3))


def test_the_files_are_those_of_the_command_line(tmp_path):
    credentials = {"a": b"1", "b": b"2"}
    smbios.write(credentials, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == smbios.file_names(credentials)
    assert (tmp_path / "credential-1.smbios").read_bytes() == smbios.table(1, "b", b"2")
