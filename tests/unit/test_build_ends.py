"""The messages and files of a build, in each of its ends."""

import errno
import html
import json
import os
import re
import signal
from xml.etree import ElementTree as ET

import pytest
from particle_os.__main__ import main
from particle_os.jobs.delivery import Delivery

from .played_build import ENDS, World, run, set_up


@pytest.fixture
def world(tmp_path, monkeypatch):
    world = World(tmp_path, "text", ["a line"], b"on the console\r\n", "detail")
    set_up(world, monkeypatch)
    monkeypatch.setenv("TOKEN", "the secret of a stage")
    return world


def kinds(path):
    """The results of the test cases in a JUnit file that are no success."""
    cases = ET.fromstring(path.read_bytes()).findall("testsuite/testcase")
    return len(cases), [child.tag for case in cases for child in case]


@pytest.mark.parametrize(
    ("ends", "options", "expected"),
    [
        ("good", [], (2, [])),
        ("good", ["--no-boot-test"], (1, ["skipped"])),
        ("defective", [], (1, ["failure"])),
        ("defective", ["--no-boot-test"], (1, ["failure"])),
        ("not booted", [], (2, ["failure", "failure"])),
        ("stage failed", [], (1, ["error"])),
    ],
)
def test_the_junit_file_of_a_build_has_its_end_as_a_test_case(world, ends, options, expected):
    world.ends = ends
    assert run(world, *options).exit_code == ENDS[ends]
    assert kinds(world.path / "boot.xml") == expected


class Recording:
    """Shared caches that record whether the image is published when a build gives."""

    def __init__(self, out):
        self.out, self.given = out, []

    def give(self, keys):
        self.given.append((len(keys), (self.out / "leaky.raw").exists()))


@pytest.mark.parametrize(
    ("ends", "options", "given"),
    [
        ("good", [], [(3, True)]),
        ("good", ["--no-boot-test"], []),
        *((ends, [], []) for ends in ENDS if ends != "good"),
    ],
)
def test_only_a_build_that_passes_its_boot_test_gives_to_a_shared_cache(
    world, ends, options, given
):
    """It gives the keys of the base and of the two stages, after it has published the image."""
    world.ends, world.sharing = ends, Recording(world.out)
    assert run(world, *options).exit_code == ENDS[ends]
    assert world.sharing.given == given


def test_the_boot_test_of_a_build_shows_the_last_line_of_the_console(world):
    result = run(world, "--progress", "json")
    assert result.exit_code == 0
    shown = [json.loads(line) for line in result.stderr.splitlines() if line.startswith("{")]
    booted = shown[shown.index({"event": "phase-started", "phase": "boot test (bios)"}) :]
    assert {"event": "line", "text": "on the console"} in booted


@pytest.mark.parametrize("ends", ["good", "stage failed"])
def test_a_build_without_the_cache_says_so_in_its_result_and_report(world, ends):
    world.ends = ends
    assert run(world, "--no-boot-test").exit_code == ENDS[ends]
    (path,) = world.out.glob("**/leaky.result.json")
    assert json.loads(path.read_text())["no_cache"] is True
    page = path.with_name("leaky.report.html").read_text()
    assert "<dt>Earlier results</dt><dd>none: built with --no-cache</dd>" in page


@pytest.mark.parametrize(
    ("ends", "title", "kinds_of_cases", "heading", "status"),
    [
        ("good", "notice boot test (bios): passed", [], "passed", "passed"),
        ("check failed", "error boot test (bios): checks-failed", ["failure"], "checks-failed",
         "not-booted"),
        ("not booted", "error boot test (bios): units-failed", ["failure"] * 2, "units-failed",
         "not-booted"),
        ("defective", "error build: defective", ["failure"], "defective", "defective"),
        ("stage failed", "error build: failed", ["error"], "failed", "failed"),
        ("vm died", "error build: infrastructure", ["error"], "infrastructure", "infrastructure"),
    ],
)  # fmt: skip
def test_exit_status_junit_annotations_and_summary_agree(
    world, monkeypatch, ends, title, kinds_of_cases, heading, status
):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    world.ends = ends
    result = run(world)
    assert result.exit_code == ENDS[ends]
    assert kinds(world.path / "boot.xml")[1] == kinds_of_cases
    assert annotations(result.output) == [title]
    summary = html.unescape((world.path / "summary.md").read_text())
    assert summary.startswith(f"### leaky: {heading}\n")
    (found,) = world.out.rglob("leaky.result.json")
    assert json.loads(found.read_text())["status"] == status


def annotations(output):
    """The annotations of a build of the recipe leaky: level and title."""
    found = re.findall(r"^::(error|notice) title=(.*?)::", output, re.MULTILINE)
    return [
        f"{level} {title}".replace(" of leaky", "").replace("%3A", ":") for level, title in found
    ]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_an_interrupted_build_keeps_its_logs_until_the_next_one(
    world, monkeypatch, signals_restored, name
):
    number = signal.Signals[name]
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    world.disturb = lambda: os.kill(os.getpid(), number)
    result = run(world, "--progress", "plain")
    assert result.exit_code == 128 + number
    failed = world.out / "leaky.failed"
    assert f"error: ended by {name}\n  log:   {failed}/leaky.log\n" in result.stderr
    assert {path.name for path in world.out.iterdir()} == {"leaky.failed"}
    assert "stages ..." in (failed / "leaky.log").read_text()
    assert "on the console" in (failed / "leaky.console.log").read_text()
    assert kinds(world.path / "boot.xml") == (1, ["error"])
    assert f"ended by {name}" in (world.path / "boot.xml").read_text()
    summary = html.unescape((world.path / "summary.md").read_text())
    assert summary.startswith("### leaky: cancelled\n")
    assert f"ended by {name}" in summary
    assert annotations(result.output) == ["error build: cancelled"]
    world.disturb = lambda: None
    assert run(world).exit_code == 0
    assert not failed.exists()


def test_an_error_of_the_system_is_in_the_files_too(world, monkeypatch):
    """The files are those of this build, not of an earlier one."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert run(world).exit_code == 0

    def publish(delivery, result):
        raise OSError(errno.EIO, "Input/output error", "leaky.raw")

    monkeypatch.setattr(Delivery, "publish", publish)
    result = run(world, "--refresh", "timezone")
    assert result.exit_code == 5
    assert kinds(world.path / "boot.xml") == (1, ["error"])
    assert "leaky: infrastructure" in html.unescape((world.path / "summary.md").read_text())
    assert annotations(result.output) == ["error build: infrastructure"]


def test_a_signal_after_the_publication_leaves_the_images_and_no_logs_of_a_failure(
    world, monkeypatch, signals_restored
):
    publish = Delivery.publish

    def and_end(delivery, result):
        publish(delivery, result)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Delivery, "publish", and_end)
    assert run(world).exit_code == 143
    assert (world.out / "leaky.raw").exists()
    assert not (world.out / "leaky.failed").exists()


def status_of(world, monkeypatch, redirect):
    """The exit status of the program, in a process of its own, with other standard streams."""
    words = ["build", world.path / "leaky.yml", "--output", world.out, "--no-cache"]
    words += ["--allow-env", "TOKEN", "--accel", "tcg"]
    monkeypatch.setattr("sys.argv", ["particle-os", *map(str, words)])
    child = os.fork()
    if not child:
        try:
            redirect()
            main()
        except SystemExit as ended:
            os._exit(ended.code or 0)
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def to_full_disk():
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)


def to_no_reader():
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, 1)


def to_nothing():
    os.close(1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("redirect", "status"),
    [(to_full_disk, 5), (to_no_reader, 128 + signal.SIGPIPE), (to_nothing, 0)],
)
@pytest.mark.parametrize("ends", ["good", "not booted"])
def test_the_output_is_complete_whether_or_not_the_result_can_be_printed(
    world, monkeypatch, redirect, status, ends
):
    world.ends = ends
    found = status_of(world, monkeypatch, redirect)
    if ends == "good":
        assert found == status
        assert (world.out / "leaky.raw").exists()
        assert (world.out / "SHA256SUMS").exists()
    else:
        assert found == (128 + signal.SIGPIPE if redirect is to_no_reader else 4)
        assert (world.out / "leaky.failed" / "leaky.raw").exists()
    assert not [path for path in world.out.iterdir() if path.name.startswith(".")]
