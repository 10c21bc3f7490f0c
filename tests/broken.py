"""Breaks good images in every way that vm/mutations.py and vm/arm64_mutations.py list.

Checks each verdict repeatedly.

Writes the results to docs/mutations.md; mutations that did not run keep their old rows.

`make mutations` builds an image with each boot loader and runs each mutation ten times, one after
the other (change this with `make mutations RUNS=1 JOBS=2`). `--image extlinux=FILE` uses an
existing raw image; `--only WORD` runs only the mutations whose name contains the word.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vm.arm64_mutations import ALL_MUTATIONS as MUTATIONS
from vm.mutations import Mutation

TOP = Path(__file__).parents[1]
PACKAGES = {
    "amd64": "linux-image-cloud-amd64 systemd-sysv grub-pc-bin grub-efi-amd64-bin grub2-common "
    "systemd-boot systemd-boot-efi systemd-repart",
    "arm64": "linux-image-cloud-arm64 systemd-sysv systemd-boot systemd-boot-efi",
}
OF_ARM64 = "-arm64"
BUILD_SECONDS = 1800
BOOT_SECONDS = 600
PAGE = TOP / "docs" / "mutations.md"
HEAD = """\
# Broken images and their verdicts

`make mutations` breaks a good image in each of these ways, boots it several times, and compares the
verdict with the right one. A good image is in the table, too: a verdict other than `passed` is then
a false failure. Nothing of this table is written by hand.

`make mutations RUNS=200 JOBS=4 ONLY=good` boots the good images 200 times each while the host is
busy.

| image | boot loader | firmware | right verdict | given in | slowest |
| --- | --- | --- | --- | --- | --- |
"""


@dataclass(frozen=True)
class Run:
    """A verdict and whether it is right; `seconds` is the time of the whole boot-test command."""

    right: bool
    verdict: str
    seconds: float


def build(loader: str, program: Sequence[str], directory: Path) -> Path:
    """Builds the good image with a boot loader."""
    recipe = directory / f"{loader}.yml"
    name = "arm64" if loader.endswith(OF_ARM64) else "amd64"
    disk = {"type": "qemu", "boot-loader": loader.removesuffix(OF_ARM64)}
    stages = [{"type": "apt", "packages": PACKAGES[name].split()}, disk]
    recipe.write_text(json.dumps({"name": loader, "architecture": name, "stages": stages}))
    argv = [*program, "build", recipe, "--output", directory, "--no-boot-test"]
    subprocess.run(argv, check=True, timeout=BUILD_SECONDS)
    return directory / f"{loader}.raw"


def run(mutation: Mutation, image: Path, program: Sequence[str], directory: Path) -> Run:
    """Breaks a copy of the image and boots the copy."""
    broken = directory / "broken.raw"
    subprocess.run(["cp", "--sparse=always", image, broken], check=True)
    mutation.change(broken)
    argv = [*program, "boot-test", str(broken), "--firmware", mutation.firmware]
    argv += ["--architecture", mutation.architecture]
    argv += ["--timeout", str(mutation.timeout)] if mutation.timeout is not None else []
    started = time.monotonic()
    done = subprocess.run(
        [*argv, "--json", "--progress", "none"],
        capture_output=True,
        text=True,
        timeout=BOOT_SECONDS,
        check=False,
    )
    seconds = time.monotonic() - started
    broken.unlink()
    if not done.stdout:
        return Run(False, done.stderr, seconds)
    verdict: dict[str, Any] = json.loads(done.stdout)
    wanted_exit = 0 if mutation.status == "passed" else 4
    right = (
        verdict["status"] == mutation.status
        and mutation.says in verdict["message"]
        and done.returncode == wanted_exit
    )
    return Run(right, f"{verdict['status']}: {verdict['message']}", seconds)


def row(name: str, mutation: Mutation) -> str:
    """The first columns of a mutation's row."""
    return f"| {name} | {mutation.base} | {mutation.firmware} | {mutation.status} |"


def write_page(seen: dict[str, str]) -> None:
    """Writes the page; `seen` has the last columns by mutation."""
    old = PAGE.read_text().splitlines() if PAGE.exists() else []
    lines = []
    for name, mutation in MUTATIONS.items():
        start = row(name, mutation)
        known = (line for line in old if line.startswith(start))
        before = next(known, f"{start} not tried | |")
        lines.append(f"{start} {seen[name]} |" if name in seen else before)
    PAGE.write_text(HEAD + "\n".join(lines) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10, help="how often to run each mutation")
    parser.add_argument(
        "--jobs", type=int, default=1, help="how many mutations run at the same time"
    )
    parser.add_argument("--only", default="", help="run only mutations whose name contains this")
    parser.add_argument("--image", action="append", default=[], metavar="LOADER=FILE")
    parser.add_argument("--program", nargs="+", default=[str(TOP / ".venv/bin/particle-os")])
    arguments = parser.parse_args()
    images = {name: Path(path) for name, _, path in (i.partition("=") for i in arguments.image)}
    chosen = {name: m for name, m in MUTATIONS.items() if arguments.only in name}
    wrong = total = 0
    seen: dict[str, str] = {}
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="mutations-") as place:
        directory = Path(place)
        for base in {mutation.base for mutation in chosen.values()} - images.keys():
            images[base] = build(base, arguments.program, directory)

        def repeat(mutation: Mutation) -> list[Run]:
            with tempfile.TemporaryDirectory(dir=directory) as own:
                image = images[mutation.base]
                return [
                    run(mutation, image, arguments.program, Path(own))
                    for _ in range(arguments.runs)
                ]

        with ThreadPoolExecutor(arguments.jobs) as pool:
            for (name, mutation), runs in zip(
                chosen.items(), pool.map(repeat, chosen.values()), strict=True
            ):
                right = sum(each.right for each in runs)
                slowest = max(each.seconds for each in runs)
                print(f"{name:<28} {mutation.status:<20} {right}/{len(runs)} {slowest:6.1f} s")
                for each in runs:
                    if not each.right:
                        print(f"    wrong: {each.verdict}")
                sys.stdout.flush()
                seen[name] = f"{right} of {len(runs)} | {slowest:.0f} s"
                write_page(seen)
                wrong, total = wrong + len(runs) - right, total + len(runs)
    print(f"{total} runs, {wrong} wrong verdicts")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
