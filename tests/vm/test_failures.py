"""Failures have precise messages, destroy no earlier results and leave nothing behind."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .conftest import Account, Outcome, leftovers, recipe_text, user_qemus

Built = tuple[Outcome, Path]


def wait_until(condition: object, seconds: float) -> float:
    """Waits until `condition` is true; returns the seconds that it took."""
    assert callable(condition)
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, f"not within {seconds} s"
        time.sleep(0.05)
    return time.monotonic() - started


def start_until(account: Account, words: str, *arguments: str | Path) -> subprocess.Popen[str]:
    """Starts a build and returns when its progress contains `words`."""
    process = account.start(*arguments, "--progress", "plain", "-v")
    assert process.stderr is not None
    for line in process.stderr:
        if words in line:
            return process
    raise AssertionError(f"the build ended without saying {words!r}")


@pytest.fixture
def hanging(account: Account, tiny_base: Path) -> Path:
    """A recipe whose apt stage never ends."""
    return account.write(
        account.directory / "hanging.yml", recipe_text("hanging", f"tar:{tiny_base}", "hang")
    )


@pytest.fixture
def output(account: Account) -> Iterator[Path]:
    path = account.make_directory("failures")
    yield path
    subprocess.run(["rm", "-rf", path], check=True)


def tiny_build(account: Account, tiny_base: Path, name: str, output: Path) -> Outcome:
    recipe = account.write(
        account.directory / f"{name}.yml", recipe_text(name, f"tar:{tiny_base}", "package")
    )
    return account.run("build", recipe, "--output", output, "--no-boot-test", "--accel", "tcg")


def test_a_package_that_does_not_exist(account: Account, built: Built) -> None:
    """Exit 3 with stage, line, apt's message and the log; the last good image stays."""
    output = built[1]
    good = {path.name: path.stat().st_mtime_ns for path in output.iterdir()}
    recipe = account.write(
        account.directory / "missing.yml",
        recipe_text("minimal-test", "mmdebstrap:trixie", "linux-image-amd64", "no-such-package"),
    )
    account.write(recipe, recipe.read_text().replace("update: false", "update: true"))
    outcome = account.run("build", recipe, "--output", output)
    assert outcome.status == 3
    assert f"stage 1 (apt), {recipe}:4" in outcome.stderr
    assert "Unable to locate package no-such-package" in outcome.stderr
    log = output / "minimal-test.failed" / "minimal-test.log"
    assert str(log) in outcome.stderr
    assert "Unable to locate package" in log.read_text()
    assert {n: (output / n).stat().st_mtime_ns for n in good} == good
    assert leftovers(account, output) == []
    subprocess.run(["rm", "-rf", output / "minimal-test.failed"], check=True)


def test_qemu_killed_in_the_middle_of_a_stage(
    account: Account, hanging: Path, output: Path
) -> None:
    process = start_until(account, "hanging now", "build", hanging, "--output", output)
    (qemu,) = user_qemus(account)
    os.kill(qemu, signal.SIGKILL)
    started = time.monotonic()
    _, stderr = process.communicate(timeout=60)
    assert time.monotonic() - started < 5
    assert process.returncode == 5
    assert "QEMU was killed by signal 9" in stderr
    assert "stage 1 (apt)" in stderr
    assert leftovers(account, output) == []


# The moments of the interruption: words of the progress, and the package of the apt stage.
PHASES = [("accelerator ...", "hang"), ("push base ...", "hang"), ("hanging now", "hang")]
PHASES += [("verify disk ...", "package"), ("boot test ...", "package")]


def start_interrupted(
    account: Account, tiny_base: Path, output: Path, phase: tuple[str, str]
) -> subprocess.Popen[str]:
    words, package = phase
    text = recipe_text("interrupted", f"tar:{tiny_base}", package)
    recipe = account.write(account.directory / "interrupted.yml", text)
    # Without checkpoints, so that the build skips no phase.
    arguments = ["--output", output, "--accel", "tcg", "--no-cache"]
    return start_until(account, words, "build", recipe, *arguments)


@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase[0])
def test_a_signal_ends_everything(
    account: Account, tiny_base: Path, output: Path, phase: tuple[str, str]
) -> None:
    process = start_interrupted(account, tiny_base, output, phase)
    name = "SIGINT" if PHASES.index(phase) % 2 else "SIGTERM"
    number = signal.Signals[name]
    process.send_signal(number)
    started = time.monotonic()
    process.communicate(timeout=60)
    wait_until(lambda: user_qemus(account) == [], 5 - (time.monotonic() - started))
    assert process.returncode == 128 + number
    assert leftovers(account, output) == []
    assert [path.name for path in output.iterdir()] == ["interrupted.failed"]
    # The terminal is ahead of the log.
    assert "helper VM: " in (output / "interrupted.failed" / "interrupted.log").read_text()


@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase[0])
def test_kill_9_of_the_controller(
    account: Account, tiny_base: Path, output: Path, phase: tuple[str, str]
) -> None:
    process = start_interrupted(account, tiny_base, output, phase)
    process.kill()
    process.communicate(timeout=60)
    wait_until(lambda: user_qemus(account) == [], 5)
    assert [p for p in output.iterdir() if not p.name.startswith(".particle-os-")] == []
    # Any later command of particle-os that needs private files cleans up.
    disk = account.write(account.directory / "no-disk.raw", "no disk\n" * 1000)
    account.run("boot-test", disk, "--timeout", "1", "--accel", "tcg")
    assert leftovers(account, output) == []
    assert list(output.iterdir()) == []


def test_two_builds_at_once(account: Account, tiny_base: Path, output: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(tiny_build, account, tiny_base, f"twin-{i}", output) for i in (1, 2)]
        for run in runs:
            assert run.result().status == 0, run.result().stderr
    sums = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=output, capture_output=True)
    assert sums.returncode == 0
    assert sums.stdout.count(b": OK") == 2
    assert leftovers(account, output) == []


def test_sockets_are_private(account: Account, hanging: Path, output: Path) -> None:
    """QEMU listens on 127.0.0.1 and on Unix sockets in a directory that only its user may enter."""
    process = start_until(account, "hanging now", "build", hanging, "--output", output)
    try:
        (qemu,) = user_qemus(account)
        inodes = set()
        for entry in Path(f"/proc/{qemu}/fd").iterdir():
            target = os.readlink(entry)
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
        listening = []
        for table in ("tcp", "tcp6", "udp", "udp6"):
            for line in Path(f"/proc/{qemu}/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                # 0A is LISTEN; a bound UDP socket would take datagrams from anywhere.
                if fields[9] in inodes and (fields[3] == "0A" or table.startswith("udp")):
                    listening.append(fields[1].split(":")[0])
        assert listening == ["0100007F"]
        place = Path(os.readlink(f"/proc/{qemu}/cwd"))
        assert list(place.glob("*.sock"))
        assert place.stat().st_mode & 0o077 == 0
    finally:
        process.terminate()
        process.communicate(timeout=60)


def test_hostile_output_is_escaped_and_bounded(
    account: Account, tiny_base: Path, output: Path
) -> None:
    recipe = account.write(
        account.directory / "evil.yml", recipe_text("evil", f"tar:{tiny_base}", "evil")
    )
    outcome = account.run("build", recipe, "--output", output, "--no-boot-test", "--no-cache", "-v")
    assert outcome.status == 0, outcome.stderr
    assert "red \\x1b[31m bell \\x07 bidi" in outcome.stderr
    for text in (outcome.stderr, (output / "evil.log").read_text()):
        assert "\x1b[31m" not in text
        assert "\x07" not in text


def test_a_stage_that_takes_too_long(account: Account, tiny_base: Path, output: Path) -> None:
    text = recipe_text("slow", f"tar:{tiny_base}", "hang").replace(
        "type: apt", "type: apt\n    name: Wait for it\n    timeout: 15s\n    network: none"
    )
    recipe = account.write(account.directory / "slow.yml", text)
    outcome = account.run("build", recipe, "--output", output, "--progress", "plain")
    assert outcome.status == 3
    assert "the stage did not end within 15s" in outcome.stderr
    assert f"stage 1 (apt, 'Wait for it'), {recipe}:4" in outcome.stderr
    assert "| hanging now" in outcome.stderr
    assert "stage 1/2 Wait for it (apt) ..." in outcome.stderr


def test_a_size_that_is_too_small(account: Account, tiny_base: Path, output: Path) -> None:
    text = recipe_text("small", f"tar:{tiny_base}").replace(
        "type: qemu", "type: qemu\n    size: 8M"
    )
    recipe = account.write(account.directory / "small.yml", text)
    outcome = account.run("build", recipe, "--output", output)
    assert outcome.status == 3
    assert "size 8M is too small" in outcome.stderr
    assert "at least" in outcome.stderr
    assert f"{recipe}:4" in outcome.stderr


def test_a_rebuild_that_fails_its_boot_test_publishes_nothing(
    account: Account, tiny_base: Path, output: Path
) -> None:
    """The tiny base has no real kernel: exit 4, the good image stays, the bad one is kept apart."""
    assert tiny_build(account, tiny_base, "none", output).status == 0
    good = hashlib.sha256((output / "none.raw").read_bytes()).hexdigest()
    recipe = account.directory / "none.yml"
    outcome = account.run("build", recipe, "--output", output, "--accel", "tcg")
    assert outcome.status == 4, outcome.stderr
    assert "kernel-not-started" in outcome.stderr
    assert hashlib.sha256((output / "none.raw").read_bytes()).hexdigest() == good
    assert (output / "none.failed" / "none.raw").exists()
    assert (output / "none.failed" / "none.console.log").exists()
    assert leftovers(account, output) == []


def test_a_full_disk(account: Account, tiny_base: Path, output: Path) -> None:
    """Exit 5, and the message states the needed number of bytes."""
    assert os.getuid() == 0, "this test mounts a small tmpfs and needs root, as in CI"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=777", "tmpfs", output], check=True)
    try:
        outcome = tiny_build(account, tiny_base, "full", output)
    finally:
        subprocess.run(["umount", output], check=True)
    assert outcome.status == 5, outcome.stderr
    assert "not enough disk space" in outcome.stderr
    assert "bytes" in outcome.stderr


def test_a_mirror_that_cannot_be_reached(account: Account, tiny_base: Path, output: Path) -> None:
    """No discard service listens on port 9 of loopback, so the connection is refused."""
    recipe = account.write(
        account.directory / "away.yml",
        recipe_text("away", "mmdebstrap:trixie", "linux-image-amd64", "systemd-sysv"),
    )
    cache = account.make_directory("empty-cache")
    outcome = account.run(
        "build", recipe, "--output", output, "--mirror", "http://127.0.0.1:9/debian",
        XDG_CACHE_HOME=str(cache),
    )  # fmt: skip
    assert outcome.status == 5
    assert "127.0.0.1 cannot be reached" in outcome.stderr
    assert outcome.seconds < 120
    assert [p for p in cache.rglob("*") if p.is_file() and p.stat().st_size] == []


def test_a_base_of_another_architecture(account: Account, output: Path) -> None:
    """The build refuses the base before it starts a VM."""
    import io
    import tarfile

    path = account.directory / "arm.tar"
    header = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xb7\x00" + bytes(44)
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("usr/bin/true")
        member.size = len(header)
        archive.addfile(member, io.BytesIO(header))
    os.chown(path, account.uid, account.gid)
    recipe = account.write(account.directory / "arm.yml", recipe_text("arm", f"tar:{path}"))
    outcome = account.run("build", recipe, "--output", output)
    assert outcome.status == 2
    assert "arm64" in outcome.stderr
    assert "amd64" in outcome.stderr
    assert outcome.seconds < 20
