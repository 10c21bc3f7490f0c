"""Debian's docker-registry behind a proxy that ends connections: a transfer is whole at last."""

import io
import os
import socket
import threading
from contextlib import contextmanager

import pytest
from particle_os.registry.repository import ImageRepository

from ...registry import debian_registry, sha256

DATA = os.urandom(3 << 20)
DIGEST = f"sha256:{sha256(DATA)}"
pytestmark = pytest.mark.slow


@contextmanager
def cutting(host, cuts):
    """A proxy before a server. `cuts` are the bytes after which it ends the next connections."""
    name, _, port = host.rpartition(":")
    seen = {"connections": 0, "up": 0, "down": 0}

    def pump(source, sink, way, left):
        try:
            while data := source.recv(1 << 16 if left is None else min(1 << 16, left)):
                sink.sendall(data)
                seen[way] += len(data)
                if left is not None and (left := left - len(data)) == 0:
                    break
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def serve():
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            seen["connections"] += 1
            server = socket.create_connection((name, int(port)))
            left = cuts.pop(0) if cuts else None
            for way, one, other in (("up", client, server), ("down", server, client)):
                threading.Thread(target=pump, args=(one, other, way, left), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}", seen
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def host(tmp_path):
    with debian_registry(tmp_path) as running:
        yield running


@pytest.mark.parametrize("cuts", [[1 << 20], [1 << 20, 2 << 20], [100, 1 << 20]])
def test_an_upload_is_whole_in_spite_of_cuts(host, cuts):
    with cutting(host, cuts) as (proxy, seen):
        ImageRepository(proxy, "team/server").upload(DIGEST, len(DATA), io.BytesIO(DATA))
    assert cuts == []
    assert seen["connections"] > 1
    assert ImageRepository(host, "team/server").blob(DIGEST, len(DATA)) == DATA


def test_a_download_fetches_only_the_rest_after_a_cut(host):
    ImageRepository(host, "team/server").upload(DIGEST, len(DATA), io.BytesIO(DATA))
    cuts = [1 << 20, 1 << 20]
    with cutting(host, cuts) as (proxy, seen):
        assert ImageRepository(proxy, "team/server").blob(DIGEST, len(DATA)) == DATA
    assert cuts == []
    assert seen["down"] < len(DATA) + (1 << 17), "headers, and no byte of the blob twice"
