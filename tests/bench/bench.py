"""`make bench`: how long a helper VM takes to its first command, booted against restored.

Prints a table and writes bench.json. The two kinds take turns, so that the ratio holds when the
machine's speed drifts; single seconds do not.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path

from particle_os import helper, process, sandbox
from particle_os.deadline import Deadline
from particle_os.vm import accel
from particle_os.workspace import cache_directory, workspace

ROUNDS = 3
RESOURCES = sandbox.Resources(memory=2 << 30, cpus=2, scratch=8 << 30)


def start(made: helper.Helper, acceleration: accel.Acceleration) -> float:
    """Seconds until the agent is in place, which takes two commands over SSH."""
    with workspace() as work:
        began = time.monotonic()
        with sandbox.running_sandbox(
            made,
            acceleration,
            RESOURCES,
            directory=work.path / "bench",
            output=work.path / "output.raw",
            transcript=work.path / "console.log",
            deadline=Deadline.after(600, "the benchmark"),
        ):
            return time.monotonic() - began


def main() -> None:
    with workspace() as work:
        template = helper.load_template("debian-trixie")
        made = helper.ensure(
            template, cache=cache_directory(), work=work, log=lambda line: None, note=print
        )
        acceleration = accel.choose(
            "auto",
            kernel=made.kernel,
            initrd=made.initrd,
            memory_file=cache_directory() / accel.KVM_MEMORY,
            directory=work.path / "kvm-probe",
            note=print,
        )
    figures: dict[str, list[float]] = {"boot, save and restore": [], "restore": []}
    for _ in range(ROUNDS):
        for state in (cache_directory() / "warm").glob("*.state"):
            state.unlink()
        figures["boot, save and restore"].append(start(made, acceleration))
        figures["restore"].append(start(made, acceleration))
    print(f"{acceleration.name}, {process.version(accel.QEMU)}")
    for name, seconds in figures.items():
        low, middle, high = min(seconds), statistics.median(seconds), max(seconds)
        print(f"{name:<24} {low:6.2f} {middle:6.2f} {high:6.2f} s (min, median, max)")
    ratios = [b / r for b, r in zip(*figures.values(), strict=True)]
    print(f"{'ratio':<24} {min(ratios):6.2f} {statistics.median(ratios):6.2f} {max(ratios):6.2f}")
    Path("bench.json").write_text(json.dumps({"seconds": figures, "ratios": ratios}, indent=2))


if __name__ == "__main__":
    main()
