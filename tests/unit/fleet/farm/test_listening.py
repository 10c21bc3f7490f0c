"""A farm on loopback cannot be reached from elsewhere: no process of it listens anywhere else."""

import ipaddress
import os
import socket
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from ....played_farm import events, marked, played_farm, start_client
from ....waiting import until
from ...report.pages import result, verdict

LISTENS = "0A"


def address(text):
    """The address in a line of /proc/net/tcp or tcp6: words of 32 bits in the host's order."""
    words = [bytes.fromhex(text[at : at + 8]) for at in range(0, len(text), 8)]
    return ipaddress.ip_address(
        b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
    )


def sockets(pid):
    """The numbers of the sockets of a process."""
    found = set()
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            found.add(os.readlink(each))
    return {name[len("socket:[") : -1] for name in found if name.startswith("socket:[")}


def listening(pids):
    """The addresses at which the processes listen, with their names."""
    lines = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    places = {w[9]: address(w[1].partition(":")[0]) for w in lines if w[3] == LISTENS}
    return {
        (str(places[number]), name)
        for pid, name in pids.items()
        for number in sockets(pid) & places.keys()
    }


@pytest.fixture
def place(tmp_path):
    (tmp_path / "result.json").write_text(result("x", [verdict("x", "passed")]).model_dump_json())
    return tmp_path


@contextmanager
def building(farm, **more):
    """A client whose build runs; yields where the processes of the farm listen."""
    client = start_client(farm, "hangs", **more)
    try:
        until(lambda: events(farm.place))
        yield listening(marked(farm.mark))
    finally:
        client.kill()
        client.communicate()


@pytest.mark.parametrize("url", ["tcp://127.0.0.1:0", "tls://127.0.0.1:0", "tcp://127.0.0.9:0"])
@pytest.mark.slow
def test_a_farm_on_loopback_listens_nowhere_else(place, url):
    with played_farm(place, 1, url) as farm, building(farm) as found:
        members = {kind for _, name in found for kind in ("scheduler", "worker") if kind in name}
        assert members == {"scheduler", "worker"}
        assert all(ipaddress.ip_address(where).is_loopback for where, _ in found), found


@pytest.mark.slow
def test_a_farm_of_its_own_listens_on_loopback(place):
    with played_farm(place, 0) as farm, building(farm, on="local:1") as found:
        assert {where for where, _ in found} == {"127.0.0.1"}


def test_what_listens_everywhere_is_found():
    """A positive control."""
    with socket.create_server(("", 0)), socket.create_server(("::1", 0), family=socket.AF_INET6):
        assert listening({os.getpid(): "test"}) >= {("0.0.0.0", "test"), ("::1", "test")}
