"""Reading files ahead of the last stage."""

import io
import os
import sys

from particle_agent.agent import scratch

from ...waiting import HANG_SECONDS


def test_reading_ahead_reads_files_only(tmp_path, monkeypatch):
    names = {"file", "a space", "a\nline", "-n", "directory/file"}
    tree = tmp_path / "tree"
    (tree / "directory").mkdir(parents=True)
    for name in names:
        (tree / name).write_text("x")
    (tree / "link").symlink_to("directory/file")
    (tree / "elsewhere").symlink_to("/")
    os.mkfifo(tree / "pipe")
    programs, read = tmp_path / "programs", tmp_path / "read"
    programs.mkdir()
    (programs / "python3").write_text(f"#!/bin/sh\ncat >{read}\n")
    (programs / "python3").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    scratch.read_ahead(tree).wait(HANG_SECONDS)
    found = read.read_text().split("\0")[:-1]
    assert sorted(found) == sorted(f"{tree}/{name}" for name in names)


def test_what_is_gone_does_not_end_reading_ahead(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("file")
    paths = [tmp_path / "gone", tmp_path / "link", tmp_path / "file"]
    standard_input = io.BytesIO(b"".join(os.fsencode(path) + b"\0" for path in paths))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(standard_input))
    read = []
    monkeypatch.setattr(
        os, "posix_fadvise", lambda file, *_: read.append(os.readlink(f"/proc/self/fd/{file}"))
    )
    exec(scratch.WILL_NEED)
    assert read == [str(tmp_path / "file")]
