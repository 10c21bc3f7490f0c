"""`make bench` measures speed, and compares it with other tools on the same machine in one run.

The program prints a table and writes bench.json. Under emulation, seconds of two machines (or of
one machine at two times) cannot be compared; the ratios of one run can. The table has no value for
a tool that is not installed (debos) or not permitted (mmdebstrap).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from particle_agent.stages.software.apt import Apt
from particle_os.architecture import AMD64
from particle_os.base.suite import find_suite
from particle_os.recipe import loading
from particle_os.sandbox import helper, running
from particle_os.sandbox.template import load_template
from particle_os.system import process
from particle_os.system.deadline import Deadline
from particle_os.system.gate import Gate
from particle_os.system.workspace import allocated_bytes, cache_directory, workspace
from particle_os.vm import accel
from particle_os.vm.console import ConsoleLog
from rich.console import Console
from rich.table import Table

from . import recipes, shared_cache

REFERENCE = Path(__file__).with_name("reference.yml")
MINIMAL = Path("recipes/minimal-test.yml")
DEBOS = "debos -b qemu, the same without a disk"
ROUNDS = 3
RESOURCES = running.Resources(memory=2 << 30, cpus=2, scratch=8 << 30)
BUILD_SECONDS = 1800.0


class BuildFailed(Exception):
    """A build that the benchmark measures has failed; the rows of other groups are kept."""


@dataclass
class Row:
    """A line of the table: the seconds, the comparison, and the target."""

    what: str
    seconds: float | None
    beside: str = ""
    ratio: float | None = None
    target: str = ""
    note: str = ""


@dataclass
class Bench:
    """The rows so far, and the directory for the files of the benchmark."""

    place: Path
    rows: list[Row] = field(default_factory=list)

    def add(self, *arguments: Any, **options: Any) -> None:
        row = Row(*arguments, **options)
        self.rows.append(row)
        print(f"{row.what}: {_seconds(row.seconds)} {row.note}".rstrip(), file=sys.stderr)

    def build(self, path: Path, output: str, *options: str) -> tuple[float, dict[str, Any]]:
        """Builds a recipe with the command line; returns its seconds and its result."""
        argv = [Path(sys.executable).with_name("particle-os"), "build", path, "--json"]
        argv += ["--output", self.place / output, *options]
        began = time.monotonic()
        done = subprocess.run(argv, check=False, capture_output=True, timeout=BUILD_SECONDS)
        seconds = time.monotonic() - began
        if done.returncode != 0:
            raise BuildFailed(f"{done.stderr.decode()}\nthe build of {path} failed")
        return seconds, json.loads(done.stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=", ".join(GROUPS))
    chosen = parser.parse_args().groups or list(GROUPS)
    if unknown := set(chosen) - set(GROUPS):
        parser.error(f"no group {', '.join(sorted(unknown))}: there are {', '.join(GROUPS)}")
    failed = 0
    with tempfile.TemporaryDirectory(prefix="particle-os-bench-", dir="/var/tmp") as place:
        bench = Bench(Path(place))
        for name in chosen:
            try:
                for measure in GROUPS[name]:
                    measure(bench)
            except BuildFailed as error:
                print(error, file=sys.stderr)
                failed += 1
            rows = [asdict(row) for row in bench.rows]
            found = {"qemu": process.version(AMD64.vm.qemu), "rows": rows}
            Path("bench.json").write_text(json.dumps(found))
    _show(bench.rows)
    return 1 if failed else 0


def _validate(bench: Bench) -> None:
    """Measures the validation of 1000 recipes of 30 stages in one process."""
    kinds = (
        "{type: apt, name: All, packages: [linux-image-amd64, sudo, locales, vim], timeout: 20m}",
        "{type: locale, default: en_US.UTF-8, generate: [de_DE.UTF-8]}",
        "{type: users, users: [{name: admin, uid: 2000, sudo: password, groups: [adm]}]}",
        '{type: run, command: [sh, -eu, -c, "echo ${word} > /etc/word"]}',
    )
    stages = "".join(f"  - {kinds[i % len(kinds)]}\n" for i in range(29))
    paths = [bench.place / f"recipe-{number}.yml" for number in range(1000)]
    for number, path in enumerate(paths):
        top = f"variables: {{word: hello}}\nname: recipe-{number}\nstages:\n"
        path.write_text(f"{top}{stages}  - type: qemu\n")
    program = Path(sys.executable).with_name("particle-os")
    seconds = _timed([program, "validate", *paths])
    bench.add("validate 1000 recipes of 30 stages", seconds, target="5 s")
    for path in paths:
        path.unlink()


def _first(bench: Bench) -> None:
    """Makes the helper, the base and the saved state, and fetches the packages."""
    bench.build(REFERENCE, "first", "--no-boot-test")


def _helper(bench: Bench) -> None:
    """Measures a helper VM until its first answer: booted and saved, restored, booted only."""
    with workspace() as work:
        made = helper.ensure(
            load_template("debian-trixie"),
            cache=cache_directory(),
            work=work,
            log=lambda line: None,
            note=print,
        )
        acceleration = accel.choose(
            "auto",
            kernel=made.kernel,
            initrd=made.initrd,
            memory_file=cache_directory() / accel.KVM_MEMORY,
            directory=work.path / "kvm-probe",
            note=print,
        )

    def start(*, plain: bool = False) -> float:
        with workspace() as work:
            deadline = Deadline.after(600, "the benchmark")
            began = time.monotonic()
            with running.running_sandbox(
                made,
                acceleration,
                RESOURCES,
                directory=work.path / "bench",
                output=work.path / "output.raw",
                transcript=ConsoleLog(work.path / "console.log", Gate()),
                deadline=deadline,
                note=print,
                plain=plain,
            ) as vm:
                vm.agent.quiesce(deadline)
                return time.monotonic() - began

    saved, warm, cold = [], [], []
    for _ in range(ROUNDS):
        for state in (cache_directory() / "warm").glob("*.state"):
            state.unlink()
        saved.append(start())
        warm.append(start())
        cold.append(start(plain=True))
    ratio = statistics.median(c / w for c, w in zip(cold, warm, strict=True))
    bench.add("helper VM, booted, saved, restored: once", statistics.median(saved))
    bench.add("helper VM, booted", statistics.median(cold), target="4 s", note=acceleration.name)
    bench.add("helper VM, restored", statistics.median(warm), "booted", ratio, "0.6 s, 6 ×")


def _cold(bench: Bench) -> None:
    """Measures a build that only has the base tarball, against debos and native mmdebstrap."""
    seconds, result = bench.build(REFERENCE, "cold", "--no-cache", "--no-boot-test")
    raw = bench.place / "cold" / result["artifacts"][0]["path"]
    bench.add("cold build", seconds, note=f"{allocated_bytes(raw) >> 20} MiB allocated")
    packages, tarball = _reference()
    other = _debos(bench.place, packages, tarball)
    ratio = other / seconds if other else None
    bench.add(DEBOS, other, "cold build", ratio, "2.5 ×")
    floor = _mmdebstrap(bench.place, packages)
    ratio = seconds / floor if floor else None
    bench.add("mmdebstrap, the packages natively", floor, "cold build takes", ratio, "1.9 ×")
    back = result["phases"]["verify disk"]
    copied = _timed(["cp", "--sparse=always", raw, bench.place / "copy.raw"])
    ratio = back / copied if copied else None
    bench.add("disk back", back, "cp --sparse=always takes", ratio, "2 ×", note=f"cp: {copied} s")
    bench.add("its SHA-256: what is left of it then", result["phases"]["checksums"])
    rss = result["controller_peak_rss_bytes"] >> 20
    bench.add("controller's peak memory", None, target="100 MiB", note=f"{rss} MiB")


def _rebuild(bench: Bench) -> None:
    """Measures rebuilds: with a change before `qemu`, without a change, and two at a time."""
    bench.build(REFERENCE, "rebuild", "--no-boot-test")
    cold = next(row for row in bench.rows if row.what == "cold build").seconds
    assert cold is not None

    def change(output: str) -> float:
        return bench.build(REFERENCE, output, "--no-boot-test", "--refresh", "timezone")[0]

    seconds = change("rebuild")
    bench.add("last stage changed", seconds, "cold build takes", cold / seconds, "10 s")
    other = next(row for row in bench.rows if row.what == DEBOS).seconds
    if other:
        bench.add("debos, which does everything again", other, "that", other / seconds, "8 ×")
    nothing = bench.build(REFERENCE, "rebuild", "--no-boot-test")[0]
    bench.add("nothing changed", nothing, "cold build takes", cold / nothing, "1 s")
    began, used = time.monotonic(), _processor_seconds()
    change("one")
    change("two")
    after_another = time.monotonic() - began
    # One build keeps `busy` processors busy, so two at a time can gain at most this factor.
    busy = (_processor_seconds() - used) / after_another
    most = len(os.sched_getaffinity(0)) / busy
    at_once = _at_once([lambda: change("one"), lambda: change("two")])
    ratio = after_another / at_once
    bench.add(
        "two such builds at once", at_once, "one after the other takes", ratio, "1.5 ×",
        note=f"one alone keeps {busy:.2f} processors busy: at most {most:.2f} ×",
    )  # fmt: skip


def _processor_seconds() -> float:
    """The processor seconds of all ended children, including their own children."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _boot_test(bench: Bench) -> None:
    _, result = bench.build(MINIMAL, "minimal")
    bench.add("boot test of minimal-test, BIOS", result["boot"][0]["seconds"], target="12 s")


def _commit(bench: Bench) -> None:
    """Measures a commit of OSTree and its disk, a rebuild of it, and the test of an update."""

    def build(text: str, output: str, *options: str) -> tuple[float, dict[str, Any]]:
        path = bench.place / "edge.yml"
        path.write_text(text)
        return bench.build(path, output, *options)

    # The packages, the helper and the base are there when the measured builds begin.
    build(recipes.edge("0"), "edge", "--no-boot-test")
    cold = ("--no-cache", "--no-boot-test")
    with_commit = build(recipes.edge("1"), "edge", *cold)[0]
    plain = build(recipes.edge("1", commit=False), "edge-plain", *cold)[0]
    bench.add("cold build of edge, with a commit", with_commit, "without", with_commit / plain)
    bench.add("the commit and its deployment add", with_commit - plain, target="40 s")
    seconds = build(recipes.edge("2"), "edge", "--no-boot-test")[0]
    bench.add("edge after a change in one file", seconds, "cold", with_commit / seconds, "25 s")
    _, result = build(recipes.next_edge("3"), "edge-next")
    steps = [boot["seconds"] for boot in result["boot"] if boot["step"]]
    bench.add("upgrade and return, 3 boots", sum(steps), target="60 s")


def _architectures(bench: Bench) -> None:
    """Measures the same recipe for arm64 and amd64, and its boot test."""
    seconds, boots = {}, {}
    for name in recipes.MACHINES:
        path = bench.place / f"{name}.yml"
        path.write_text(recipes.for_architecture(name))
        _, result = bench.build(path, name)
        boots[name] = result["boot"][0]["seconds"]
        seconds[name], _ = bench.build(path, name, "--no-cache", "--no-boot-test")
    ratio = seconds["arm64"] / seconds["amd64"]
    bench.add("cold build for arm64", seconds["arm64"], "of that for amd64", ratio, "1.3 ×")
    ratio = boots["arm64"] / boots["amd64"]
    bench.add("boot test of arm64, UEFI", boots["arm64"], "of that of amd64", ratio, "30 s")


def _shared_cache(bench: Bench) -> None:
    """Measures an entry of 300 MiB in a registry on loopback, and what a change of it sends."""
    place = bench.place / "shared-cache"
    place.mkdir()
    found = shared_cache.measure(place)
    if found is None:
        return
    bench.add(
        "300 MiB from a shared cache", found.take, "their SHA-256", found.take / found.hash, "3 s"
    )
    note = f"{found.first >> 20} MiB sent; again {found.again >> 10} KiB, "
    note += f"after a change {found.changed / 1e6:.1f} of at most 20 MB"
    ratio = found.changed / found.first
    bench.add("300 MiB to a shared cache", found.give, "a change, in bytes", ratio, note=note)


def _at_once(actions: Sequence[Callable[[], object]]) -> float:
    began = time.monotonic()
    children = []
    for action in actions:
        if (child := os.fork()) == 0:
            action()
            os._exit(0)
        children.append(child)
    if any(os.waitpid(child, 0)[1] for child in children):
        raise BuildFailed("a build failed beside another")
    return time.monotonic() - began


def _reference() -> tuple[list[str], Path]:
    """Returns the packages of the reference recipe and the tarball of its base."""
    loaded = loading.load(REFERENCE).recipe
    packages = [
        name for stage in loaded.stages if isinstance(stage, Apt) for name in stage.packages
    ]
    suite = loaded.base_image.removeprefix("mmdebstrap:")
    found = find_suite(suite, None, loaded.architecture, cache_directory(), plain=False)
    assert found is not None
    return packages, found.tarball


LOCALES = (
    "echo 'en_US.UTF-8 UTF-8' > /etc/locale.gen; locale-gen; "
    "echo LANG=en_US.UTF-8 > /etc/locale.conf; useradd --create-home admin"
)


def _debos(place: Path, packages: Sequence[str], tarball: Path) -> float | None:
    """The seconds that debos takes for equal packages and settings; None when not installed.

    debos makes no disk image here: the debos of Debian 12 cannot unmount its disk at the end.
    """
    if not shutil.which("debos"):
        return None
    with (place / "base.tar.gz").open("wb") as file:
        zstd = subprocess.run(["zstd", "-dc", tarball], stdout=subprocess.PIPE, check=True)
        subprocess.run(["gzip", "-1"], input=zstd.stdout, stdout=file, check=True)
    actions = [
        {"action": "unpack", "file": "base.tar.gz", "compression": "gz"},
        {"action": "apt", "recommends": False, "packages": [*packages, "extlinux"]},
        {"action": "run", "chroot": True, "command": f'sh -c "{LOCALES}"'},
    ]
    (place / "debos.yaml").write_text(yaml.safe_dump({"architecture": "amd64", "actions": actions}))
    return _timed(["debos", "-b", "qemu", "--memory=2GB", "-c", "2", "debos.yaml"], place)


def _mmdebstrap(place: Path, packages: Sequence[str]) -> float | None:
    """The seconds of native mmdebstrap for equal packages and locale; None when not permitted."""
    argv = ["mmdebstrap", "--variant=apt", f"--include={','.join(packages)}"]
    argv += [f'--customize-hook=chroot "$1" sh -c "{LOCALES}"', "trixie", str(place / "native.tar")]
    return _timed(argv)


def _timed(argv: Sequence[str | Path], directory: Path | None = None) -> float | None:
    began = time.monotonic()
    done = subprocess.run(
        argv, cwd=directory, check=False, capture_output=True, timeout=BUILD_SECONDS
    )
    if done.returncode != 0:
        words = (done.stderr or done.stdout).decode("utf-8", "replace").strip().splitlines()
        print(f"{argv[0]} failed: {words[-1] if words else done.returncode}", file=sys.stderr)
        return None
    return round(time.monotonic() - began, 3)


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"


def _show(rows: Sequence[Row]) -> None:
    table = Table()
    for name in ("what", "takes", "beside", "ratio", "target", ""):
        table.add_column(name)
    for row in rows:
        ratio = "-" if row.ratio is None else f"{row.ratio:.2f}"
        table.add_row(row.what, _seconds(row.seconds), row.beside, ratio, row.target, row.note)
    Console(width=110).print(table)


GROUPS = {
    "validate": (_validate,),
    "reference": (_first, _helper, _cold, _rebuild),
    "boot-test": (_boot_test,),
    "commit": (_commit,),
    "architectures": (_architectures,),
    "shared-cache": (_shared_cache,),
}

if __name__ == "__main__":
    sys.exit(main())
