"""The outcomes of a campaign in a file, one JSON object a line, so that a later run goes on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from .campaign import Outcome


@dataclass(frozen=True)
class Record:
    """The file with the outcomes of one seed; several processes may add to it."""

    path: Path

    def add(self, outcome: Outcome) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            # One write, so that the lines of two processes do not mix.
            file.write(json.dumps(asdict(outcome)) + "\n")

    def outcomes(self) -> dict[int, Outcome]:
        """The last outcome of each fault, by number."""
        if not self.path.exists():
            return {}
        found = [Outcome(**json.loads(line)) for line in self.path.read_text().splitlines()]
        return {outcome.number: outcome for outcome in found}

    def to_do(self, first: int | None, count: int) -> list[int]:
        """The numbers of the next faults: from `first` on, or the lowest that have not been run."""
        if first is not None:
            return [*range(first, first + count)]
        done = self.outcomes()
        return [n for n in range(1, len(done) + count + 1) if n not in done][:count]

    def summary(self) -> str:
        """The number of faults so far, and of those with losses."""
        found = self.outcomes().values()
        lost = [outcome.number for outcome in found if outcome.losses]
        idle = sum(outcome.idle for outcome in found)
        which = f" ({', '.join(map(str, sorted(lost)))})" if lost else ""
        return (
            f"{len(found)} faults, {len(lost)} with losses{which}; {idle} of the faults disturbed "
            "nothing"
        )
