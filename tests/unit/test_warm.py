"""Saved states of machines, as files."""

import hashlib

import pytest
from particle_os import cache
from particle_os.vm import warm

CONTENT = bytes(range(256)) * 5000


@pytest.fixture
def state(tmp_path):
    (tmp_path / "warm").mkdir()
    path = tmp_path / "warm" / "key.state"
    path.write_bytes(CONTENT + hashlib.sha256(CONTENT).digest())
    return path


def test_a_state_is_what_was_saved(state, tmp_path):
    assert warm.intact(state)
    assert cache.damaged(tmp_path) == []


@pytest.mark.parametrize("damage", [
    lambda data: data[:-1],
    lambda data: data[:40],
    lambda data: data[:10],
    lambda data: b"",
    lambda data: data + b"x",
    lambda data: data[:70_000] + b"!" + data[70_001:],
    lambda data: data[:-1] + bytes([data[-1] ^ 1]),
])  # fmt: skip
def test_a_damaged_state_is_told(state, tmp_path, damage):
    state.write_bytes(damage(state.read_bytes()))
    assert not warm.intact(state)
    assert [entry.name for entry in cache.damaged(tmp_path)] == ["key"]


def test_what_is_no_state_is_damaged(state, tmp_path):
    state.unlink()
    state.mkdir()
    assert [entry.name for entry in cache.damaged(tmp_path)] == ["key"]
