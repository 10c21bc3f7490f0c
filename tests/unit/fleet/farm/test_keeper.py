"""The keeper of a build passes on its events, and leaves nothing of a build without a worker."""

import json
import os
import signal
import socket
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from particle_os.fleet.build_process import Ended
from particle_os.fleet.farm import parcel
from particle_os.fleet.farm.assignment import Assignment
from particle_os.fleet.farm.member import keeper as keeper_
from particle_os.fleet.farm.member import task
from particle_os.fleet.farm.member.settings import WorkerSettings
from particle_os.fleet.farm.names import SETTINGS

from ....orphan import planted_orphan
from ....played_farm import MARK, command, events, marked
from ....waiting import HANG_SECONDS, until
from ...report.pages import result, verdict
from .test_returned import pair


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "result.json").write_text(result("x", [verdict("x", "passed")]).model_dump_json())
    monkeypatch.setenv(MARK, tmp_path.name)
    return tmp_path


def assignment(place, name, **more):
    """The options that the keeper adds are arguments that the script does not read."""
    return Assignment(name, "00", command=command(name, place), **more).encode()


def keep(place, name, is_wanted=lambda: True, **more):
    told = []
    answer = task.kept(assignment(place, name, **more), is_wanted, told.extend)
    return answer, told


def nothing_is_left(place):
    until(lambda: not marked(place.name))
    return True


def test_a_build_runs_to_its_end_and_its_events_arrive(place):
    answer, told = keep(place, "a")
    ended = Ended.of(answer)
    assert ended.code == 0 and json.loads(ended.output)["recipe"] == "x"
    assert told == [{"event": "phase-started", "phase": "stages"}]
    assert (place / "image-a").read_text() == "a"
    assert nothing_is_left(place)


@pytest.mark.slow
def test_lines_of_programs_arrive_if_they_are_wanted(place):
    _, told = keep(place, "a", lines=True)
    assert {"event": "line", "text": "a line of a program"} in told


@pytest.mark.slow
def test_the_error_of_a_build_arrives(place):
    answer, _ = keep(place, "a-3")
    assert Ended.of(answer).error["error"] == "it went wrong: 3"
    assert answer["code"] == 3


@pytest.mark.parametrize("name", ["hangs", pytest.param("hangs-deaf", marks=pytest.mark.slow)])
def test_a_build_that_is_not_wanted_ends(place, name):
    answer, _ = keep(place, name, lambda: not events(place))
    assert answer["code"] is None
    assert nothing_is_left(place)
    assert not (place / f"image-{name}").exists()


class Played:
    """A build that ignores SIGTERM, and the selector of its watch, with a played clock."""

    pipes = ("output", "error")

    def __init__(self, clock):
        self.clock, self.ready, self.killed = clock, [keeper_.INPUT], None

    def __enter__(self):
        return self

    def __exit__(self, *details):
        pass

    def register(self, file, events):
        pass

    def unregister(self, file):
        self.ready.remove(file)

    def select(self, seconds):
        if not self.ready:
            self.clock.sleep(seconds)
        return [(SimpleNamespace(fileobj=file), 1) for file in self.ready]

    def cancel(self):
        pass

    def kill(self):
        self.killed = self.clock.now
        self.ready += self.pipes

    def read(self, pipe):
        return None

    def finish(self, limit):
        return None


def test_a_build_that_ignores_the_signal_is_killed_within_5_seconds(monkeypatch, clock):
    """Its virtual machine ends with it: the kernel sees to that."""
    with Path(os.devnull).open("rb") as ended:
        monkeypatch.setattr(keeper_, "INPUT", ended.fileno())
        build = Played(clock)
        began = clock.now
        monkeypatch.setattr(keeper_.selectors, "DefaultSelector", lambda: build)
        keeper_._Watch(build, lines=False).run()
    # The worker looks so often whether the build is still wanted.
    assert build.killed - began + task.TICK_SECONDS <= 5.0


@pytest.fixture
def keeper(place):
    """A keeper of a build that hangs, whose end of the pipe is in the test."""
    process = subprocess.Popen(task.KEEPER, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdin.write(assignment(place, "hangs"))
    process.stdin.flush()
    until(lambda: events(place))
    yield process
    process.stdin.close()
    process.stdout.close()
    process.kill()
    process.wait()


def test_the_end_of_its_input_ends_the_build(place, keeper):
    """The kernel closes the pipe of a worker that is killed."""
    keeper.stdin.close()
    keeper.wait()
    assert nothing_is_left(place)


def test_a_keeper_that_waits_for_a_shared_cache_ends_with_its_input(place, monkeypatch):
    """The registry takes the connection, and never answers."""
    secret, _ = pair(place, "results")
    with socket.create_server(("127.0.0.1", 0)) as registry:
        url = f"oci://127.0.0.1:{registry.getsockname()[1]}/a/b"
        settings = WorkerSettings(cache_to=url, cache_sign=str(secret))
        monkeypatch.setenv(SETTINGS, settings.encode())
        process = subprocess.Popen(task.KEEPER, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        given = Assignment("x", "ab" * 32, parcel=parcel.pack([]), recipe="r.yml")
        process.stdin.write(given.encode())
        process.stdin.flush()
        asked, _ = registry.accept()
        with asked:
            process.stdin.close()
            assert process.wait(HANG_SECONDS) == 128 + signal.SIGTERM
        process.stdout.close()


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGKILL]
)
def test_the_end_of_the_keeper_ends_the_build(place, keeper, number):
    keeper.send_signal(number)
    keeper.wait()
    assert nothing_is_left(place)


def test_a_planted_orphan_is_found(place):
    """A positive control of `marked`: the orphan is in a session of its own, under process 1."""
    pid = planted_orphan()
    assert set(marked(place.name)) == {pid}
    os.kill(pid, signal.SIGKILL)
    assert nothing_is_left(place)


@pytest.mark.slow
def test_an_assignment_of_another_version_is_an_answer(place):
    told = []
    line = b'{"name": "a", "key": "0", "unknown": 1}\n'
    answer = task.kept(line, lambda: True, told.extend)
    assert answer["code"] is None or answer["error"]


def test_many_lines_are_left_out_but_no_step(place):
    many = [{"event": "line", "text": str(n)} for n in range(task.EVENTS_LIMIT)]
    told = []
    link = task._KeeperPipes(subprocess.Popen(["true"], stdin=-1, stdout=-1), told.append)
    link._events = [*many, {"event": "stage-started"}]
    link._send()
    assert told == [[{"event": "stage-started"}]]
