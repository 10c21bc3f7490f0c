"""Parcels bring small files with their modes, and write nowhere else."""

import base64
import json
import os
import zlib

import pytest
from particle_os.fleet.farm import parcel
from particle_os.fleet.farm.parcel import TooLarge, Unreadable


def packed(*entries):
    return base64.b64encode(zlib.compress(json.dumps(entries).encode())).decode()


def content(text):
    return base64.b64encode(text).decode()


def test_files_directories_links_and_modes_arrive(tmp_path):
    top, there = tmp_path / "a", tmp_path / "b"
    (top / "d/empty").mkdir(parents=True)
    (top / "d/file").write_bytes(bytes(range(256)))
    (top / "d/file").chmod(0o4751)
    (top / "d/link").symlink_to("../nowhere")
    (top / "d").chmod(0o500)
    there.mkdir()
    names = ["d", "d/empty", "d/file", "d/link"]
    parcel.unpack(parcel.pack([(name, top / name) for name in names]), there)
    assert sorted(str(path.relative_to(there)) for path in there.rglob("*")) == names
    assert (there / "d/file").read_bytes() == bytes(range(256))
    assert (there / "d/file").stat().st_mode & 0o7777 == 0o4751
    assert (there / "d").stat().st_mode & 0o7777 == 0o500
    assert os.readlink(there / "d/link") == "../nowhere"


@pytest.mark.parametrize(
    ("given", "made"),
    [(0o6777, 0o755), (0o4644, 0o644), (0o666, 0o644), (0o700, 0o755), (0, 0o644)],
)
def test_a_plain_parcel_gives_no_rights_beyond_the_usual_ones(tmp_path, given, made):
    parcel.unpack(
        packed(
            {"name": "d", "directory": True, "mode": given},
            {"name": "d/file", "mode": given, "content": content(b"#!/bin/sh\n")},
        ),
        tmp_path,
        plain=True,
    )
    assert (tmp_path / "d").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "d/file").stat().st_mode & 0o7777 == made


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "", ".", "a\0b"])
def test_no_name_leads_outside(tmp_path, name):
    (tmp_path / "in").mkdir()
    with pytest.raises(Unreadable):
        parcel.unpack(packed({"name": name, "mode": 0o600, "content": ""}), tmp_path / "in")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_nothing_is_written_through_a_link_of_the_parcel(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    text = packed(
        {"name": "x", "link": "../out"}, {"name": "x/y", "mode": 0o600, "content": content(b"z")}
    )
    with pytest.raises(OSError):
        parcel.unpack(text, tmp_path / "in")
    assert list((tmp_path / "out").iterdir()) == []


def test_results_have_no_links(tmp_path):
    with pytest.raises(Unreadable, match="link"):
        parcel.unpack(packed({"name": "x", "link": "/etc/passwd"}), tmp_path, plain=True)


@pytest.mark.parametrize(
    "text",
    ["", "%", base64.b64encode(b"x").decode(), base64.b64encode(zlib.compress(b"{")).decode(),
     packed(1), packed({}), packed({"name": "x"}), packed({"name": 1, "content": ""}),
     packed({"name": "x", "content": "%", "mode": 1}), packed({"name": "x", "content": ""}),
     packed({"name": "x", "content": 1, "mode": 1}),
     packed({"name": "x", "mode": "1", "content": ""})],
)  # fmt: skip
def test_a_damaged_parcel_is_an_error_and_writes_nothing(tmp_path, text):
    with pytest.raises(Unreadable):
        parcel.unpack(text, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_parcel_that_grows_without_end_is_refused(tmp_path):
    bomb = base64.b64encode(zlib.compress(b" " * (7 << 20))).decode()
    with pytest.raises(Unreadable):
        parcel.unpack(bomb, tmp_path, limit=1 << 20)


def test_too_much_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(TooLarge, match="large"):
        parcel.pack([("large", path)])
    (tmp_path / "half").write_bytes(bytes(700))
    with pytest.raises(TooLarge):
        parcel.pack([("a", tmp_path / "half"), ("b", tmp_path / "half")], limit=1400)
