"""A stage writes its secret wherever it can, and the run ends badly: no place shows the secret."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from .. import canary
from .conftest import Account, user_qemus

# What both stages print, in POSIX sh; `fold` and the others are busybox's in the tiny base.
PRINT = """\
      said() {
        echo "the token is $(cat "$token")"
        $box fold -w 12 "$token"; echo
        $box fold -w 1 "$token"; echo
        $box base64 "$token"
        $box base64 "$token" | $box fold -w 20
        $box od -A n -v -t x1 "$token"
        $box od -A n -v -t x1 "$token" | $box tr -d ' \\n'; echo
        $box head -c 4080 /dev/zero | $box tr '\\0' -; $box cat "$token"; echo
        echo "::error::$(cat "$token") ##[error]$(cat "$token")"
      }
"""
RECIPE = """\
name: leaving
base-image: tar:{base}
stages:
  - type: run
    secrets: [{{name: token, env: TOKEN}}]
    script: |
      token=/run/secrets/token box=busybox
{print}
      said; said >&2
      for place in console kmsg ttyS0 ttyS1 hvc0 vda; do
        test ! -e "/dev/$place" || echo "the stage has /dev/$place"
        (said >"/dev/$place") 2>&1 || true
      done
  - type: run
    in: helper
    secrets: [{{name: token, env: TOKEN}}]
    script: |
      token=$TARGET/run/secrets/token box=
{print}
      said
      for place in console ttyS0; do said >"/dev/$place"; done
      said | while read -r line; do echo "<3>$line" >/dev/kmsg || true; done
      {ending}
  - type: qemu
"""
# How the run ends: the last command of the stage, and the status of particle-os.
ENDINGS = {
    "the stage fails": ("exit 7", 3),
    "the stage fails, as JSON": ("exit 7", 3),
    "QEMU is killed": ("echo all is said; sleep 600", 5),
    "the controller is killed": ("echo all is said; sleep 600", -signal.SIGKILL),
}


def places(account: Account, output: Path) -> list[Path]:
    """The directories in which a run leaves files."""
    return [output, account.cache, account.cache / "checkpoints", account.directory / "home"]


@pytest.mark.parametrize("how", ENDINGS)
def test_no_secret_leaves_a_run_that_ends_badly(
    account: Account, tiny_base: Path, how: str
) -> None:
    ending, status = ENDINGS[how]
    secret, started = canary.new_secret(), time.time()
    output = account.make_directory("leaving-out")
    recipe = account.write(
        account.directory / "leaving.yml",
        RECIPE.format(base=tiny_base, print=PRINT, ending=ending),
    )
    style = ["--json", "--progress", "json"] if "JSON" in how else ["--progress", "plain"]
    process = account.start(
        "build", recipe, "--output", output, "--allow-env", "TOKEN", "--accel", "tcg", "-v",
        "--junit", output / "junit.xml", *style, TOKEN=secret, GITHUB_ACTIONS="true",
    )  # fmt: skip
    with canary.Watch(process.pid, secret) as watch:
        said = follow(account, process, how)
        stdout, stderr = process.communicate(timeout=600)
    stderr = said + stderr
    assert process.returncode == status, stderr
    # Programs that end at once may be missed.
    assert "qemu-system-x86_64" in watch.programs
    assert watch.found == []
    assert "the stage has /dev/" not in stderr
    assert stderr.count("the token is ***") >= 3
    found = [f"stdout: {view}" for view in canary.traces(stdout.encode(), secret)]
    found += [f"stderr: {view}" for view in canary.traces(stderr.encode(), secret)]
    for place in places(account, output):
        found += canary.in_files(place, secret, since=started)
    assert found == []
    if status > 0:
        failed = output / "leaving.failed"
        assert b"the token is ***" in (failed / "leaving.console.log").read_bytes()
        assert "the token is ***" in (failed / "leaving.log").read_text()
        assert b"***" in (output / "junit.xml").read_bytes()
    subprocess.run(["rm", "-rf", output], check=True)


def follow(account: Account, process: subprocess.Popen[str], how: str) -> str:
    """Reads until the stage has said all, then kills; returns what it has read."""
    if "killed" not in how:
        return ""
    said = ""
    assert process.stderr is not None
    for line in process.stderr:
        said += line
        if line.strip() == "all is said":
            break
    (qemu,) = user_qemus(account)
    os.kill(qemu if "QEMU" in how else process.pid, signal.SIGKILL)
    return said
