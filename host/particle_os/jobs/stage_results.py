"""What is known of the stages of one build while they run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from particle_agent.contract import wire
from particle_agent.contract.options import duration

from particle_os.errors import DeadlineExceeded, ParticleError, StageFailed, VmError, printable
from particle_os.jobs.plan import Plan
from particle_os.report.progress import Progress, StageFinished, StageStarted
from particle_os.report.results import StageResult
from particle_os.system.deadline import Deadline

S = TypeVar("S")
PARTS_LIMIT = 100


class Stages:
    """The results of a plan's stages so far; what happens to them is told to the progress.

    Stages are numbered from 0. What the guest says of a stage that there is not is passed over.
    """

    def __init__(self, plan: Plan, progress: Progress) -> None:
        self._plan = plan
        self._progress = progress
        self._started = time.monotonic()
        self.results = [
            StageResult(index=i, type=stage.type, name=stage.name, status="not-run")
            for i, stage in enumerate(plan.stages)
        ]

    @property
    def done(self) -> int:
        """How many are done."""
        return sum(stage.status == "done" for stage in self.results)

    @property
    def all_done(self) -> bool:
        return self.done == len(self.results)

    def cached(self, done_at: Sequence[float]) -> None:
        """So many stages, the first ones, were done by earlier builds, at these times."""
        for index, at in enumerate(done_at):
            self._change(index, status="done", cached=True, done_at=at)
            label = self._label(index)
            self._progress.emit(StageFinished(index, len(self.results), label, 0.0, cached=True))

    def start(self, index: int) -> None:
        if 0 <= index < len(self.results):
            # Failed until the guest says otherwise.
            self._change(index, status="failed")
            self._started = time.monotonic()
            label = self._label(index)
            self._progress.emit(StageStarted(index, len(self.results), label))

    def finish(self, index: int, event: wire.StageFinished) -> None:
        if 0 <= index < len(self.results):
            parts = {printable(part.name, 100): part.seconds for part in event.parts[:PARTS_LIMIT]}
            self._change(
                index, status="done", seconds=event.seconds, parts=parts, done_at=time.time()
            )
            label = self._label(index)
            self._progress.emit(StageFinished(index, len(self.results), label, event.seconds))

    def may_be_kept(self, index: int) -> bool:
        """Whether the stage is done, and another one comes after it."""
        return 0 <= index < len(self.results) - 1 and self.results[index].status == "done"

    def running(self, kind: type[S]) -> S:
        """The stage that runs now. Raises VmError when it is of another kind."""
        for result, stage in zip(self.results, self._plan.stages, strict=True):
            if result.status == "failed" and isinstance(stage, kind):
                return stage
        raise VmError("the agent asks for what its stage has no use for")

    @contextmanager
    def limited(self, deadline: Deadline) -> Iterator[Deadline]:
        """The deadline for work of the host that the running stage waits for.

        That counts as the stage's own: raises StageFailed when its time is up.
        """
        index = next(i for i, s in enumerate(self.results) if s.status == "failed")
        seconds = self._plan.stages[index].timeout
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
                hint="Raise its 'timeout', if it can need longer.",
                tail=error.tail,
            ) from error

    def place(self, error: ParticleError) -> None:
        """Notes in an error which stage it happened in, and where the recipe has that."""
        running = next((s for s in self.results if s.status == "failed"), None)
        if running is not None:
            number = running.index + 1
            named = f", '{printable(running.name)}'" if running.name else ""
            error.where = f"stage {number} ({running.type}{named})"
            places = self._plan.loaded.places
            # Those of particle-os itself have none.
            if running.index < len(places):
                place = places[running.index]
                error.where += f", {place.path}:{place.line}"

    def _label(self, index: int) -> str:
        return printable(self._plan.stages[index].label)

    def _change(self, index: int, **changes: object) -> None:
        self.results[index] = self.results[index].model_copy(update=changes)
