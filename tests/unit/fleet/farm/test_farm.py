"""Builds on a farm of real processes on loopback, under faults; a script plays the builds."""

import json
import os
import shutil
import signal
import subprocess
from collections import Counter
from contextlib import contextmanager, suppress
from queue import SimpleQueue

import pytest
from particle_os.errors import InfrastructureError
from particle_os.fleet.farm import key_making, slots
from particle_os.fleet.farm.client import connection
from particle_os.fleet.farm.client.connection import FarmLost

from ....played_farm import (
    events,
    marked,
    played_farm,
    start_client,
    statuses,
)
from ....waiting import until
from ...report.pages import result, verdict

pytestmark = pytest.mark.slow
MEMBERS = {"member.scheduler", "member.worker", "member.keeper"}
# The end of a client stops QEMU within 5 s: a build that ignores SIGTERM has 4 s, and the rest is
# the way to it (test_keeper.py). So many looks at all processes take three times as long on an idle
# machine, and longer on a busy one. Any other limit in the code would take 30 s or more.
SOON = 500


@pytest.fixture
def place(tmp_path):
    (tmp_path / "result.json").write_text(result("x", [verdict("x", "passed")]).model_dump_json())
    (tmp_path / "hold").write_text("")
    return tmp_path


@pytest.fixture
def farm(place):
    with played_farm(place) as found:
        yield found


def begun(place, count=1):
    """Waits until so many builds have begun."""
    until(lambda: sum(what == "began" for what, _, _ in events(place)) >= count)


def release(place):
    (place / "hold").unlink()


def whole(place, *names):
    return all((place / f"image-{name}").read_text() == name for name in names)


def builds_and_machines(farm):
    """The processes of builds: played ones, their children and their keepers."""
    parts = ("played", "sleep 1000", "keeper", "sys.argv[1:3]")
    return {p: w for p, w in marked(farm.mark).items() if any(part in w for part in parts)}


def test_each_image_is_built_once_on_all_workers(place, farm):
    names = [f"a{number}" for number in range(6)]
    client = start_client(farm, *names, "bad-3", "worse-2")
    found = statuses(client)
    assert found == dict.fromkeys(names, "passed") | {"bad-3": "failed", "worse-2": "invalid"}
    began = Counter(name for what, name, _ in events(place) if what == "began")
    assert set(began.values()) == {1}
    shown = [json.loads(line) for line in (place / "client.log").read_text().splitlines()]
    stages = [each["image"] for each in shown if each.get("phase") == "stages"]
    assert sorted(stages) == sorted([*names, "bad-3", "worse-2"]), "the events of all builds arrive"
    assert whole(place, *names)


def test_a_farm_of_its_own_ends_with_the_command(place, farm):
    until(lambda: len(farm.dask_workers()) == 2)
    others = {*marked(farm.mark)}
    client = start_client(farm, "a-held", "b-held", on="local:2")
    begun(place, 2)
    own = marked(farm.mark).keys() - others
    members = {kind for pid in own for kind in MEMBERS if kind in marked(farm.mark).get(pid, "")}
    assert members == MEMBERS
    release(place)
    assert statuses(client) == {"a-held": "passed", "b-held": "passed"}
    until(lambda: not own & marked(farm.mark).keys())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_however_a_client_with_a_farm_of_its_own_ends_nothing_is_left(place, number):
    with played_farm(place, workers=0) as farm:
        farm.scheduler.kill()
        farm.scheduler.wait()
        client = start_client(farm, "hangs", "hangs-too", on="local:2")
        begun(place, 2)
        client.send_signal(number)
        assert until(lambda: not marked(farm.mark), SOON)
        client.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_builds_of_a_client_that_ends_end(place, farm, number):
    client = start_client(farm, "hangs", "hangs-deaf")
    begun(place, 2)
    client.send_signal(number)
    assert until(lambda: not builds_and_machines(farm), SOON)
    client.communicate()


@pytest.mark.parametrize("victim", ["worker", "nanny"])
def test_the_builds_of_a_dead_worker_begin_again(place, farm, victim):
    client = start_client(farm, "a-held", "b-held")
    begun(place, 2)
    pid = farm.dask_workers()[0] if victim == "worker" else farm.workers[0].pid
    os.kill(pid, signal.SIGKILL)
    if victim == "nanny":
        farm.workers[0].wait()
    release_when(place, 3)
    assert statuses(client) == {"a-held": "passed", "b-held": "passed"}
    assert whole(place, "a-held", "b-held")
    until(lambda: not builds_and_machines(farm))


def release_when(place, count):
    """With one worker less, the second attempt of a build can wait for the end of the other."""
    (place / "hold").unlink()
    begun(place, count)


def test_a_worker_that_hangs_is_given_up(place, farm):
    client = start_client(farm, "a-held", "b-held")
    begun(place, 2)
    hung = farm.dask_workers()[0]
    os.kill(hung, signal.SIGSTOP)
    release(place)
    assert statuses(client) == {"a-held": "passed", "b-held": "passed"}
    with suppress(ProcessLookupError):
        # Its nanny may have ended it.
        os.kill(hung, signal.SIGCONT)
    until(lambda: not builds_and_machines(farm))


@contextmanager
def network_namespace():
    """A network of its own, 10.203.77.2, beside 10.203.77.1 of this host; yields the names."""
    name = f"farm-{os.getpid()}"
    link = f"f{os.getpid()}"

    def ip(*words):
        subprocess.run(["ip", *words], check=True, capture_output=True)

    ip("netns", "add", name)
    try:
        ip("link", "add", link, "type", "veth", "peer", "name", "up0", "netns", name)
        ip("address", "add", "10.203.77.1/30", "dev", link)
        ip("link", "set", link, "up")
        ip("-n", name, "address", "add", "10.203.77.2/30", "dev", "up0")
        for device in ("up0", "lo"):
            ip("-n", name, "link", "set", device, "up")
        yield name, lambda: ip("link", "set", link, "down")
    finally:
        subprocess.run(["ip", "link", "delete", link], check=False, capture_output=True)
        ip("netns", "delete", name)


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ip"), reason="needs root and iproute2")
def test_the_builds_of_a_worker_that_is_cut_off_begin_again(place):
    with network_namespace() as (name, cut), played_farm(place, 0, "tls://10.203.77.1:0") as farm:
        farm.within = ("ip", "netns", "exec", name)
        farm.start_worker()
        client = start_client(farm, "a-held", "b-held")
        begun(place)
        farm.within = ()
        farm.start_worker()
        begun(place, 2)
        cut()
        release(place)
        assert statuses(client) == {"a-held": "passed", "b-held": "passed"}
        assert "its worker was lost" in (place / "client.log").read_text()


def test_a_new_scheduler_gets_the_builds_of_a_dead_one(place, farm):
    client = start_client(farm, "a-held", "b-held", "c")
    begun(place, 2)
    farm.scheduler.kill()
    farm.scheduler.wait()
    until(lambda: not builds_and_machines(farm))
    farm.start_scheduler()
    release(place)
    assert statuses(client) == dict.fromkeys(("a-held", "b-held", "c"), "passed")
    assert whole(place, "a-held", "b-held", "c")


def test_a_scheduler_that_hangs_is_given_up(farm, monkeypatch):
    """It takes connections, and says nothing."""
    monkeypatch.setattr(connection, "ANSWER_SECONDS", 2.0)
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 2.0)
    monkeypatch.setattr(connection, "CLOSE_SECONDS", 1.0)
    with connection.connected(farm.url, farm.keys, SimpleQueue()) as link:
        assert until(link.workers)
        farm.scheduler.send_signal(signal.SIGSTOP)
        with pytest.raises(FarmLost):
            link.workers()
    with pytest.raises(InfrastructureError, match="does not answer"):
        connection.FarmConnection(farm.url, farm.keys, SimpleQueue())


def test_a_worker_of_another_version_gets_no_build(place):
    with played_farm(place, workers=0) as farm:
        other = {**slots.resources(1, kvm=False), "particle-os-9.9": 1.0}
        del other[slots.version()]
        farm.start_worker(resources=other)
        client = start_client(farm, "a")
        until(lambda: "particle-os-9.9, not" in (place / "client.log").read_text())
        assert events(place) == []
        farm.start_worker()
        assert statuses(client) == {"a": "passed"}


def test_a_worker_with_a_full_disk_gets_no_build(place):
    with played_farm(place, workers=0) as farm:
        # No disk has so much room.
        farm.start_worker(room=1 << 62, room_seconds=0.1)
        with connection.connected(farm.url, farm.keys, SimpleQueue()) as link:
            until(lambda: [has[slots.SLOT] for has in link.workers().values()] == [0])
        client = start_client(farm, "a")
        until(lambda: "its disk is full" in (place / "client.log").read_text())
        assert events(place) == []
        farm.start_worker()
        assert statuses(client) == {"a": "passed"}


# Python runs this module when it starts: the clock of the process is ten years ahead.
WRONG_CLOCK = """\
import time as clock
now = clock.time
clock.time = lambda: now() + 10 * 365 * 86400
"""


def test_a_wrong_clock_of_a_worker_changes_nothing(place, tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(WRONG_CLOCK)
    with played_farm(place, workers=0) as farm:
        farm.more = {"PYTHONPATH": str(tmp_path / "site")}
        farm.start_worker()
        farm.more = {}
        assert statuses(start_client(farm, "a", "b-3")) == {"a": "passed", "b-3": "failed"}


def test_two_clients_share_the_workers(place, farm):
    clients = [start_client(farm, *names) for names in (("a", "b"), ("c", "d"))]
    assert [statuses(client) for client in clients] == [
        {"a": "passed", "b": "passed"}, {"c": "passed", "d": "passed"},
    ]  # fmt: skip


def test_a_client_without_the_keys_is_refused(place, farm, tmp_path):
    other = key_making.make(tmp_path / "other")
    farm.keys, own = other, farm.keys
    found = statuses(start_client(farm, "a"))
    farm.keys = own
    assert "does not answer" in found["error"]
    assert events(place) == []
