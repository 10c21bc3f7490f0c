"""`make bench`: the cost of a farm, and what a second worker gains.

The first rows need no VM: a script plays the builds. The last row builds two images with one worker
and with two.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

from particle_os.fleet import running, views
from particle_os.fleet.build_end import BuildEnd
from particle_os.fleet.farm.address import FarmAddress
from particle_os.fleet.farm.client import places
from particle_os.fleet.farm.keys import FarmKeys
from particle_os.fleet.order import Order
from particle_os.fleet.several import Engine
from particle_os.jobs.plan import BuildOptions

from ..played_farm import command
from ..unit.report.pages import result, verdict
from .bench import REFERENCE, ROUNDS, Bench, _processor_seconds, _show

BUILDS = 20
WORKERS = 2


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="particle-os-bench-", dir="/var/tmp") as place:
        bench = Bench(Path(place))
        _overhead(bench)
        if "--played" not in sys.argv:
            _second_worker(bench)
    _show(bench.rows)
    Path("bench-farm.json").write_text(json.dumps([asdict(row) for row in bench.rows]))


def _overhead(bench: Bench) -> None:
    """Measures builds that do nothing, on this machine directly and on a farm."""
    text = result("x", [verdict("x", "passed")]).model_dump_json()
    (bench.place / "result.json").write_text(text)
    farm = partial(places.run, FarmAddress(workers=WORKERS), FarmKeys(bench.place), lines=False)
    start, begin = _run(bench.place, farm, 1), _run(bench.place, running.run, 1)
    bench.add(
        "one played build on local:2, with the start of the farm", start, "here", start / begin
    )
    here = [_run(bench.place, running.run, BUILDS) for _ in range(ROUNDS)]
    there = [_run(bench.place, farm, BUILDS) - start for _ in range(ROUNDS)]
    each = (statistics.median(there) - statistics.median(here)) / BUILDS * WORKERS
    bench.add("overhead of the farm for a build", each, target="1 s", note=f"{BUILDS} builds")


def _run(place: Path, engine: Engine, count: int) -> float:
    class Played(Order):
        def command(self, *more: str) -> list[str]:
            return command(self.name, place)

    orders = [Played(f"b{n}", Path("r.yml"), BuildOptions()) for n in range(count)]
    ends: dict[str, BuildEnd] = {}
    began = time.monotonic()
    engine(orders, views.Silent(), ends, jobs=WORKERS, fail_fast=False)
    seconds = time.monotonic() - began
    if [end.exit_code for end in ends.values()] != [0] * count:
        sys.exit("a played build failed")
    return seconds


def _second_worker(bench: Bench) -> None:
    """Measures two images after a change before the disk, with one worker and with two."""
    text = REFERENCE.read_text()
    recipes = []
    for name in ("one", "two"):
        path = bench.place / f"{name}.yml"
        path.write_text(text.replace("name: ", f"name: {name}-", 1))
        recipes.append(path)
        bench.build(path, "farm", "--no-boot-test")

    def both(workers: int) -> float:
        argv = [Path(sys.executable).with_name("particle-os"), "build", *recipes]
        argv += ["--on", f"local:{workers}", "--output", bench.place / "farm", "--no-boot-test"]
        began = time.monotonic()
        subprocess.run([*argv, "--refresh", "timezone"], check=True, capture_output=True)
        return time.monotonic() - began

    used = _processor_seconds()
    one = both(1)
    busy = (_processor_seconds() - used) / one
    two = both(2)
    most = len(os.sched_getaffinity(0)) / busy
    bench.add(
        "two builds on two workers", two, "one worker takes", one / two, "1.3 ×",
        note=f"one worker keeps {busy:.2f} processors busy: at most {most:.2f} ×",
    )  # fmt: skip


if __name__ == "__main__":
    main()
