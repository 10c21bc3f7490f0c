"""A random secret goes into played builds, and everything that comes out is searched for it."""

import base64
import html
import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from particle_os.system.gate import Gate

from .. import canary
from ..waiting import until
from .played_build import ENDS, STYLES, World, run, set_up

pytestmark = pytest.mark.slow


def folded(text, width, divider="\n"):
    return divider.join(text[i : i + width] for i in range(0, len(text), width))


def printed(secret):
    """The lines in which programs of a guest may print the secret."""
    value = secret.encode()
    yield f"the token is {secret}."
    yield from folded(secret, 12).split("\n")
    yield from folded(secret, 1).split("\n")
    for before in (b"", b"x", b"xy"):
        yield from folded(base64.b64encode(before + value).decode(), 20).split("\n")
    yield value.hex()
    yield value.hex(" ")
    yield value.hex(":").upper()
    yield quote(secret, safe="")
    yield json.dumps({"token": secret})
    yield html.escape(secret)
    yield secret.replace("'", "'\\''")
    yield f"::error::{secret} ##[error]{secret}"


def on_console(secret):
    """The bytes of a console to which a stage has written the secret."""
    lines = "\r\n".join(printed(secret))
    stamped = folded(secret, 10, "\r\n[   12.345678] ")
    return f"{lines}\r\n[   12.345678] {stamped}\r\nKernel panic: {secret}\r\n".encode()


@pytest.fixture
def world(tmp_path, monkeypatch):
    secret = canary.new_secret()
    world = World(
        tmp_path, secret, list(printed(secret)), on_console(secret), detail=folded(secret, 5)
    )
    set_up(world, monkeypatch)
    monkeypatch.setenv("TOKEN", secret)
    return world


def found(world, result, cache):
    """The places where a run shows the secret."""
    for name, data in (("stdout", result.stdout_bytes), ("stderr", result.stderr_bytes)):
        yield from (f"{name}: {view}" for view in canary.traces(data, world.text))
    for place in (world.path, cache):
        yield from canary.in_files(place, world.text)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("ends", ENDS)
def test_no_output_of_a_build_shows_its_secret(world, own_cache, monkeypatch, ends, style):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    world.ends = ends
    result = run(world, *STYLES[style])
    assert result.exit_code == ENDS[ends], result.output
    assert "***" in result.output or (style == "debug" and ends == "good")
    assert list(found(world, result, own_cache)) == []


@pytest.mark.parametrize("ends", ENDS)
def test_the_canary_detects_a_gate_that_is_open(world, own_cache, monkeypatch, ends):
    monkeypatch.setattr(Gate, "learn", lambda gate, values: None)
    world.ends = ends
    places = "\n".join(found(world, run(world, "-v"), own_cache))
    wanted = ["stderr: plain", ".log: plain", ".console.log: plain", ".result.json: plain"]
    wanted += [".report.html: plain, from HTML"]
    if ends in ("good", "not booted"):
        wanted += ["journal.txt: plain", "bios/console.log: plain"]
    if ends not in ("good", "defective"):
        wanted += ["boot.xml: plain, from HTML", "summary.md: plain, from HTML"]
    for place in wanted:
        assert place in places


@pytest.mark.parametrize("width", [1, 5, 12])
def test_the_search_detects_each_form(width):
    secret = canary.new_secret()
    for text in printed(secret):
        if len(text) > 30:
            assert canary.traces(text.encode(), secret) != [], text
    for between in ("\n", "\r\n", "\n[   12.345678] ", "\n    12.34 ", '",\n    "', "\n  | "):
        assert canary.traces(folded(secret, width, between).encode(), secret)
    for before in range(3):
        encoded = base64.b64encode(b"x" * before + secret.encode() + b"y").decode()
        assert canary.traces(folded(encoded, 13 * width).encode(), secret)
    assert canary.traces(b"nothing", secret) == []


def test_the_search_detects_a_file_its_name_and_a_disk(tmp_path):
    secret = canary.new_secret().replace("/", "-")
    (tmp_path / "clean").write_text("clean")
    assert canary.in_files(tmp_path, secret) == []
    (tmp_path / f"a {secret}").touch()
    (tmp_path / "file").write_text(secret)
    with (tmp_path / "disk").open("wb") as disk:
        disk.truncate(canary.DECODED_BYTES + (3 << 20))
        disk.seek(canary.DECODED_BYTES + (1 << 20) - 5)
        disk.write(secret.encode())
    assert {place.rpartition(":")[0].rpartition("/")[2] for place in canary.in_files(
        tmp_path, secret
    )} == {f"a {secret}", "file", "disk"}  # fmt: skip


@pytest.mark.parametrize(
    ("more", "name"), [("[]", None), ("[os.environ['A']]", "cmdline"), ("[], None", "environ")]
)
def test_the_watch_detects_programs_that_show_what_their_parent_was_given(more, name):
    secret = canary.new_secret()
    code = (
        "import os, subprocess, sys\n"
        "def start(more, env={}):\n"
        "    subprocess.run([sys.executable, '-c', 'input()', *more], env=env)\n"
        f"start({more})"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env={"A": secret},
    ) as process:  # fmt: skip
        with canary.Watch(process.pid, secret) as watch:
            until(lambda: watch.programs)
        process.stdin.close()
    assert watch.programs == {Path(sys.executable).name}
    files = {Path(place.split(":")[0]).name for place in watch.found}
    assert files == ({name} if name else set())
