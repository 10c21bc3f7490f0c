"""The results of the stages of one build, while the stages run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

from particle_agent.contract import wire
from particle_agent.contract.options import duration
from particle_agent.stages import RecipeStage
from particle_agent.stages.base import StageOptions
from particle_agent.stages.output.export import Export, Publish

from particle_os.egress.record import Hosts
from particle_os.errors import DeadlineExceeded, ParticleError, StageFailed, VmError, printable
from particle_os.jobs.plan import Plan
from particle_os.report.progress import Progress, StageFinished, StageStarted
from particle_os.report.results import StageResult
from particle_os.system.deadline import Deadline
from particle_os.vm.traffic import Traffic

S = TypeVar("S", bound=StageOptions)
State = Literal["waiting", "running", "done"]
PARTS_LIMIT = 100
OUT_OF_TURN = "the agent sends a request that its stage has no use for"
# No stage runs when the results are published: a stage without an end has failed.
PUBLISHED: dict[State, Literal["done", "failed", "not-run"]] = {
    "waiting": "not-run",
    "running": "failed",
    "done": "done",
}


@dataclass(frozen=True)
class _Stage:
    """A stage of the plan, and its state."""

    options: RecipeStage | Export | Publish
    state: State = "waiting"
    cached: bool = False
    seconds: float | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
    # The end of the stage, in seconds since 1970.
    done_at: float | None = None
    network: Traffic | None = None
    hosts: Hosts | None = None

    def result(self, index: int) -> StageResult:
        return StageResult(
            index=index,
            type=self.options.type,
            name=self.options.name,
            status=PUBLISHED[self.state],
            cached=self.cached,
            seconds=self.seconds,
            parts=dict(self.parts),
            done_at=self.done_at,
            network=self.network,
            hosts=self.hosts,
        )


class Stages:
    """The results of a plan's stages so far; the progress shows every change.

    Stages are numbered from 0. Reports of the guest about a stage that does not exist are ignored.
    """

    def __init__(self, plan: Plan, progress: Progress) -> None:
        self._plan = plan
        self._progress = progress
        self._started = time.monotonic()
        self._stages = [_Stage(options) for options in plan.stages]

    @property
    def results(self) -> tuple[StageResult, ...]:
        """The results as result.json publishes them."""
        return tuple(self._so_far(stage).result(i) for i, stage in enumerate(self._stages))

    def _so_far(self, stage: _Stage) -> _Stage:
        """A stage that runs, with its time until now."""
        if stage.state != "running":
            return stage
        return replace(stage, seconds=round(time.monotonic() - self._started, 3))

    @property
    def done(self) -> int:
        """The number of stages that are done."""
        return sum(stage.state == "done" for stage in self._stages)

    @property
    def all_done(self) -> bool:
        return self.done == len(self._stages)

    def cached(self, done_at: Sequence[float]) -> None:
        """Marks the first stages as done by earlier builds, at the times `done_at`."""
        for index, at in enumerate(done_at):
            stage = self._stages[index]
            self._stages[index] = replace(stage, state="done", cached=True, done_at=at)
            label = self._label(index)
            self._progress.emit(StageFinished(index, len(self._stages), label, 0.0, cached=True))

    def forget(self, kept: int) -> None:
        """Lets all stages but the first `kept` wait again."""
        for index in range(kept, len(self._stages)):
            self._stages[index] = _Stage(self._stages[index].options)

    def start(self, index: int) -> None:
        if 0 <= index < len(self._stages):
            self._stages[index] = replace(self._stages[index], state="running")
            self._started = time.monotonic()
            self._progress.emit(StageStarted(index, len(self._stages), self._label(index)))

    def reached(self, traffic: Traffic, hosts: Hosts | None) -> None:
        """Adds what the VM has reached, through its card and its proxy, to the running stage."""
        for index, stage in enumerate(self._stages):
            if stage.state == "running":
                self._stages[index] = replace(stage, network=traffic, hosts=hosts)

    def finish(self, index: int, event: wire.StageEnd) -> None:
        if 0 <= index < len(self._stages):
            parts = {printable(part.name, 100): part.seconds for part in event.parts[:PARTS_LIMIT]}
            self._stages[index] = replace(
                self._stages[index],
                state="done",
                seconds=event.seconds,
                parts=parts,
                done_at=time.time(),
            )
            label = self._label(index)
            self._progress.emit(StageFinished(index, len(self._stages), label, event.seconds))

    def may_be_kept(self, index: int) -> bool:
        """Whether the stage is done and is not the last stage."""
        return 0 <= index < len(self._stages) - 1 and self._stages[index].state == "done"

    def running(self, kind: type[S]) -> S:
        """The running stage. Raises VmError unless a stage of type `kind` runs."""
        for stage in self._stages:
            if stage.state == "running" and isinstance(stage.options, kind):
                return stage.options
        raise VmError(OUT_OF_TURN)

    def check_last_runs(self) -> None:
        """Raises VmError unless the last stage runs."""
        if self._stages[-1].state != "running":
            raise VmError(OUT_OF_TURN)

    @contextmanager
    def limited(self, stage: StageOptions, deadline: Deadline) -> Iterator[Deadline]:
        """The deadline for work of the host that the running stage `stage` waits for.

        The work counts as time of the stage: raises StageFailed when the time of the stage is up.
        """
        seconds = stage.timeout
        if seconds is None:
            yield deadline
            return
        own = Deadline("the stage", seconds, self._started + seconds)
        try:
            yield own if own.at < deadline.at else deadline
        except DeadlineExceeded as error:
            if time.monotonic() < own.at:
                raise
            raise StageFailed(
                f"the stage did not end within {duration(seconds)}",
                hint="Raise the stage's 'timeout' if it may take longer.",
                tail=error.tail,
            ) from error

    def place(self, error: ParticleError) -> None:
        """Adds the running stage and its place in the recipe to an error."""
        running = (i for i, stage in enumerate(self._stages) if stage.state == "running")
        index = next(running, None)
        if index is None:
            return
        stage = self._stages[index].options
        named = f", '{printable(stage.name)}'" if stage.name else ""
        error.where = f"stage {index + 1} ({stage.type}{named})"
        if isinstance(error, StageFailed) and error.hint is None and self._is_cut_off(stage):
            error.hint = "If the stage needs a network, build without '--network none'."
        places = self._plan.loaded.places
        # Stages that particle-os adds have no place in the recipe.
        if index < len(places):
            error.where += f", {places[index].path}:{places[index].line}"

    def _is_cut_off(self, stage: StageOptions) -> bool:
        """Whether the build takes a network from the stage that other builds give it."""
        return self._plan.options.network == "none" and stage.reads_network

    def _label(self, index: int) -> str:
        return printable(self._stages[index].options.label)
