"""Each option of a command arrives at the job where it has its effect."""

import sys
from types import SimpleNamespace

import pytest
from particle_os.boot.machines.extras import Extras
from particle_os.boot.machines.variants import USUAL
from particle_os.boot.observation.verdict import Verdict
from particle_os.cli import boot_test as boot_test_cli
from particle_os.cli import inspect as inspect_cli
from particle_os.cli import run as run_cli
from particle_os.cli import shell as shell_cli
from particle_os.cli import stage as stage_cli
from particle_os.errors import UsageError
from particle_os.jobs import run_image, shell, single_stage
from particle_os.jobs.boot_tests import boot_test
from particle_os.jobs.boot_tests.wanted import BootTestJob
from particle_os.jobs.plan import BuildOptions
from particle_os.recipe.checks.system import UnitCheck
from particle_os.vm import firmware as firmwares
from particle_os.vm.argv import Forward

from .command_line import run

GOOD = Verdict(status="passed", seconds=9.0, message="it is up")


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image.raw"
    path.write_bytes(bytes(1024))
    return path


@pytest.fixture
def found(monkeypatch):
    """The arguments of each search for an acceleration."""
    calls = []

    def find(mode, template, work, architecture, *, log, note):
        calls.append((mode, template))
        note("searched")
        return f"acceleration {mode}"

    for module in (boot_test_cli, inspect_cli, run_cli, shell_cli):
        monkeypatch.setattr(module, "find_acceleration", find)
    return calls


@pytest.fixture
def tested(monkeypatch, found):
    """The boot tests that the command starts; all pass."""
    calls = []

    def test(job, find, progress):
        calls.append(job)
        assert find("work", progress) == f"acceleration {found[-1][0]}"
        return SimpleNamespace(verdicts=[GOOD], failure=None, rejection=None, page="<html>")

    monkeypatch.setattr(boot_test, "run", test)
    return calls


def test_a_boot_test_as_it_is_without_options(image, tested, found):
    result = run("boot-test", image)
    assert (result.exit_code, result.stdout) == (0, "passed in 9.0 s under bios: it is up\n")
    assert tested == [BootTestJob(image, "raw", (USUAL,), ())]
    assert found == [("auto", None)]


def test_each_option_of_a_boot_test_arrives(image, tested, found, tmp_path, monkeypatch):
    monkeypatch.setattr(firmwares, "check", lambda name, architecture: None)
    checks = tmp_path / "checks.yml"
    checks.write_text(
        "firmware: [bios, uefi]\nchecks: [{unit: cron.service}]\n"
        "devices: {disk: [nvme, usb], processors: [3]}\nnetwork: {address: 192.0.2.10/24}\n"
    )
    page, evidence = tmp_path / "page.html", tmp_path / "evidence"
    given = ("--unit", "ssh.service", "--checks", checks, "--memory", "2G", "--timeout", "7")
    run("boot-test", image, *given, "--report", page, "--evidence", evidence, "--accel", "tcg")
    machine = ("--devices", "ahci", "--network-card", "e1000e", "--memory", "1g", "--cpus", "4")
    run("boot-test", image, "--firmware", "uefi", "--checks", checks, *machine)
    run("boot-test", image, "--console-only")
    first, second, third = tested
    units = (UnitCheck(unit="ssh.service"), UnitCheck(unit="cron.service"))
    names = ["bios-nvme", "bios-usb", "uefi-nvme", "uefi-usb"]
    assert [variant.name for variant in first.variants] == names
    assert {(variant.memory, variant.processors) for variant in first.variants} == {(2 << 30, 3)}
    assert [str(variant.addresses.guest) for variant in first.variants] == ["192.0.2.10/24"] * 4
    assert first == BootTestJob(image, "raw", first.variants, units, 7, False, evidence)
    (variant,) = second.variants
    assert (variant.name, variant.memory, variant.processors) == ("uefi-ahci-e1000e", 1 << 30, 4)
    assert third.console_only is True
    assert found[0] == ("tcg", None)
    assert page.read_text() == "<html>"


def test_tests_of_other_frameworks_arrive(image, tested, tmp_path):
    checks, tests = tmp_path / "checks.yml", tmp_path / "tests"
    tests.mkdir()
    (tests / "test_a.py").touch()
    checks.write_text("goss: goss.yaml\n")
    (tmp_path / "goss.yaml").write_text("file: {}\n")
    run("boot-test", image, "--checks", checks, "--testinfra", tests)
    assert [(job.testinfra, job.goss) for job in tested] == [(tests, b"file: {}\n")]
    for given in (("--checks", checks), ("--testinfra", tests)):
        result = run("boot-test", image, "--console-only", *given)
        assert (result.exit_code, len(tested)) == (2, 1)
        assert "--console-only does not ask the system" in result.stderr


def test_tests_without_their_framework_start_nothing(image, tested, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "testinfra", None)
    result = run("boot-test", image, "--testinfra", tmp_path)
    assert (result.exit_code, tested) == (2, [])
    assert "-m pip install pytest-testinfra" in result.stderr


def test_a_boot_test_needs_its_firmware_before_it_starts(image, tested, monkeypatch):
    def missing(name, architecture):
        raise UsageError(f"there is no firmware {name}")

    monkeypatch.setattr(firmwares, "check", missing)
    result = run("boot-test", image, "--firmware", "uefi")
    assert (result.exit_code, tested) == (2, [])
    assert "there is no firmware uefi" in result.stderr


def test_no_check_can_be_made_without_asking_the_system(image, tested):
    result = run("boot-test", image, "--console-only", "--unit", "ssh.service")
    assert (result.exit_code, tested) == (2, [])
    assert "--console-only does not ask the system" in result.stderr
    assert run("boot-test", image, "--unit", "ssh").exit_code == 2


@pytest.fixture
def started(monkeypatch):
    """The images that `run` starts."""
    calls = []

    def start(image, acceleration, **options):
        options["tell"]("told")
        assert options.pop("directory").name == "run"
        calls.append((image, acceleration, options))

    monkeypatch.setattr(run_image, "check_terminal", lambda: None)
    monkeypatch.setattr(run_image, "run", start)
    monkeypatch.setattr(firmwares, "check", lambda name, architecture: None)
    return calls


@pytest.mark.usefixtures("found")
def test_each_option_of_a_run_arrives(image, started, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = ("--firmware", "uefi", "--ssh", "--memory", "3G", "--cpus", "3", "--accel", "tcg")
    disk, data = tmp_path / "disk", tmp_path / "data"
    disk.write_bytes(bytes(1024))
    data.write_bytes(b"#cloud-config")
    given += ("--disk", disk, "--user-data", data, "--forward", "8080:80", "--forward", "0:443")
    usual, other = run("run", image, "-q"), run("run", image, "--keep", *given)
    assert (usual.exit_code, usual.stderr) == (0, "")
    extras = Extras([(disk, "raw")], b"#cloud-config", (Forward(80, 8080), Forward(443)))
    kept = tmp_path / "image.overlay.qcow2"
    assert other.stderr.splitlines() == ["note: searched", "told", f"kept: {kept}"]
    for _, _, options in started:
        del options["tell"], options["close"]
    assert started == [
        (
            image,
            "acceleration auto",
            {
                "format": "raw", "firmware": "bios", "memory": 1 << 30, "cpus": None, "ssh": False,
                "kept": None, "extras": Extras([]),
            },
        ),
        (
            image,
            "acceleration tcg",
            {
                "format": "raw", "firmware": "uefi", "memory": 3 << 30, "cpus": 3, "ssh": True,
                "kept": kept, "extras": extras,
            },
        ),
    ]  # fmt: skip


def test_a_run_needs_its_firmware(image, started, monkeypatch):
    def missing(name, architecture):
        raise UsageError(f"there is no firmware {name}")

    monkeypatch.setattr(firmwares, "check", missing)
    assert run("run", image).exit_code == 2
    assert started == []


@pytest.mark.usefixtures("found")
def test_each_option_of_a_shell_arrives(recipe, monkeypatch):
    calls = []

    def enter(plan, acceleration, progress, *, at, failed, apt_indexes):
        options = plan.options
        calls.append((options.memory, options.accel, acceleration, at, failed, apt_indexes))
        return 7

    monkeypatch.setattr(shell, "enter", enter)
    assert run("shell", recipe, "--at", "apt", "--memory", "3G").exit_code == 7
    assert run("shell", recipe, "--failed", "--accel", "tcg", "--apt-indexes").exit_code == 7
    assert calls == [
        (3 << 30, "auto", "acceleration auto", "apt", False, False),
        (None, "tcg", "acceleration tcg", None, True, True),
    ]
    result = run("shell", recipe, "--failed", "--at", "apt")
    assert (result.exit_code, len(calls)) == (2, 2)
    assert "--at and --failed exclude each other" in result.stderr
    result = run("shell", recipe, "--apt-indexes", "--network", "none")
    assert (result.exit_code, len(calls)) == (2, 2)
    assert "--apt-indexes needs the network" in result.stderr


def test_each_option_of_a_single_stage_arrives(tmp_path, monkeypatch):
    calls = []

    def make(kind, path, options, *, base, export):
        calls.append((kind, path, options, base, export))
        return "the plan"

    def run_stage(plan, output, progress):
        calls.append((plan, output))
        raise UsageError("seen")

    monkeypatch.setattr(stage_cli, "make_stage_plan", make)
    monkeypatch.setattr(single_stage, "run_stage", run_stage)
    for name in ("PARTICLE_OS_MIRROR", "PARTICLE_OS_APT_PROXY", "PARTICLE_OS_PLAIN"):
        monkeypatch.delenv(name, raising=False)
    options, archive = tmp_path / "o.yml", tmp_path / "x.tar"
    words = ("stage", "run", "run", "--options", options, "--base", "mmdebstrap:trixie")
    assert run(*words, "--cpus", "3").exit_code == 2
    run(*words, "--output", archive)
    usual = BuildOptions()
    assert calls == [
        ("run", options, BuildOptions(cpus=3), "mmdebstrap:trixie", False),
        ("the plan", None),
        ("run", options, usual, "mmdebstrap:trixie", True),
        ("the plan", archive),
    ]
    result = run(*words, "--output", tmp_path / "x.tar.gz")
    assert (result.exit_code, len(calls)) == (2, 4)
    assert "expected a name that ends with .tar" in result.stderr
