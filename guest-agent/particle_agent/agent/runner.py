"""Runs the stages of one request and reports to the host."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from particle_agent.agent.channel import Channel
from particle_agent.agent.failure import FailedStage
from particle_agent.agent.look import OUTPUT, verify
from particle_agent.agent.missing import check_needs
from particle_agent.agent.scratch import (
    ROOT,
    fits_into_memory,
    frozen_scratch,
    mount_scratch,
    mounted_for_chroot,
    read_ahead,
)
from particle_agent.contract import wire
from particle_agent.contract.decode import decode, decode_any
from particle_agent.contract.options import duration
from particle_agent.errors import NetworkError, StageError
from particle_agent.stages import ALL_STAGES, Stage
from particle_agent.target.limits import TimeUp, network_limit, time_limit
from particle_agent.target.target import COMMAND_SECONDS, Target

PART_CHARACTERS = 100


@dataclass(frozen=True)
class RunRequest:
    """A request of the host: the stages to run, and the options of the run."""

    options: wire.RunOptions
    stages: tuple[Stage, ...]

    @classmethod
    def decoded(cls, request: Mapping[str, Any]) -> RunRequest:
        """Decodes a JSON object. Raises DecodeError when it is malformed."""
        return cls(
            decode(wire.RunOptions, request["options"], "options"),
            tuple(
                decode_any(ALL_STAGES, item, f"stages[{index}]")
                for index, item in enumerate(request["stages"])
            ),
        )

    def target(self, index: int, channel: Channel) -> Target:
        """The target for the stage at `index`."""
        stage = self.stages[index]
        return Target(
            ROOT,
            channel,
            # A stage that does not use the name has the same cache key in every recipe, so its
            # result must not depend on the name.
            hostname=self.options.hostname if stage.uses_name else "",
            source_date=self.options.source_date,
            plain=self.options.plain,
            # A limit on the stage must expire before the limit on its command.
            command_seconds=max(COMMAND_SECONDS, 2.0 * (stage.timeout or 0)),
            hosts=stage.hosts,
            apt_proxy=self.options.apt_proxy,
            ahead=partial(_do_ahead, self.stages[index + 1 :]),
            architecture=self.options.record,
        )


def run_stages(request: RunRequest, channel: Channel) -> None:
    """Runs the stages of `request` in order. Returns when all of them have succeeded.

    Raises FailedStage with the index of the stage that failed.
    """
    if mount_scratch() and fits_into_memory():
        # Another VM has written the disk, so this VM has none of it in memory.
        read_ahead(ROOT)
    with mounted_for_chroot(ROOT):
        plain = Target(ROOT, channel, hostname="", architecture=request.options.record)
        check_needs(request.stages, plain, channel)
        for index, stage in enumerate(request.stages):
            _run_in_turn(index, stage, request.target(index, channel), channel)
            if request.options.checkpoints and index + 1 < len(request.stages):
                with frozen_scratch():
                    channel.wait_for_host(wire.Frozen(index=index))
    if request.options.verify:
        # Verify in the running agent: in an emulated VM each start of an agent takes seconds.
        verify(channel, OUTPUT)


def _run_in_turn(index: int, stage: Stage, target: Target, channel: Channel) -> None:
    """Runs one stage with its secrets. Reports its start and its end to the host.

    Before the host answers, it sets the VM's network for the stage, and sends the stage's secrets.
    Nothing here keeps them after the stage.
    """
    channel.start_stage(index, network=stage.reaches_network)
    started = time.monotonic()
    try:
        values = _take_secrets(Path(wire.HELD))
        secrets = {s.name: values[str(s.file)] for s in stage.secrets}
        with target.secrets(secrets):
            run_stage(stage, target)
    except Exception as error:
        raise FailedStage(index, error) from error
    finally:
        target.end_programs()
    seconds = round(time.monotonic() - started, 3)
    parts = tuple(
        wire.Part(name=name[:PART_CHARACTERS], seconds=round(taken, 3))
        for name, taken in target.timings.longest()
    )
    channel.send(wire.StageEnd(index=index, seconds=seconds, parts=parts))


def _do_ahead(stages: Sequence[Stage], target: Target) -> None:
    """Runs `ahead` of the next stages, up to the first one that changes more than configuration."""
    for stage in itertools.takewhile(lambda stage: stage.only_configures, stages):
        stage.ahead(target)


def _take_secrets(directory: Path) -> dict[str, bytes]:
    """Reads the secrets from the host, by keyed hash, and removes their files."""
    values = {}
    for path in directory.iterdir() if directory.is_dir() else ():
        values[path.name] = path.read_bytes()
        path.unlink()
    return values


def _cut_off(stage: Stage) -> str:
    """The hint for a stage that cannot reach what it needs."""
    if stage.hosts:
        return f"The stage's 'network' allows only these hosts: {', '.join(stage.hosts)}."
    return f"The stage has 'network: {stage.network}', of the recipe or of --network none."


def run_stage(stage: Stage, target: Target) -> None:
    """Runs one stage within its time limit, and without a network if its options say so.

    Raises StageError. Without a network, an unreachable network is a fault of the recipe, not of
    the environment.
    """
    with network_limit(stage.network):
        try:
            with time_limit(stage.timeout):
                stage.run(target)
        except NetworkError as error:
            if stage.network is None:
                raise
            raise StageError(error.message, hint=_cut_off(stage), tail=error.tail) from error
        except TimeUp as up:
            assert stage.timeout is not None
            raise StageError(
                f"the stage did not end within {duration(stage.timeout)}",
                hint="Raise the stage's 'timeout' if it may take longer.",
                tail=tuple(target.tail),
            ) from up
