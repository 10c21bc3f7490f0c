"""Boots good images, such as those of other tools, repeatedly: `make good IMAGES="A.raw B.qcow2"`.

A verdict other than `passed` is a false failure. The program prints each verdict, and for each
image their number and the time of the slowest boot. It keeps the evidence of failures. Other work
should keep the host busy meanwhile.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

TOP = Path(__file__).parents[1]
# Longer than four times the limit of a boot under TCG, which a busy host can take.
BOOT_SECONDS = 1800


def boot(program: list[str], image: Path, evidence: Path) -> tuple[str, float]:
    """The verdict on an image with its message, and the seconds of the boot.

    The evidence of a boot that passes is removed.
    """
    argv = [*program, "boot-test", str(image), "--json", "--progress", "none"]
    argv += ["--evidence", str(evidence)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=BOOT_SECONDS, check=False)
    if not done.stdout:
        return f"no verdict: {done.stderr.strip()}", 0.0
    verdict = json.loads(done.stdout)
    if verdict["status"] == "passed":
        shutil.rmtree(evidence)
        return "passed", verdict["seconds"]
    return f"{verdict['status']}: {verdict['message']}", verdict["seconds"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    parser.add_argument("--runs", type=int, default=10, help="how often to boot each image")
    parser.add_argument("--program", nargs="+", default=[str(TOP / ".venv/bin/particle-os")])
    parser.add_argument("--out", type=Path, default=TOP / "out/good", help="evidence of failures")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    wrong = 0
    for image in arguments.images:
        runs = []
        for number in range(1, arguments.runs + 1):
            evidence = arguments.out / f"{image.name}-{number}"
            runs.append(boot(arguments.program, image, evidence))
            print(f"{image.name} {number}: {runs[-1][0]}, {runs[-1][1]:.0f} s", flush=True)
        verdicts = Counter(verdict for verdict, _ in runs)
        slowest = max(seconds for _, seconds in runs)
        print(f"{image.name}: {verdicts['passed']} of {len(runs)}, slowest {slowest:.0f} s")
        for verdict in verdicts.keys() - {"passed"}:
            print(f"    {verdicts[verdict]} x {verdict}")
        wrong += len(runs) - verdicts["passed"]
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
