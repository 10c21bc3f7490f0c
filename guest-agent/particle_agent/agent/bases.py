"""Receives the base from the host: a stream, or a commit on a disk."""

from __future__ import annotations

import sys

from particle_agent.agent.channel import Channel
from particle_agent.agent.scratch import frozen_scratch, prepare_scratch
from particle_agent.contract import wire
from particle_agent.contract.decode import decode
from particle_agent.ostree import base
from particle_agent.target.target import Target
from particle_agent.unpack.unpack import accept_base, unpack, unpack_image

STREAMS = {"unpack": unpack, "unpack-image": unpack_image}


def unpack_stream(verb: str, channel: Channel) -> None:
    """Unpacks the base from standard input."""
    root = prepare_scratch()
    size, sha256 = STREAMS[verb](sys.stdin.buffer, root)
    for text in accept_base(root):
        channel.note(text)
    with frozen_scratch():
        channel.send(wire.Unpacked(size=size, sha256=sha256))


def take_commit(channel: Channel) -> None:
    """Takes the commit of the request from its disk."""
    wanted = decode(wire.BaseCommit, channel.receive())
    base.take(Target(prepare_scratch(), channel, hostname=""), wanted)
    with frozen_scratch():
        channel.output("the commit is on the scratch disk")
