"""The base from the host: the agent takes what the host asks for, and says when it is on disk."""

import io
import json
from contextlib import contextmanager

import pytest
from particle_agent.agent import bases
from particle_agent.agent.channel import Channel
from particle_agent.contract import wire
from particle_agent.contract.decode import DecodeError, encode

WANTED = wire.BaseCommit(
    ref="debian/edge", checksum="0" * 64, stateroot="debian", version=None, key="a2V5"
)


@pytest.fixture
def taken(monkeypatch, tmp_path):
    """The steps of the agent, in their order."""
    done = []

    @contextmanager
    def frozen():
        done.append("frozen")
        yield

    monkeypatch.setattr(bases, "prepare_scratch", lambda: tmp_path)
    monkeypatch.setattr(bases, "frozen_scratch", frozen)
    monkeypatch.setattr(bases.base, "take", lambda target, wanted: done.append(wanted))
    return done


def channel(line):
    return Channel(io.StringIO(), io.BytesIO(line))


def test_the_commit_is_on_the_disk_before_the_agent_is_done(taken):
    bases.take_commit(channel(json.dumps(encode(WANTED)).encode() + b"\n"))
    assert taken == [WANTED, "frozen"]


def test_a_request_with_another_key_is_refused(taken):
    line = json.dumps({**encode(WANTED), "extra": 1}).encode() + b"\n"
    with pytest.raises(DecodeError, match="extra"):
        bases.take_commit(channel(line))
    assert taken == []
