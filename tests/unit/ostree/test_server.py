"""A repository for this machine alone."""

import http.client
import io
import socket
import tarfile
import threading

import pytest
from particle_os.ostree import server
from particle_os.ostree.files import opened
from particle_os.ostree.server import RepositoryServer

from ...waiting import HANG_SECONDS
from .sample import NEW, archive


@pytest.fixture(params=["archive", "directory"])
def served(request, tmp_path):
    """The server of a repository, which runs until the test ends."""
    place = tmp_path / "edge"
    if request.param == "archive":
        place.write_bytes(archive())
    else:
        with tarfile.open(fileobj=io.BytesIO(archive())) as tar:
            tar.extractall(place, filter="data")
    (tmp_path / "secret").write_text("secret")
    with opened(place) as files, RepositoryServer(files, 0) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def ask(served, path, method="GET"):
    connection = http.client.HTTPConnection(*served.server_address, timeout=60)
    connection.request(method, path)
    answer = connection.getresponse()
    return answer.status, answer.read(), dict(answer.getheaders())


def test_the_files_of_the_repository_are_served(served):
    status, data, headers = ask(served, "/refs/heads/debian/edge")
    assert (status, data) == (200, f"{NEW}\n".encode())
    assert headers["Content-Length"] == "65"
    commit = ask(served, f"/objects/{NEW[:2]}/{NEW[2:]}.commit?x=1")[1]
    assert b"particle-os.stateroot" in commit
    assert ask(served, "/summary", "HEAD")[:2] == (200, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/", "/objects", "/../secret", "/%2e%2e/secret", "/objects/..%2f..%2fsecret",
        "//etc/passwd", "/objects/%00", "/refs/heads/%0d%0aX:%201", "/x" * 2000,
    ],
)  # fmt: skip
def test_nothing_else_is_served(served, path):
    status, data, headers = ask(served, path)
    assert status == 404
    assert b"secret" not in data.replace(path.encode(), b"")
    assert "X" not in headers


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
def test_nothing_can_be_changed(served, method):
    assert ask(served, "/config", method)[0] == 501


def test_it_listens_on_this_machine_alone(served):
    assert served.server_address[0] == "127.0.0.1"
    assert served.url == f"http://127.0.0.1:{served.server_address[1]}"


def test_a_silent_client_does_not_hold_up_others(served):
    with socket.create_connection(served.server_address):
        assert ask(served, "/config")[0] == 200


def test_more_clients_than_places_are_turned_away(served, monkeypatch):
    served._free = threading.Semaphore(0)
    with socket.create_connection(served.server_address, timeout=HANG_SECONDS) as client:
        assert client.recv(1) == b""


def test_a_client_has_a_limited_time():
    assert server._Handler.timeout == server.CLIENT_SECONDS
