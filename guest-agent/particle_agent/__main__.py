"""The commands of the agent: `python3 -I -S agent.pyz COMMAND`.

- `unpack` unpacks the base tarball from standard input.
- `unpack-image` unpacks the layers of a container image from standard input.
- `take-commit` makes the commit on the input disk the base, from a `BaseCommit` in JSON.
- `extract` unpacks the packages of a base from their disk. Standard input holds sources.list.
- `run` runs the stages of a request.
- `shell OPTIONS` starts a root shell in the target. OPTIONS are `ShellOptions` in JSON.
- `inspect-disk` and `inspect-target` write an `Inspection` to the file wire.INSPECTION.
- `verify-disk` reports the findings on the inspected disk.
- `serve` waits for a command and runs it.
- `seed BYTES SECONDS` mixes random bytes, in hexadecimal digits, into the random numbers of the
  kernel, and sets the clock.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from particle_agent.agent import scratch
from particle_agent.agent.bases import STREAMS, take_commit, unpack_stream
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


def main() -> int:
    if sys.argv[1] == "serve":
        waiting.serve(main)
    if sys.argv[1] == waiting.SEED:
        waiting.prepare(*sys.argv[2:])
        return 0
    if sys.argv[1] == "shell":
        return run_shell(decode(wire.ShellOptions, json.loads(sys.argv[2])))
    channel = Channel(reserve_stdout(), sys.stdin.buffer)
    agent_sha256 = hashlib.sha256(Path(sys.argv[0]).read_bytes()).hexdigest()
    channel.send(wire.Hello(protocol=wire.PROTOCOL, agent_sha256=agent_sha256))
    try:
        with channel.heartbeat():
            if sys.argv[1] in STREAMS:
                unpack_stream(sys.argv[1], channel)
            elif sys.argv[1] == "extract":
                with scratch.packages_disk() as disk:
                    root, sources = scratch.prepare_scratch(), sys.stdin.read()
                    extract(disk, root, sources)
            elif sys.argv[1] == "take-commit":
                take_commit(channel)
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
