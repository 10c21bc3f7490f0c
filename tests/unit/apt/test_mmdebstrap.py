"""Tests how the host starts and awaits mmdebstrap; a script stands in for the program."""

import os
from pathlib import Path

import pytest
from particle_agent.contract import wire
from particle_os.apt import mmdebstrap
from particle_os.apt.proxy import NO_PROXY, ChosenProxy
from particle_os.errors import InfrastructureError, NotEnoughSpace

from ...waiting import plenty, until

MIRROR = "http://mirror.example.org/debian"
WANTED = mmdebstrap.Extraction("trixie", MIRROR, "amd64", ["?essential", "apt"])


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Makes the stand-in from a script, in which $D is a directory; returns the directory."""

    def make(script):
        programs = tmp_path / "bin"
        programs.mkdir()
        program = programs / "mmdebstrap"
        program.write_text(f'#!/bin/sh\nD={tmp_path}; echo "$*" >>$D/calls\n{script}')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        return tmp_path

    return make


def extracting(work, proxy=NO_PROXY, log=print):
    return mmdebstrap.extracting_packages(
        WANTED, work=work, log=log, deadline=plenty(), proxy=proxy
    )


def wait_for(path):
    until(path.exists)


def test_something_else_is_done_meanwhile(program):
    place = program("touch $D/began; while [ ! -e $D/go ]; do sleep 0.02; done; touch $D/ended")
    with extracting(place) as finish:
        wait_for(place / "began")
        assert not (place / "ended").exists()
        (place / "go").touch()
        finish()
        assert (place / "ended").exists()
    (call,) = (place / "calls").read_text().splitlines()
    assert call.endswith(f"trixie /dev/null {MIRROR}")
    assert "--include=?essential --include=apt" in call


def test_a_failure_is_reported_at_the_end_with_the_mirrors_name(program):
    place = program("echo \"Could not resolve 'mirror.example.org'\"; exit 25")
    with extracting(place) as finish:
        wait_for(place / "calls")
        with pytest.raises(InfrastructureError, match=r"mirror\.example\.org cannot be reached"):
            finish()


def test_nothing_is_left_when_the_other_fails(program):
    place = program('echo $$ >$D/pid.new; mv $D/pid.new $D/pid; touch "$TMPDIR/x"; sleep 60')
    with pytest.raises(RuntimeError), extracting(place):
        wait_for(place / "pid")
        raise RuntimeError("the VM does not start")
    assert not Path("/proc", (place / "pid").read_text().strip()).exists()
    assert sorted(p.name for p in place.iterdir()) == ["bin", "calls", "pid"]


def test_it_starts_again_when_the_proxy_goes_away(program):
    place = program('case "$*" in *Proxy*:9/*|*Proxy*:9\\"*) exit 25;; esac')
    notes = []
    found = wire.AptProxy(url="http://127.0.0.1:9", https="connect", caches=False)
    with extracting(place, ChosenProxy(found, note=notes.append)) as finish:
        finish()
    first, second = (place / "calls").read_text().splitlines()
    assert "127.0.0.1:9" in first
    assert "127.0.0.1:9" not in second
    assert notes == ["the apt proxy http://127.0.0.1:9 has gone away; apt goes on without it"]


def test_a_full_disk_is_not_the_fault_of_the_mirror(program):
    place = program(
        'echo "E: Failed to fetch http://mirror.example.org/x  Could not open file"\n'
        'echo "write (28: No space left on device)"; exit 1'
    )
    with (
        pytest.raises(NotEnoughSpace, match="no space left in") as caught,
        extracting(place) as end,
    ):
        end()
    assert "mirror" not in caught.value.brief


@pytest.mark.parametrize(
    "reason", ["Hash Sum mismatch", "404  Not Found [IP: 127.0.0.1 80]", "Undetermined Error"]
)
def test_a_mirror_that_serves_a_bad_file_is_not_unreachable(program, reason):
    place = program(f'echo "E: Failed to fetch http://mirror.example.org/x  {reason}"; exit 1')
    with pytest.raises(InfrastructureError, match="serves a bad file") as caught:
        with extracting(place) as end:
            end()
    assert "mirror.example.org" in caught.value.brief
    assert reason.split()[0] in caught.value.brief
