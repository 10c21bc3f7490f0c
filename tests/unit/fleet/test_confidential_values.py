"""The builds of several images show no confidential value: no output, no file, no command line."""

import sys

import pytest
from click.testing import CliRunner
from particle_os.cli import cli
from particle_os.fleet.order import Order

from tests.canary import canary_word

SEVERAL = """\
name: x-${kind}
variables: {kind: a, pw: {type: string, default: ''}, key: "#"}
matrix:
  include:
    - {kind: a, pw: "$6$x$@1"}
    - {kind: b, pw: "$6$x$@2"}
stages:
  - type: apt
    packages: [linux-image-amd64, systemd-sysv]
  - include: users.yml
    with: {hash: "${pw}"}
  - type: qemu
"""
USERS = """\
variables: {hash: {type: string}}
stages:
  - {type: users, users: [{name: a, password-hash: "${hash}"}]}
"""
# A child that shows its command line, its environment and its input.
CHILD = """\
import json, os, sys
given = json.load(sys.stdin)
seen = [open("/proc/self/cmdline").read(), open("/proc/self/environ").read()]
print(json.dumps({"error": "failed", "tail": [*seen, *sorted(given)]}), file=sys.stderr)
open(sys.argv[1], "a").write(json.dumps(given) + chr(10))
sys.exit(3)
"""


@pytest.fixture
def several(tmp_path):
    """A recipe for two images with a confidential value each, and these values."""
    canaries = [canary_word() for _ in range(2)]
    (tmp_path / "users.yml").write_text(USERS)
    path = tmp_path / "recipe.yml"
    path.write_text(SEVERAL.replace("@1", canaries[0]).replace("@2", canaries[1]))
    return path, canaries


@pytest.mark.parametrize("style", [("--json",), ("--progress", "json"), ("-v",)])
def test_no_build_of_several_shows_a_confidential_value(several, tmp_path, monkeypatch, style):
    """Not even the command lines of their processes, which all users of the machine can see."""
    path, canaries = several
    given = tmp_path / "given"
    command = Order.command

    def played(self, *more):
        return [sys.executable, "-c", CHILD, str(given), *command(self, *more)]

    monkeypatch.setattr(Order, "command", played)
    out = tmp_path / "out"
    files = ["--junit", str(tmp_path / "junit.xml"), "--summary", str(tmp_path / "summary.md")]
    done = CliRunner().invoke(cli, ["build", str(path), "-o", str(out), *files, *style])
    assert done.exit_code == 3, done.output
    assert sorted(canary in given.read_text() for canary in canaries) == [True, True]
    given.unlink()
    written = [each.read_text() for each in tmp_path.rglob("*") if each.is_file() and each != path]
    text = "\n".join([done.output, *written])
    assert "x-b" in text
    for canary in canaries:
        assert canary not in text
    page = (out / "particle-os.report.html").read_text()
    assert "kind=b, pw=(confidential)" in page


@pytest.mark.parametrize("words", [
    ("inspect",), ("inspect", "--resolved"), ("shell",), ("inspect", "--set", "kind=z"),
    ("build", "--dry-run"), ("build", "--dry-run", "--json"), ("validate",),
    ("inspect", "--set", "pw=@"), ("build", "--set", "kind=a", "--set", "pw=@"),
])  # fmt: skip
@pytest.mark.parametrize("twice", [True, False])
def test_no_command_shows_a_confidential_value_of_a_matrix(several, words, twice):
    path, canaries = several
    if twice:
        row = f"  pw: ['$6$x${canaries[0]}', '$6$x${canaries[0]}']\n"
        path.write_text(path.read_text().replace("matrix:\n", f"matrix:\n{row}"))
    canaries.append(canary_word())
    command, *options = [word.replace("@", canaries[-1]) for word in words]
    done = CliRunner().invoke(cli, [command, str(path), *options])
    assert done.exit_code == 2 or not twice, done.output
    assert done.output
    for canary in canaries:
        assert canary not in done.output
