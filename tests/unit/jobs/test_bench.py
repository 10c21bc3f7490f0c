"""The command `bench`, with builds whose VM is played."""

import itertools
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from particle_os.architecture import AMD64, ARM64
from particle_os.jobs import build
from particle_os.jobs.execution.checkpoint_chain import CheckpointChain
from particle_os.jobs.host import bench, timed_build
from particle_os.recipe import loading
from particle_os.recipe.shipped import shipped
from particle_os.vm import accel
from particle_os.vm.accel import TCG, Acceleration

from ..cli.command_line import run
from ..played_build import World, set_up

RECIPE = """\
name: minimal-test
base-image: tar:base.tar
stages:
  - {type: users, users: [{name: ann, password-hash: "*"}]}
  - {type: qemu}
"""
NO_KVM = Acceleration("tcg", "there is no /dev/kvm", 4.0)
KVM = Acceleration("kvm", "a guest ran under it", 1.0)
CPUINFO = "processor\t: 0\nmodel name\t: Example   CPU | 3.0 GHz\nflags\t: fpu\n"
# What apt says in a first build, and in the builds after it.
FIRST = ["Fetched 30.0 MB in 2s (15.0 MB/s)", "Fetched 50.5 MB in 1min 3s (802 kB/s)"]
LATER = ["Fetched 120 kB in 0s (1,200 kB/s)"]


class Bench(World):
    """The world of the builds: `auto` is what works here, and `plans` is what was built.

    The build with the number `bad` has an end that is not good.
    """

    def __init__(self, path):
        super().__init__(path, "text", ["a line"], b"on the console\r\n", "detail")
        self.auto = NO_KVM
        self.plans = []
        self.caches = []
        self.bad = (0, "good")

    def prepared(self, job, played):
        """Plays the preparation: its phases, the lines of apt, and a file in the cache."""
        self.plans.append(job.plan.options)
        number, end = self.bad
        self.ends = end if len(self.plans) == number else "good"
        cache = Path(os.environ["XDG_CACHE_HOME"])
        lines = LATER if (cache / "made").exists() else FIRST
        (cache / "made").touch()
        self.caches.append(cache)
        for name, line in itertools.zip_longest(("helper VM", "base image"), lines):
            with job.progress.phase(name):
                job.progress.line(line or "nothing to fetch")
        found = played(job)
        chosen = {"auto": self.auto, "kvm": KVM, "tcg": TCG}[job.plan.options.accel]
        return replace(found, vms=replace(found.vms, acceleration=chosen))


@pytest.fixture
def world(tmp_path, monkeypatch):
    world = Bench(tmp_path)
    set_up(world, monkeypatch)
    played = build.prepare
    monkeypatch.setattr(build, "prepare", lambda job: world.prepared(job, played))
    monkeypatch.setattr(CheckpointChain, "keep", lambda *arguments, **options: None)
    (tmp_path / "minimal-test.yml").write_text(RECIPE)
    (tmp_path / "cpuinfo").write_text(CPUINFO)
    recipes = dict.fromkeys(bench.RECIPES.values(), tmp_path / "minimal-test.yml")
    monkeypatch.setattr(bench, "shipped", lambda: recipes)
    monkeypatch.setattr(bench, "PROCESSORS", tmp_path / "cpuinfo")
    return world


@pytest.fixture
def measured(monkeypatch):
    """The measured seconds of the builds, one after the other."""

    def measured(*seconds):
        moments = itertools.accumulate(itertools.chain(*([0.0, each] for each in seconds)))
        monkeypatch.setattr(timed_build, "time", SimpleNamespace(monotonic=lambda: next(moments)))

    return measured


def left(own_home):
    """The files of the user's cache."""
    return [path.name for path in (own_home / "cache").rglob("*") if path.is_file()]


def test_the_figures_as_json(world, own_home, measured):
    measured(200.0, 60.0, 12.0)
    result = run("bench", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    figures = found.pop("figures")
    assert len(figures) == 1
    boot = figures[0].pop("boot_test_seconds")
    assert figures[0].pop("helper_seconds") >= 0 and figures[0].pop("base_seconds") >= 0
    cold = figures[0].pop("cold_build")
    assert cold.pop("seconds") == pytest.approx(60.0 - boot)
    assert cold == {"download_seconds": 0, "download_bytes": 120_000}
    assert figures[0] == {
        "accelerator": "tcg",
        "first_build": {"seconds": 200, "download_seconds": 65, "download_bytes": 80_500_000},
        "changed_stage": {"seconds": 12, "download_seconds": 0, "download_bytes": 120_000},
    }
    assert found == {
        "version": 1,
        "particle_os": found["particle_os"],
        "recipe": "minimal-test",
        "architecture": "amd64",
        "processor": "Example CPU | 3.0 GHz",
        "processors": len(os.sched_getaffinity(0)),
        "qemu": "QEMU 10",
        "missing": {"kvm": "there is no /dev/kvm"},
    }
    assert left(own_home) == [".lock"]


def test_the_builds_are_a_first_one_a_cold_one_and_one_with_a_changed_stage(world, own_home):
    before = os.environ["XDG_CACHE_HOME"]
    arguments = ["--mirror", "http://mirror.example.org/debian", "--apt-proxy", "none"]
    assert run("bench", *arguments).exit_code == 0
    asked = [(plan.cache, plan.refresh, plan.boot_test) for plan in world.plans]
    assert asked == [(True, None, False), (False, None, True), (True, "users", False)]
    assert {plan.mirror for plan in world.plans} == {"http://mirror.example.org/debian"}
    assert {plan.apt_proxy for plan in world.plans} == {"none"}
    # All of them have one cache, which was empty and is removed.
    assert len({*world.caches}) == 1
    assert own_home in world.caches[0].parents and not world.caches[0].exists()
    assert os.environ["XDG_CACHE_HOME"] == before


def test_with_kvm_both_accelerators_are_measured_each_from_an_empty_cache(world, own_home):
    world.auto = KVM
    result = run("bench", "--json")
    found = json.loads(result.stdout)
    assert [figures["accelerator"] for figures in found["figures"]] == ["kvm", "tcg"]
    assert [figures["first_build"]["download_bytes"] for figures in found["figures"]] == [
        80_500_000
    ] * 2
    assert found["missing"] == {}
    assert [plan.accel for plan in world.plans] == ["auto"] * 3 + ["tcg"] * 3
    assert len({*world.caches}) == 2
    assert left(own_home) == [".lock"]


def test_one_accelerator_can_be_asked_for(world):
    world.auto = KVM
    found = json.loads(run("bench", "--accel", "tcg", "--json").stdout)
    assert [figures["accelerator"] for figures in found["figures"]] == ["tcg"]
    assert found["missing"] == {}


def test_kvm_that_does_not_open_is_an_error_before_anything_is_made(world, monkeypatch, own_home):
    monkeypatch.setattr(accel, "DEVICE", own_home / "kvm")
    result = run("bench", "--accel", "kvm")
    assert result.exit_code == 5
    assert "error: KVM cannot be used: there is no /dev/kvm\n  do:    Use --accel" in result.stderr
    assert world.plans == []


def test_people_get_a_table_and_the_row_for_the_page(world, measured):
    measured(200.0, 60.0, 12.0)
    lines = run("bench").stdout.splitlines()
    cores = len(os.sched_getaffinity(0))
    assert lines[0] == f"Example CPU | 3.0 GHz, {cores} processor{'s' * (cores > 1)}, QEMU 10"
    assert "  first build     200.0  with an empty cache" in lines
    assert "    downloads        65  80 MB" in lines
    assert "figures with KVM are missing: there is no /dev/kvm" in lines
    row = lines[-1].split(" | ")
    assert row[0].startswith("| Example CPU \\| 3.0 GHz, ")
    assert row[2] == "TCG" and row[5:7] == ["200.0", "65"] and row[8] == "12.0"


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize(
    ("end", "status", "message"),
    [
        ("stage failed", 3, "failed: text"),
        ("vm died", 5, "the VM died: QEMU ended"),
        ("defective", 4, "the disk"),
    ],
)
def test_a_build_that_fails_ends_the_command_and_leaves_nothing(
    world, own_home, number, end, status, message
):
    world.bad = (number, end)
    result = run("bench")
    assert result.exit_code == status
    assert message in result.stderr and "  do:    " in result.stderr
    # No file that is named is there.
    assert "  log:" not in result.stderr and "particle-os shell" not in result.stderr
    assert len(world.plans) == number and result.stdout == ""
    assert left(own_home) == [".lock"]


def test_an_image_that_does_not_boot_is_an_error_with_the_end_of_its_console(world, own_home):
    world.bad = (2, "not booted")
    result = run("bench", "--json")
    error = json.loads(result.stderr)
    assert result.exit_code == error["exit_code"] == 4
    assert "did not pass its boot test" in error["error"]
    assert "on the console" in "".join(error["tail"])
    assert error["log"] is None and error["hint"].endswith(": particle-os build minimal-test")
    assert left(own_home) == [".lock"]


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_an_interrupted_command_leaves_nothing(world, own_home, signals_restored, number, name):
    wanted = signal.Signals[name]
    world.disturb = lambda: len(world.plans) == number and os.kill(os.getpid(), wanted)
    result = run("bench")
    assert result.exit_code == 128 + wanted
    assert result.stderr.endswith(f"error: ended by {name}\n")
    assert left(own_home) == [".lock"]
    assert os.environ["XDG_CACHE_HOME"] == f"{own_home}/cache"


def test_a_processor_without_a_name_is_unknown(world):
    (world.path / "cpuinfo").write_text("processor\t: 0\nBogoMIPS\t: 48.00\n")
    assert json.loads(run("bench", "--json").stdout)["processor"] == "unknown processor"


def test_a_processor_of_arm64_has_numbers(world):
    kinds = [("0x41", "0xd0c"), ("0x41", "0xd4f")]
    text = "".join(
        f"processor\t: {i}\nCPU implementer\t: {kind}\nCPU part\t: {part}\n\n"
        for i, (kind, part) in enumerate(kinds)
    )
    (world.path / "cpuinfo").write_text(text)
    assert json.loads(run("bench", "--json").stdout)["processor"] == "Arm processor 0x41 0xd0c"


@pytest.mark.parametrize(
    ("own", "arguments", "chosen"),
    [(ARM64, [], ARM64), (AMD64, ["--architecture", "arm64"], ARM64), (AMD64, [], AMD64)],
)
def test_the_architecture_of_the_host_is_measured_or_the_given_one(
    world, monkeypatch, own, arguments, chosen
):
    checked, built = [], []
    monkeypatch.setattr(bench, "usual", lambda: own)
    monkeypatch.setattr(accel, "check_device", lambda mode, whose: checked.append(whose))
    played = bench.timed

    def timed(what, recipe, options, progress):
        built.append(recipe.stem)
        # The played build has no machine of arm64.
        plain = replace(options, architecture=None)
        return played(what, world.path / "minimal-test.yml", plain, progress)

    monkeypatch.setattr(bench, "timed", timed)
    monkeypatch.setattr(bench, "shipped", shipped)
    found = json.loads(run("bench", "--json", *arguments).stdout)
    assert checked == [chosen]
    assert {*built} == {found["recipe"]} == {bench.RECIPES[chosen.name]}
    assert found["architecture"] == chosen.name
    text = run("bench", *arguments).stdout
    assert ("images of arm64" in text.splitlines()[-1]) == (chosen is ARM64)


@pytest.mark.parametrize("name", bench.RECIPES)
def test_the_recipe_is_shipped_and_its_stage_before_the_last_one_changes(name):
    loaded = loading.load(shipped()[bench.RECIPES[name]])
    assert loaded.architecture.name == name
    stages = loaded.recipe.stages
    assert [stage.type for stage in stages[-2:]] == [bench.CHANGED, "qemu"]
