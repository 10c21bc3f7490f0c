"""Measures a job of CI from a bare Debian 13 to a booted image, against `make demo`'s work.

`make bench-ci` prints the table and writes bench-ci.json. The ratios of one run can be compared;
seconds of two machines cannot. It needs root, which makes systems in directories.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..runners.github import TOP, Runner
from ..runners.machines import PATH, Machines

RECIPE = TOP / "recipes/minimal-test.yml"
DEMO_SECONDS = 3600
# As a user reads it in the README: the packages as root, everything else as an ordinary user.
DEMO = """\
set -eu
apt-get update -q
apt-get install -y -q --no-install-recommends ca-certificates make
cd /srv/particle-os
sh host/setup.sh packages
chown -R builder .
exec setpriv --reuid=builder --regid=builder --init-groups --no-new-privs \\
  env HOME=/home/builder make demo
"""
TARGETS = {"first job": 1.3, "second job": 0.6}


def demo(machines: Machines, environment: Mapping[str, str]) -> float:
    """The seconds of `make demo`, with the installation of all that it needs."""
    root = machines.root("demo")
    began = time.monotonic()
    done = subprocess.run(
        [*machines.enter(root), "sh", "-c", DEMO], check=False, capture_output=True, text=True,
        timeout=DEMO_SECONDS, env={"PATH": PATH, "LANG": "C.UTF-8", **environment},
    )  # fmt: skip
    seconds = time.monotonic() - began
    if done.returncode != 0:
        sys.exit(f"{done.stdout[-3000:]}{done.stderr[-3000:]}\nmake demo failed")
    machines.remove("demo")
    return seconds


def job(machines: Machines, name: str, environment: dict[str, str]) -> Runner:
    """A job with the action on a new machine; the cache of earlier jobs is there."""
    runner = machines.github(name, environment)
    shutil.copy(RECIPE, runner.workspace)
    outputs = runner.run({"recipe": RECIPE.name})
    if outputs["status"] != "passed":
        sys.exit(f"{runner.log[-5000:]}\nthe {name} failed: {outputs}")
    return runner


def rows(directory: Path) -> Iterator[dict[str, object]]:
    """A row for `make demo`, and one for each job, with its steps and its ratio to `make demo`."""
    environment = {k: v for k, v in os.environ.items() if k.lower().endswith("_proxy")}
    machines = Machines.make(directory)
    whole = demo(machines, environment)
    yield {"what": "make demo", "seconds": round(whole, 1)}
    for name, target in TARGETS.items():
        runner = job(machines, name.replace(" ", "-"), environment)
        steps = {step: round(ended.seconds, 1) for step, ended in runner.steps.items()}
        seconds = sum(steps.values())
        ratio = round(seconds / whole, 2)
        yield {
            "what": name, "seconds": round(seconds, 1), "ratio": ratio, "target": target,
            "steps": {step: took for step, took in steps.items() if took},
        }  # fmt: skip
        machines.remove(name.replace(" ", "-"))
        runner.retire(directory / f"{name} runner")


def main() -> None:
    if os.getuid() != 0:
        sys.exit("bench-ci: only root makes systems in directories")
    found = []
    with tempfile.TemporaryDirectory(prefix="particle-os-bench-", dir="/var/tmp") as place:
        for row in rows(Path(place)):
            print(row, file=sys.stderr, flush=True)
            found.append(row)
    Path("bench-ci.json").write_text(json.dumps(found, indent=2) + "\n")
    print("| what | seconds | `make demo` takes | target |\n| --- | --: | --: | --: |")
    for row in found:
        cells = [str(row.get(name, "")) for name in ("what", "seconds", "ratio", "target")]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
