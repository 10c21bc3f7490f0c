"""The tables that a build prints, as its user sees them."""

import pytest
from particle_agent.contract.inspection import ChangedPackage, CommitFacts
from particle_os.boot.observation.verdict import CheckResult, Verdict
from particle_os.records import AptProxyResult
from particle_os.report import table
from particle_os.report.results import (
    ArchiveResult,
    CommitResult,
    FilesResult,
    PackageResult,
    SingleResult,
    StageResult,
)
from particle_os.sandbox.verification import FindingResult, Verification
from rich.console import Console

from .pages import result

PROXY = AptProxyResult(url="http://127.0.0.1:3142", gone=False, hits=3, misses=1)


def printed(show, *, colours=False):
    terminal = "standard" if colours else None
    console = Console(width=80, highlight=False, color_system=terminal, force_terminal=colours)
    with console.capture() as drawn:
        show(console)
    return [line.rstrip() for line in drawn.get().splitlines()]


def build():
    """A build with one of everything that the summary can show."""
    stages = (
        StageResult(index=0, type="apt", name="tools", status="done", seconds=12.25),
        StageResult(index=1, type="run", status="done", cached=True),
        StageResult(index=2, type="image", status="not-run"),
    )
    findings = (
        FindingResult(code="a", severity="error", place="/etc/fstab", message="gone"),
        FindingResult(code="b", severity="warning", place="", message="odd"),
        FindingResult(code="c", severity="error", place="", message="known", accepted=True),
    )
    checks = (
        CheckResult(name="unit ssh", passed=True, detail="active"),
        CheckResult(name="port 80", passed=False, detail="closed"),
    )
    boot = (
        Verdict(status="passed", seconds=9.0, message="it is up"),
        Verdict(
            status="checks-failed", firmware="uefi", seconds=8.0, message="a\x1b", checks=checks
        ),
    )
    return result(
        "x",
        boot,
        stages=stages,
        verification=Verification(seconds=1.5, findings=findings),
        phases={"base": 2.0, "stages": 15.0, "boot-test": 17.0},
        apt_proxy=PROXY,
    )


def test_the_summary_of_a_build():
    made = build()
    assert printed(lambda console: table.print_result(made, console, ["out/x.raw"])) == [
        " phase / stage      seconds",
        "────────────────────────────",
        " base                   2.0",
        " stages                15.0",
        "   1. tools (apt)      12.2",
        "   2. run            cached",
        "   3. image",
        "   verification         1.5",
        " boot-test             17.0",
        "   raw  5.0 GiB, 7 MiB allocated",
        "  error  /etc/fstab: gone [a]",
        "warning  odd [b]",
        "  error  known [c] (accepted)",
        "  bios  passed in 9.0 s: it is up",
        "  uefi  checks-failed in 8.0 s: a\\x1b",
        "        ok     unit ssh: active",
        "        FAILED port 80: closed",
        " proxy  http://127.0.0.1:3142: 3 of 4 requests from its cache",
        "  note  the helper VM was x",
        "  file  out/x.raw",
    ]


def test_the_colours_of_a_summary():
    lines = printed(lambda console: table.print_result(build(), console, []), colours=True)
    colours = {"\x1b[31m": "red", "\x1b[33m": "yellow", "\x1b[32m": "green"}
    found = {
        word: [
            name
            for code, name in colours.items()
            for line in lines
            if word in line and code in line
        ]
        for word in ("gone", "odd", "known", "it is up", "checks-failed", "ssh", "port 80")
    }
    assert found == {
        "gone": ["red"], "odd": ["yellow"], "known": ["yellow"], "it is up": ["green"],
        "checks-failed": ["red"], "ssh": ["green"], "port 80": ["red"],
    }  # fmt: skip


def test_a_build_without_a_proxy_or_a_boot_says_nothing_of_them():
    made = build()
    helper = made.helper.model_copy(update={"security_note": ""})
    changes = {"apt_proxy": None, "boot": (), "verification": None, "helper": helper}
    bare = made.model_copy(update=changes)
    lines = printed(lambda console: table.print_result(bare, console, []))
    assert lines[-2:] == [" boot-test             17.0", "   raw  5.0 GiB, 7 MiB allocated"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"gone": True}, "http://127.0.0.1:3142 went away during the build"),
        ({"hits": None}, "http://127.0.0.1:3142"),
        ({"misses": None}, "http://127.0.0.1:3142"),
    ],
)
def test_a_proxy_without_counts(changes, told):
    made = build().model_copy(update={"apt_proxy": PROXY.model_copy(update=changes)})
    assert f" proxy  {told}" in printed(lambda console: table.print_result(made, console, []))


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (5 << 20, "5 MiB"), (1 << 30, "1.0 GiB")],
)
def test_bytes_for_people(count, text):
    assert table.human_bytes(count) == text


def test_the_result_of_a_single_stage():
    made = build()
    stage = StageResult(
        index=0, type="run", status="done", seconds=3.04, parts={"apt-get [b]": 2.5, "x": 0.24}
    )
    single = SingleResult(
        particle_os="0", stage=stage, options_sha256="x", base="suite:\x1b", base_digest="x",
        helper=made.helper, apt_proxy=PROXY, phases={}, notes=("a note\x1b",),
        archive=ArchiveResult(path="/o/x.tar", bytes=3 << 20, sha256="x"),
    )  # fmt: skip
    assert printed(lambda console: table.print_single(single, console)) == [
        " what took longest   seconds",
        "─────────────────────────────",
        " apt-get [b]             2.5",
        " x                       0.2",
        "  done  run on suite:\\x1b in 3.0 s",
        " proxy  http://127.0.0.1:3142: 3 of 4 requests from its cache",
        "  note  a note\\x1b",
        "  file  /o/x.tar (3 MiB)",
    ]
    changes = {"stage": stage.model_copy(update={"parts": {}, "seconds": None}), "notes": ()}
    bare = single.model_copy(update={**changes, "apt_proxy": None, "archive": None})
    lines = printed(lambda console: table.print_single(bare, console))
    assert lines == ["  done  run on suite:\\x1b in 0.0 s"]


def test_a_long_path_is_one_line():
    path = "/o/" + "x" * 100
    assert f"  file  {path}" in printed(lambda c: table.print_result(build(), c, [path]))


def commit(**changes):
    packages = tuple(
        PackageResult(name=f"p{number}:amd64", before=None, after="1") for number in range(21)
    )
    files = FilesResult(added=3, changed=2, removed=1, names=("/usr/a",))
    known = {
        "ref": "edge", "checksum": "2" * 64, "parent": "1" * 64, "version": "2", "signer": "F" * 40,
        "packages": packages, "packages_total": 30, "files": files,
    }  # fmt: skip
    return CommitResult(**known | changes)


def test_a_commit_is_told_with_its_difference_to_the_parent():
    lines = printed(lambda c: table.print_result(result("x", commit=commit()), c, []))
    assert f"commit  edge 2: {'2' * 64}, signed by {'F' * 40}" in lines
    told = "since 111111111111: 30 packages changed; files: 3 added, 2 changed, 1 removed"
    assert f"        {told}" in lines
    assert "        p0:amd64 new → 1" in lines
    assert "        p20:amd64 new → 1" not in lines
    assert "        and 10 more packages" in lines


def test_a_first_commit_has_no_difference():
    first = commit(parent=None, files=None, packages=(), packages_total=0, signer=None)
    lines = printed(lambda c: table.print_result(result("x", commit=first), c, []))
    assert f"commit  edge 2: {'2' * 64}" in lines
    assert not [line for line in lines if "since" in line]


def test_the_texts_of_a_commit_are_escaped():
    package = ChangedPackage(name="a\x1b[31m", before="1", after=None)
    facts = CommitFacts(
        ref="edge", checksum="2" * 64, parent=None, version="\u202e", signer=None,
        packages=(package,), packages_total=1,
    )  # fmt: skip
    found = CommitResult.of(facts)
    assert (found.version, found.packages[0].name) == ("\\u202e", "a\\x1b[31m")
    assert found.files is None
