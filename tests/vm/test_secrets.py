"""Files of the host reach the image; secrets only reach their stage."""

from __future__ import annotations

import subprocess
from pathlib import Path

from .conftest import Account

SECRET = "hunter2-\u00e4\u00f6\u00fc-of-the-stage"
STAGES = """\
  - type: files
    files:
      - path: /opt/tool
        source: beside/tool
        mode: "0755"
      - path: /srv/site
        source: beside/site
  - type: run
    in: helper
    secrets:
      - name: token
        env: TOKEN
    script: |
      test "$(stat -c %a "$TARGET/run/secrets/token")" = 400
      echo "the token is $(cat "$TARGET/run/secrets/token")"
      wc -c <"$TARGET/run/secrets/token" >"$TARGET/length"
  - type: run
    in: helper
    script: test ! -e "$TARGET/run/secrets" && test -z "$(ls -A /run/particle-os/secrets)"
"""


def on_disk(image: Path, command: str) -> bytes:
    argv = ["/sbin/debugfs", "-R", command, f"{image}?offset={1 << 20}"]
    return subprocess.run(argv, check=True, capture_output=True, timeout=60).stdout


def holding(place: Path, text: str) -> str:
    """The paths of the files below `place` that contain the text, one a line."""
    argv = ["grep", "--recursive", "--files-with-matches", "--fixed-strings", text, str(place)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120).stdout


def test_files_and_secrets_of_the_host(account: Account, tiny_base: Path) -> None:
    directory = account.make_directory("with-files")
    beside = directory / "beside"
    (beside / "site/css").mkdir(parents=True, exist_ok=True)
    (beside / "tool").write_bytes(b"\x7fTOOL\xff\x00")
    (beside / "site/css/style.css").write_text("body {}")
    recipe = account.write(
        directory / "with-files.yml",
        f"name: with-files\nbase-image: tar:{tiny_base}\nstages:\n{STAGES}  - type: qemu\n",
    )
    output = account.make_directory("with-files-out")
    build = ("build", recipe, "--output", output, "--no-boot-test", "-v", "--accel", "tcg")
    assert account.run(*build, TOKEN=SECRET).status == 2, "the user must name the variable"
    run = (*build, "--allow-env", "TOKEN")
    assert account.run(*run).status == 2, "a missing secret is an error before the start"
    first = account.run(*run, TOKEN=SECRET)
    assert first.status == 0, first.stderr
    image = output / "with-files.raw"
    assert on_disk(image, "cat /opt/tool") == b"\x7fTOOL\xff\x00"
    assert b"Mode:  0755" in on_disk(image, "stat /opt/tool")
    assert on_disk(image, "cat /srv/site/css/style.css") == b"body {}"
    assert on_disk(image, "cat /length").strip() == str(len(SECRET.encode())).encode()
    assert "the token is ***" in first.stderr
    assert SECRET not in first.stdout + first.stderr
    for place in (output, account.cache / "checkpoints", account.cache / "work"):
        assert holding(place, SECRET) == ""
    assert holding(output, "the token is")
    # Only stages whose inputs have changed run again.
    (beside / "site/css/style.css").write_text("body { color: red }")
    changed = account.run(*run, TOKEN=SECRET)
    assert changed.status == 0, changed.stderr
    assert "cached" not in changed.stderr
    assert on_disk(image, "cat /srv/site/css/style.css") == b"body { color: red }"
    other = account.run(*run, TOKEN="another-secret")
    assert other.status == 0, other.stderr
    assert "stage 1/4 files: cached" in other.stderr
    assert "stage 2/4" in other.stderr and "stage 2/4 run: cached" not in other.stderr
    assert on_disk(image, "cat /length").strip() == b"14"
