import errno
import hashlib
import http.server
import os
import tempfile
import threading

import pytest
from particle_agent.contract.values import Download, downloads
from particle_agent.stages.contents.files import File, Files
from particle_agent.stages.software.apt import Apt
from particle_os.apt import download, transfer
from particle_os.errors import InfrastructureError, NotEnoughSpace
from particle_os.system import workspace

from ...waiting import plenty

DATA = b"data" * 1000
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def server():
    """A web server; `asked` has the paths that it was asked for."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            if self.path == "/moved":
                self.send_response(302)
                self.send_header("Location", "/file")
                self.end_headers()
                return
            self.send_response(200 if self.path == "/file" else 404)
            self.send_header("Content-Length", str(len(DATA)))
            self.end_headers()
            self.wfile.write(DATA)

        def log_message(self, *arguments):
            pass

    asked = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        listening.asked = asked
        threading.Thread(target=listening.serve_forever, args=(0.02,), daemon=True).start()
        yield listening
        listening.shutdown()


@pytest.fixture
def fetch(tmp_path, server, monkeypatch):
    (tmp_path / "work").mkdir()
    # All files of a download are in the directory of the build.
    monkeypatch.setattr(tempfile, "tempdir", "/nonexistent")

    def fetched(path="/file", sha256=SHA256, limit=1 << 20, proxies=None):
        return download.fetch(
            Download(url=f"http://127.0.0.1:{server.server_port}{path}", sha256=sha256),
            cache=tmp_path,
            work=tmp_path / "work",
            limit=limit,
            proxies={} if proxies is None else proxies,
            deadline=plenty(),
            log=fetched.lines.append,
            note=fetched.notes.append,
        )

    fetched.notes, fetched.lines = [], []
    return fetched


def test_apt_says_how_large_the_file_is(fetch):
    fetch()
    assert [size for line in fetch.lines if (size := transfer.begun(line))] == [len(DATA)]


def test_a_file_is_fetched_once_and_again_when_it_is_damaged(server, fetch, tmp_path):
    path = fetch()
    assert path.read_bytes() == DATA
    assert fetch() == path
    assert server.asked == ["/file"]
    path.write_bytes(b"other")
    assert fetch().read_bytes() == DATA
    assert server.asked == ["/file"] * 2
    (note,) = fetch.notes
    assert note.endswith("/file was damaged in the cache; it is fetched again")
    assert list((tmp_path / "work").iterdir()) == []


def test_a_directory_that_cannot_be_removed_does_not_lose_the_file(fetch, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "rmdir", refuse)
    assert fetch().read_bytes() == DATA


def test_a_redirection_is_followed(server, fetch):
    assert fetch("/moved").read_bytes() == DATA
    assert server.asked == ["/moved", "/file"]


@pytest.mark.parametrize(
    ("path", "sha256", "message"),
    [("/file", "0" * 64, "is another file"), ("/missing", SHA256, "cannot be fetched: 404")],
)
def test_another_file_is_refused_and_not_kept(fetch, tmp_path, path, sha256, message):
    with pytest.raises(InfrastructureError, match=message) as raised:
        fetch(path, sha256)
    assert raised.value.hint
    assert [p for p in (tmp_path / "downloads").iterdir() if p.suffix != ".lock"] == []
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.slow
def test_a_server_that_is_away_and_a_missing_program_are_told(fetch, server, monkeypatch):
    monkeypatch.setattr(server, "server_port", 9)
    with pytest.raises(InfrastructureError, match="cannot be fetched: Could not connect"):
        fetch()
    monkeypatch.setattr(download, "HELPER", download.HELPER.with_name("missing"))
    with pytest.raises(InfrastructureError, match="the host has no") as raised:
        fetch()
    assert "apt" in raised.value.hint


def test_old_downloads_are_removed(fetch, tmp_path):
    """Also what is no file, and a file that another process removes at the same time."""
    downloads = tmp_path / "downloads"
    (downloads / "directory" / "inner").mkdir(parents=True)
    for name in ("1" * 64, f"{'1' * 64}.lock", "young"):
        (downloads / name).write_text("")
    (downloads / "gone").symlink_to("nowhere")
    for name in ("1" * 64, f"{'1' * 64}.lock", "directory", "gone"):
        os.utime(downloads / name, (0, 0), follow_symlinks=False)
    fetch()
    assert {p.name for p in downloads.iterdir()} == {SHA256, f"{SHA256}.lock", "young"}


def test_a_lock_in_use_is_never_old(fetch, tmp_path):
    fetch().unlink()
    os.utime(tmp_path / "downloads" / f"{SHA256}.lock", (0, 0))
    fetch()
    assert (tmp_path / "downloads" / f"{SHA256}.lock").exists()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("nowhere")])
def test_what_is_no_file_in_its_place_is_replaced(fetch, tmp_path, make):
    (tmp_path / "downloads").mkdir()
    make(tmp_path / "downloads" / SHA256)
    assert fetch().read_bytes() == DATA


def test_a_file_is_fetched_up_to_a_limit(fetch, tmp_path):
    assert fetch(limit=len(DATA)).read_bytes() == DATA
    fetch().unlink()
    with pytest.raises(InfrastructureError, match="/file is larger than 3999 bytes") as raised:
        fetch(limit=len(DATA) - 1)
    assert "--memory" in raised.value.hint
    assert list((tmp_path / "work").iterdir()) == []


def test_a_download_leaves_the_disk_its_reserve(fetch, monkeypatch):
    monkeypatch.setattr(download, "free_bytes", lambda path: download.RESERVE_BYTES + 100)
    monkeypatch.setattr(workspace, "free_bytes", lambda path: download.RESERVE_BYTES + 99)
    with pytest.raises(NotEnoughSpace, match=r"are needed for .*/file"):
        fetch()
    monkeypatch.setattr(workspace, "free_bytes", lambda path: 0)
    with pytest.raises(NotEnoughSpace, match="are needed for a download"):
        fetch()


def test_the_downloads_of_a_stage_are_found_wherever_they_are():
    one, other = (Download(url="http://example.org/x", sha256=digit * 64) for digit in "12")
    stages = (Files(files=(File(path="/a", content=""), File(path="/b", download=one))),
              Apt(downloads=(other,)))  # fmt: skip
    assert list(downloads(stages)) == [one, other]
