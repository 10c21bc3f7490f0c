"""Feeds mutated inputs to one target, in a process of its own: `one.py TARGET DIRECTORY SECONDS`.

The fuzzer is atheris, which is libFuzzer for Python. An input that shows a new defect is kept in
DIRECTORY/defects, and the run goes on: only a crash of Python itself, a hang and twice the memory
end it. DIRECTORY/corpus keeps the inputs that reach new code, for the next run.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import atheris

from . import structure
from .limits import SECONDS, Defect, defect

with atheris.instrument_imports(include=["particle_os", "particle_agent", "tarfile", "yaml"]):
    from .targets import TARGETS, Target

# In MiB (docs/promises.md, promise 15).
MEMORY = 200
# In bytes. Longer inputs are made from these by repetition.
LONGEST = 8192
# Instrumented code takes about three times as long.
SLOWER = 3
# Only ends a hang that no signal of Python's interrupts: the host may be busy.
HANG_SECONDS = 60
# One input of so many is also tried with a part repeated up to the target's size.
STRETCHED = 100
WORD = re.compile(rb"[A-Za-z][A-Za-z0-9_./+-]{2,30}")
WORDS = 400


class Fuzzer:
    """Feeds inputs to a target, and keeps one input for each defect in a directory."""

    def __init__(self, target: Target, directory: Path) -> None:
        self._target = target
        self._directory = directory
        self._known: set[str] = set()

    def feed(self, data: bytes) -> None:
        """Feeds an input to the target."""
        target = self._target
        found = defect(target.function, data, target.allowed, SECONDS * SLOWER)
        if found is None and peak_memory() > MEMORY:
            found = Defect(f"more than {MEMORY} MiB", f"{peak_memory()} MiB, with all before it")
        if found is not None and found.place not in self._known:
            self._known.add(found.place)
            self._keep(found, data)

    def _keep(self, found: Defect, data: bytes) -> None:
        name = hashlib.sha256(found.place.encode()).hexdigest()[:12]
        (self._directory / name).write_bytes(data)
        (self._directory / f"{name}.txt").write_text(f"{found.place}\n{found.text}")

    def mutated(self, data: bytes, limit: int, seed: int) -> bytes:
        """A mutation of an input, of at most `limit` bytes."""
        draw = random.Random(seed)
        if data and draw.randrange(STRETCHED) == 0:
            # Directly: as a part of the corpus, long inputs would slow down all that follows.
            self.feed(self._repaired(stretched(data, self._target.size, draw), draw))
        if draw.random() < 0.5 and (changed := structure.mutated(data, draw)) is not None:
            return changed[:limit]
        mutated = bytes(atheris.Mutate(data, limit))
        return self._repaired(mutated, draw)[:limit]

    def _repaired(self, data: bytes, draw: random.Random) -> bytes:
        repair = self._target.repair
        return repair(data) if repair is not None and draw.random() < 0.7 else data


def peak_memory() -> int:
    """The most memory that the process has had, in MiB, with the instrumented code."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def stretched(data: bytes, size: int, draw: random.Random) -> bytes:
    """The input with a part of it repeated, in all about `size` bytes."""
    start = draw.randrange(len(data))
    end = min(len(data), start + 1 + draw.randrange(1 << draw.randrange(10)))
    part = data[start:end]
    return data[:start] + part * (max(1, size - len(data)) // len(part)) + data[end:]


def write_seeds(target: Target, directory: Path) -> tuple[Path, Path]:
    """Writes the seeds of a target and the words in them; returns the corpus and the words."""
    corpus, words = directory / "corpus", directory / "words"
    corpus.mkdir(parents=True, exist_ok=True)
    found: dict[bytes, None] = {}
    for seed in target.seeds():
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
        found |= dict.fromkeys(WORD.findall(seed))
    words.write_bytes(b"".join(b'"%s"\n' % word for word in list(found)[:WORDS]))
    return corpus, words


def main(name: str, place: str, seconds: str) -> None:
    """Fuzzes a target for some seconds. libFuzzer ends the process."""
    directory, target = Path(place).absolute(), TARGETS[name]
    (directory / "defects").mkdir(parents=True, exist_ok=True)
    corpus, words = write_seeds(target, directory)
    scratch = directory / "scratch"
    scratch.mkdir(exist_ok=True)
    os.chdir(scratch)
    fuzzer = Fuzzer(target, directory / "defects")
    arguments = [
        name,
        f"-max_total_time={seconds}",
        f"-max_len={min(LONGEST, target.size)}",
        f"-rss_limit_mb={2 * MEMORY}",
        f"-timeout={HANG_SECONDS}",
        f"-artifact_prefix={directory}/defects/",
        f"-dict={words}",
        "-len_control=0",
        "-print_final_stats=1",
        str(corpus),
    ]
    feed: Callable[[bytes], None] = fuzzer.feed
    atheris.Setup(arguments, feed, custom_mutator=fuzzer.mutated)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
