"""Runs the stages of one request and tells the host what happens."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from particle_agent.agent.channel import Channel
from particle_agent.agent.failure import StageFailed
from particle_agent.agent.look import OUTPUT, verify
from particle_agent.agent.missing import check_needs
from particle_agent.agent.scratch import (
    ROOT,
    fits_into_memory,
    frozen_scratch,
    kill_strays,
    mount_scratch,
    mounted_for_chroot,
    read_ahead,
)
from particle_agent.contract import wire
from particle_agent.contract.decode import decode, decode_any
from particle_agent.contract.options import duration
from particle_agent.errors import NetworkError, StageError
from particle_agent.stages import ALL_STAGES, Stage
from particle_agent.target.limits import TimeUp, no_network, time_limit
from particle_agent.target.target import COMMAND_SECONDS, Target

PART_CHARACTERS = 100


def run_stages(request: Mapping[str, object], channel: Channel) -> None:
    """Runs the stages of `request` in order; returns when all of them succeeded.

    Raises `StageFailed` naming the stage's index. DecodeError tells of a malformed request.
    """
    descriptions = request["stages"]
    assert isinstance(descriptions, list)
    stages: list[Stage] = [
        decode_any(ALL_STAGES, item, f"stages[{i}]") for i, item in enumerate(descriptions)
    ]
    told = request["apt_proxy"]
    proxy = decode(wire.AptProxy, told) if told is not None else None
    values = _take_secrets(Path(wire.HELD))
    if mount_scratch() and fits_into_memory():
        # Another VM has written it.
        read_ahead(ROOT)
    with mounted_for_chroot(ROOT):
        check_needs(stages, Target(ROOT, channel, hostname=""), channel)
        for index, stage in enumerate(stages):
            # Its result depends on the name only if its key does.
            hostname = str(request["hostname"]) if stage.uses_name else ""
            source_date = request["source_date"]
            assert source_date is None or isinstance(source_date, int)
            target = Target(
                ROOT,
                channel,
                hostname=hostname,
                source_date=source_date,
                # The limit of the stage comes first.
                command_seconds=max(COMMAND_SECONDS, 2.0 * (stage.timeout or 0)),
            )
            target.apt_proxy = proxy
            target.ahead = partial(_do_ahead, stages[index + 1 :], target)
            channel.send(wire.StageStart(index=index))
            started = time.monotonic()
            try:
                secrets = {s.name: values[str(s.file)] for s in stage.secrets}
                with target.secrets(secrets):
                    run_stage(stage, target)
            except Exception as error:
                raise StageFailed(index, error) from error
            finally:
                kill_strays(ROOT)
            seconds = round(time.monotonic() - started, 3)
            parts = tuple(
                wire.Part(name=name[:PART_CHARACTERS], seconds=round(taken, 3))
                for name, taken in target.timings.longest()
            )
            channel.send(wire.StageEnd(index=index, seconds=seconds, parts=parts))
            if request["checkpoints"] and index + 1 < len(stages):
                with frozen_scratch():
                    channel.send(wire.Frozen(index=index))
                    decode(wire.Continue, channel.receive())
    if request["verify"]:
        # Here, where the agent runs already: in an emulated VM each start of it takes seconds.
        verify(channel, OUTPUT)


def _do_ahead(stages: Sequence[Stage], target: Target) -> None:
    """Does what those stages can do ahead that find the system as it is now."""
    for stage in itertools.takewhile(lambda stage: stage.only_configures, stages):
        stage.ahead(target)


def _take_secrets(directory: Path) -> dict[str, bytes]:
    """The secrets that the host has handed in, by keyed hash; from here on only we have them."""
    values = {}
    for path in directory.iterdir() if directory.is_dir() else ():
        values[path.name] = path.read_bytes()
        path.unlink()
    return values


def run_stage(stage: Stage, target: Target) -> None:
    """Runs one stage within its time, and without a network if it asks for that."""
    with ExitStack() as limits:
        if stage.network == "none":
            limits.enter_context(no_network())
        try:
            with time_limit(stage.timeout):
                stage.run(target)
        except NetworkError as error:
            if stage.network != "none":
                raise
            hint = "The stage has 'network: none'."
            raise StageError(error.message, hint=hint, tail=error.tail) from error
        except TimeUp as up:
            assert stage.timeout is not None
            raise StageError(
                f"the stage did not end within {duration(stage.timeout)}",
                hint="Raise its 'timeout', if it can need longer.",
                tail=tuple(target.tail),
            ) from up
