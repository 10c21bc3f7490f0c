"""Builds reuse the work of earlier builds, and the result is identical."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from shutil import copytree, rmtree

from .conftest import Account, Outcome, example, leftovers, recipe_text, user_qemus

Built = tuple[Outcome, Path]
MIB = 1 << 20
# shadow(5) has the day of a new password, and a day may end between two builds.
PASSWORD_DAY = re.compile(rb"(?<=:)[0-9]{5}(?=:)")
# Two images of one recipe differ in these files: each file system has its own identifier, which
# both files contain.
DIFFERS = {"etc/fstab", "boot/extlinux/extlinux.conf"}


def tree(image: Path, where: Path) -> dict[str, tuple[object, ...]]:
    """Type, mode, owner, link target and content of each file of the image's ext4 partition."""
    where.mkdir()
    argv = ["/sbin/debugfs", "-R", f"rdump / {where}", f"{image}?offset={MIB}"]
    subprocess.run(argv, check=True, capture_output=True, timeout=300)
    found: dict[str, tuple[object, ...]] = {}
    for directory, directories, files in os.walk(where):
        for name in (*directories, *files):
            path = Path(directory) / name
            status = path.lstat()
            content: bytes | str = b""
            if stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                content = path.read_bytes()
                if path.name in ("shadow", "shadow-"):
                    content = PASSWORD_DAY.sub(b"", content)
            about = (oct(status.st_mode), status.st_uid, status.st_gid, content)
            found[str(path.relative_to(where))] = about
    return found


def with_own_cache(account: Account) -> Account:
    """The user with another cache, which links to the helper VM (builds never write to it)."""
    place = account.make_directory("pruned-cache")
    copy = place / "particle-os" / "helpers"
    rmtree(copy.parent, ignore_errors=True)
    copytree(account.cache / "helpers", copy, copy_function=os.link, dirs_exist_ok=True)
    for path in (copy.parent, copy, *copy.iterdir()):
        os.chown(path, account.uid, account.gid)
    copy.parent.chmod(0o700)
    return replace(account, environment={**account.environment, "XDG_CACHE_HOME": str(place)})


def test_with_nothing_changed_the_images_are_left_alone(account: Account, built: Built) -> None:
    output = built[1]
    recipe = example(account, "minimal-test")
    before = {p.name: (p.stat().st_mtime_ns, p.stat().st_ino) for p in output.iterdir()}
    outcome = account.run("build", recipe, "--output", output, "--json", "--progress", "plain")
    assert outcome.status == 0
    assert "nothing has changed" in outcome.stderr
    assert outcome.json()["build_key"] == built[0].json()["build_key"]
    assert {p.name: (p.stat().st_mtime_ns, p.stat().st_ino) for p in output.iterdir()} == before
    assert leftovers(account, output) == []


def test_an_image_from_checkpoints_equals_one_made_in_one_go(
    account: Account, built: Built, tmp_path: Path
) -> None:
    """All stages but the last come from the earlier build; the images are equal file by file."""
    recipe = example(account, "minimal-test")
    output = account.make_directory("again")
    run = ["build", recipe, "--output", output, "--refresh", "users", "--no-boot-test", "--json"]
    expected = [True, True, True, False, False]
    steps = account.run(*run, "--dry-run").json()["steps"]
    assert [step["ready"] for step in steps if step["step"].startswith("stage ")] == expected
    outcome = account.run(*run, "--progress", "plain")
    assert outcome.status == 0, outcome.stderr
    assert [stage["cached"] for stage in outcome.json()["stages"]] == expected
    assert "push base" not in outcome.stderr
    first = tree(built[1] / "minimal-test.raw", tmp_path / "first")
    second = tree(output / "minimal-test.raw", tmp_path / "second")
    assert first.keys() == second.keys()
    assert len(first) > 5000
    different = {name for name in first if first[name] != second[name]}
    assert different <= DIFFERS
    assert different >= DIFFERS


def test_with_a_source_date_two_cold_builds_are_the_same_bytes(
    account: Account, tiny_base: Path
) -> None:
    # A file system of this size has copies of the superblock.
    text = recipe_text("same", f"tar:{tiny_base}") + "    size: 300M\n"
    recipe = account.write(account.directory / "same.yml", text)
    digests = []
    for number in range(2):
        output = account.make_directory(f"same-{number}")
        outcome = account.run(
            "build", recipe, "--output", output, "--source-date", "1790000000", "--no-cache",
            "--no-boot-test", "--json",
        )  # fmt: skip
        assert outcome.status == 0, outcome.stderr
        assert outcome.json()["source_date"] == 1790000000
        digests.append(outcome.json()["artifacts"][0]["sha256"])
    assert digests[0] == digests[1]


def test_after_a_failure_the_next_build_goes_on_there(account: Account, tiny_base: Path) -> None:
    """The second build takes the first stage from its checkpoint and shows none of its output."""
    output = account.make_directory("resumed")
    text = recipe_text("resumed", f"tar:{tiny_base}", "said-once").replace(
        "  - type: qemu", "  - type: timezone\n    zone: Europe/Berlin\n  - type: qemu"
    )
    recipe = account.write(account.directory / "resumed.yml", text)
    same = ("--accel", "tcg", "--source-date", "1790000000", "--scratch-size", "16G")
    run = ("build", recipe, "--output", output, "--no-boot-test", "-v", *same)
    first = account.run(*run)
    assert first.status == 3, "the tiny base has no time zones"
    assert "installing said-once" in first.stderr
    result = json.loads((output / "resumed.failed/resumed.result.json").read_text())
    assert [stage["status"] for stage in result["stages"]] == ["done", "failed", "not-run"]
    second = account.run(*run)
    assert second.status == 3
    assert "stage 1/3 apt: cached" in second.stderr
    assert "installing said-once" not in second.stderr
    # `shell` opens the target as each stage left it, and discards all changes.
    commands = "ls /made-in-the-shell; echo 1 > /made-in-the-shell; cat /etc/passwd; exit 7\n"
    for state in ([], ["--at", "apt"], ["--failed"], ["--failed"]):
        entered = account.run("shell", recipe, *same, *state, text=commands)
        assert entered.status == 7, entered.stderr
        assert "root:x:0:0" in entered.stdout
        assert "/made-in-the-shell\n" not in entered.stdout
    assert account.run("shell", recipe, *same, "--at", "timezone").status == 2
    assert account.run("shell", recipe, "--accel", "tcg", "--failed").status == 2, "another key"
    planned = account.run(*run, "--dry-run").stdout.splitlines()
    assert "stage 1      apt (cached)" in planned
    account.write(recipe, text.replace("said-once", "said-twice"))
    planned = account.run(*run, "--dry-run").stdout.splitlines()
    assert "stage 1      apt" in planned
    third = account.run(*run)
    assert "installing said-twice" in third.stderr, "a changed option changes the key of the stage"


def test_prune_spares_what_a_running_build_stands_on(account: Account, tiny_base: Path) -> None:
    output = account.make_directory("pruned")
    # Another cache, because other tests need the contents of the shared one.
    account = with_own_cache(account)
    text = recipe_text("pruned", f"tar:{tiny_base}", "package").replace(
        "  - type: qemu", "  - type: apt\n    packages: [hang]\n  - type: qemu"
    )
    recipe = account.write(account.directory / "pruned.yml", text)
    run = ("build", recipe, "--output", output, "--accel", "tcg", "--progress", "plain", "-v")
    process = account.start(*run)
    assert process.stderr is not None
    try:
        assert any("hanging now" in line for line in process.stderr)
        process.terminate()
        process.communicate(timeout=60)
        process = account.start(*run)
        assert process.stderr is not None
        seen = []
        for line in process.stderr:
            seen.append(line)
            if "hanging now" in line:
                break
        assert any("stage 1/3 apt: cached" in line for line in seen)
        removed = {e["kind"] for e in account.run("cache", "prune", "--size", "0", "--json").json()}
        assert removed <= {"checkpoint"}
        labels = [e["label"] for e in account.run("cache", "list", "--json").json()]
        assert {"base", "apt"} <= set(labels)
    finally:
        process.terminate()
        process.communicate(timeout=60)
    until = time.monotonic() + 5
    while user_qemus(account) and time.monotonic() < until:
        time.sleep(0.05)
    assert leftovers(account, output) == []
