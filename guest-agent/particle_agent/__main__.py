"""What the agent can be told to do.

`agent.pyz unpack` takes the base tarball, `agent.pyz unpack-image` the layers of a container image,
`agent.pyz extract` the packages of a base from their disk (with sources.list on standard input),
`agent.pyz run` runs the stages of a request, `agent.pyz shell` is a root shell in the
target (with a proxy for apt as JSON, if there is one),
`agent.pyz inspect-disk` and `inspect-target` write what they find to wire.INSPECTION,
`agent.pyz verify-disk` tells what is wrong with the disk to be inspected,
`agent serve` waits for orders to do one of these.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from particle_agent.agent import scratch
from particle_agent.agent.channel import Channel, reserve_stdout
from particle_agent.agent.failure import failure
from particle_agent.agent.look import inspect, verify
from particle_agent.agent.runner import RunRequest, run_stages
from particle_agent.agent.shell import run_shell
from particle_agent.contract import wire
from particle_agent.contract.decode import decode, encode
from particle_agent.contract.inspection import SERIAL, Inspection
from particle_agent.shortcuts import waiting
from particle_agent.stages.software.bootstrap import extract
from particle_agent.unpack.unpack import check_base, unpack, unpack_image

UNPACK = {"unpack": unpack, "unpack-image": unpack_image}


def main() -> int:
    if sys.argv[1] == "serve":
        waiting.serve(main)
    if sys.argv[1] == "shell":
        told = json.loads(sys.argv[2]) if len(sys.argv) > 2 else None
        return run_shell(decode(wire.AptProxy, told) if told else None)
    channel = Channel(reserve_stdout(), sys.stdin.buffer)
    agent_sha256 = hashlib.sha256(Path(sys.argv[0]).read_bytes()).hexdigest()
    channel.send(wire.Hello(protocol=wire.PROTOCOL, agent_sha256=agent_sha256))
    try:
        with channel.heartbeat():
            if sys.argv[1] in UNPACK:
                root = scratch.prepare_scratch()
                size, sha256 = UNPACK[sys.argv[1]](sys.stdin.buffer, root)
                check_base(root)
                with scratch.frozen_scratch():
                    channel.send(wire.Unpacked(size=size, sha256=sha256))
            elif sys.argv[1] == "extract":
                with scratch.packages_disk() as disk:
                    root, sources = scratch.prepare_scratch(), sys.stdin.read()
                    extract(disk, root, sources)
            elif sys.argv[1] == "verify-disk":
                verify(channel, SERIAL)
            elif sys.argv[1].startswith("inspect-"):
                _write(inspect(disk=sys.argv[1] == "inspect-disk"))
            else:
                run_stages(RunRequest.decoded(channel.receive()), channel)
                _write(inspect(disk=False))
    except Exception as error:
        channel.send(failure(error))
        return 1
    channel.send(wire.Done())
    return 0


def _write(found: Inspection) -> None:
    Path(wire.INSPECTION).write_text(json.dumps(encode(found)))


if __name__ == "__main__":
    sys.exit(main())
