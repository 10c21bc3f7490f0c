"""Builds and boots every combination that validation allows, and writes the results to a page.

`make matrix` runs all combinations and rewrites docs/matrix.md. `--only WORD` (such as grub-gpt)
runs the combinations whose name contains the word; `--untried` runs those that have not passed.
Both keep the other rows of the page. All builds share the checkpoints of their common apt stages.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from particle_agent.stages.output.qemu import Qemu
from particle_os.architecture import AMD64, ARCHITECTURES, Architecture, BootFirmware
from particle_os.boot.observation.signs import PHASE_NAMES

TOP = Path(__file__).parents[1]
PAGE = TOP / "docs" / "matrix.md"
BUILD_SECONDS = 1800
PACKAGES = (
    "linux-image-cloud-{0} systemd-sysv grub-efi-{0}-bin grub2-common systemd-boot "
    "systemd-boot-efi systemd-ukify systemd-repart cloud-guest-utils xfsprogs btrfs-progs"
)
OF_BIOS = " grub-pc-bin"
SIGNED = "shim-signed grub-efi-{0}-signed systemd-boot-efi-{0}-signed"
FIRMWARES: tuple[BootFirmware, ...] = get_args(BootFirmware)
# The answer may come before the prompt.
MAY_BE_MISSED = ("login prompt",)
EXPECTED = [name for name in PHASE_NAMES if name not in MAY_BE_MISSED]
HEAD = """\
# What boots

The table lists every combination of boot loader, partition table, root file system and firmware
that validation allows, with the result of `make matrix`. Each image was built and then booted by
the [boot test](recipes.md#the-boot-test). particle-os refuses combinations that cannot boot when it
reads the recipe.
"""
TABLE = """
## {}

| | boot loader | table | file system | firmware | result | seconds |
| --- | --- | --- | --- | --- | --- | --- |
"""


@dataclass(frozen=True)
class Combination:
    """An image to build, and the firmware types that it boots under."""

    stage: Qemu
    firmwares: tuple[BootFirmware, ...]
    architecture: Architecture = AMD64

    @property
    def loader(self) -> str:
        unified = " (unified kernel image)" if self.stage.unified_kernel_image else ""
        return f"{self.stage.boot_loader}{unified}"

    @property
    def name(self) -> str:
        loader = f"{self.stage.boot_loader}{'-uki' if self.stage.unified_kernel_image else ''}"
        signed = "-signed" if "uefi-secure" in self.firmwares else ""
        return f"{loader}-{self.stage.partition_table}-{self.stage.file_system}{signed}"

    def recipe(self) -> str:
        """The recipe as JSON, which is valid YAML."""
        stage = self.stage
        name = self.architecture.name
        has_bios = "bios" in self.architecture.image.firmwares
        packages = PACKAGES.format(name) + (OF_BIOS if has_bios else "")
        apt = {"type": "apt", "packages": packages.split()}
        # The packages for Secure Boot have a stage of their own: the other images do not install
        # them and boot GRUB's core image.
        more = {"type": "apt", "packages": SIGNED.format(name).split()}
        signed = [more] if "uefi-secure" in self.firmwares else []
        disk = {
            "type": "qemu",
            "boot-loader": stage.boot_loader,
            "unified-kernel-image": stage.unified_kernel_image,
            "partition-table": stage.partition_table,
            "file-system": stage.file_system,
        }
        return json.dumps(
            {
                "name": self.name,
                "architecture": name,
                "stages": [apt, *signed, disk],
                "boot-test": {"firmware": list(self.firmwares)},
            }
        )


def combinations(architecture: Architecture = AMD64) -> Iterator[Combination]:
    """All combinations that validation allows; Secure Boot always gets a separate image."""
    hints = get_type_hints(Qemu)
    for loader in get_args(hints["boot_loader"]):
        for unified in (False, True):
            for table in get_args(hints["partition_table"]):
                for file_system in get_args(hints["file_system"]):
                    try:
                        stage = Qemu(
                            boot_loader=loader,
                            unified_kernel_image=unified,
                            partition_table=table,
                            file_system=file_system,
                        )
                    except ValueError:
                        continue
                    if any(stage.obstacles(architecture)):
                        continue
                    allowed = [f for f in FIRMWARES if stage.refusal(f, architecture) is None]
                    plain = tuple(f for f in allowed if f != "uefi-secure")
                    yield Combination(stage, plain, architecture)
                    if "uefi-secure" in allowed:
                        yield Combination(stage, ("uefi-secure",), architecture)


def build(combination: Combination, program: list[str], directory: Path) -> dict[BootFirmware, str]:
    """Builds and boots a combination; returns the last columns of the row of each firmware."""
    recipe = directory / f"{combination.name}.yml"
    recipe.write_text(combination.recipe())
    argv = [*program, "build", str(recipe), "--output", str(directory / combination.name)]
    done = subprocess.run(
        [*argv, "--json", "--progress", "none"],
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    result: dict[str, Any] = json.loads(done.stdout) if done.stdout else {}
    seen: dict[BootFirmware, str] = {
        verdict["firmware"]: f"{status(verdict)} | {verdict['seconds']:.0f}"
        for verdict in result.get("boot", [])
    }
    if not seen:
        sys.stderr.write(done.stderr)
    # Images are large, and only the verdicts are needed.
    subprocess.run(["rm", "-rf", directory / combination.name], check=True)
    return {firmware: seen.get(firmware, "not built | ") for firmware in combination.firmwares}


def status(verdict: dict[str, Any]) -> str:
    """The status of a boot, and the phases that it has not shown or not in this order."""
    phases = [name for name in verdict["phases"] if name not in MAY_BE_MISSED]
    if verdict["status"] != "passed" or phases == EXPECTED:
        return str(verdict["status"])
    return f"passed, but with the phases {', '.join(phases)}"


def row(combination: Combination, firmware: BootFirmware) -> str:
    stage = combination.stage
    table, kind = stage.partition_table, stage.file_system
    name = combination.architecture.name
    return f"| {name} | {combination.loader} | {table} | {kind} | {firmware} |"


def write_page(seen: dict[str, str]) -> None:
    """Writes the page; combinations that did not run keep their old rows."""
    old = PAGE.read_text().splitlines() if PAGE.exists() else []
    text = HEAD
    for architecture in ARCHITECTURES.values():
        lines = []
        for combination in combinations(architecture):
            for firmware in combination.firmwares:
                start = row(combination, firmware)
                before = next(
                    (line for line in old if line.startswith(start)), f"{start} not tried | |"
                )
                lines.append(f"{start} {seen[start]} |" if start in seen else before)
        text += TABLE.format(architecture.name) + "\n".join(lines) + "\n"
    PAGE.write_text(text)


def is_known(combination: Combination) -> bool:
    """Whether the page says that the combination has passed under each firmware."""
    lines = PAGE.read_text().splitlines() if PAGE.exists() else []
    starts = [f"{row(combination, firmware)} passed |" for firmware in combination.firmwares]
    return all(any(line.startswith(start) for line in lines) for start in starts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="run only combinations whose name contains this")
    parser.add_argument(
        "--untried",
        action="store_true",
        help="run only combinations that have not passed on the page",
    )
    parser.add_argument("--architecture", choices=list(ARCHITECTURES), default=AMD64.name)
    parser.add_argument("--program", nargs="+", default=[str(TOP / ".venv/bin/particle-os")])
    arguments = parser.parse_args()
    seen: dict[str, str] = {}
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="matrix-") as directory:
        for combination in combinations(ARCHITECTURES[arguments.architecture]):
            if arguments.only not in combination.name:
                continue
            if arguments.untried and is_known(combination):
                continue
            found = build(combination, arguments.program, Path(directory))
            for firmware, result in found.items():
                seen[row(combination, firmware)] = result
                print(row(combination, firmware), result, flush=True)
            write_page(seen)
    return 0 if all(result.startswith("passed |") for result in seen.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
