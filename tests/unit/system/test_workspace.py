import errno
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from particle_os.errors import DeadlineExceeded, Interrupted, ParticleError, UsageError
from particle_os.system import interrupt
from particle_os.system import workspace as workspace_module
from particle_os.system.workspace import allocated_bytes, cache_directory, locked, workspace
from particle_os.system.workspace import own_cache as own_cache_of

from ... import faults
from ...waiting import until

OTHER = """
import sys, time
from pathlib import Path
from particle_os.system.workspace import workspace
with workspace() as work:
    adopted = work.adopt_directory(Path(sys.argv[1]))
    (work.path / "scratch").write_text("x")
    (adopted / "image").write_text("x")
    print(work.path, flush=True)
    print(adopted, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """Another process with a workspace: the process, its workspace, its adopted directory."""
    output = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-c", OTHER, str(output)], stdout=subprocess.PIPE, text=True
    )
    yield process, Path(process.stdout.readline().strip()), Path(process.stdout.readline().strip())
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_cache_is_private(own_cache):
    assert cache_directory() == own_cache
    assert own_cache.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("before", ["/var/cache/mine", None])
def test_a_cache_of_its_own_ends_with_the_context(tmp_path, monkeypatch, before):
    if before is None:
        monkeypatch.delenv("XDG_CACHE_HOME")
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", before)
    with pytest.raises(KeyError), own_cache_of(tmp_path / "own"):
        assert cache_directory() == tmp_path / "own/particle-os"
        raise KeyError
    assert os.environ.get("XDG_CACHE_HOME") == before


def test_a_workspace_and_what_it_adopted_go_away(tmp_path):
    with workspace() as work:
        adopted = work.adopt_directory(tmp_path / "new/out")
        (adopted / "image").write_text("x")
        assert adopted.parent == tmp_path / "new/out"
        assert work.path.stat().st_mode & 0o077 == 0
    assert not work.path.exists()
    assert os.listdir(tmp_path / "new/out") == []


def test_an_error_does_not_leave_it_behind(tmp_path):
    with pytest.raises(ValueError), workspace() as work:
        adopted = work.adopt_directory(tmp_path)
        raise ValueError
    assert not work.path.exists()
    assert not adopted.exists()


def test_what_a_killed_process_left_is_swept_at_the_next_start(other):
    process, path, adopted = other
    process.kill()
    process.wait()
    assert path.exists()
    with workspace():
        assert not path.exists()
        assert not adopted.exists()


def work_with(output):
    """Opens a workspace, fills it and its adopted directory, and leaves it."""
    with workspace() as work:
        adopted = work.adopt_directory(output)
        (work.path / "scratch").write_text("x")
        (adopted / "image").write_text("x")


@pytest.mark.slow
@pytest.mark.parametrize("fault", faults.FAULTS)
def test_a_fault_at_any_call_leaves_no_file(own_cache, tmp_path, fault):
    """After a kill, the next start removes the files."""
    output = tmp_path / "out"
    expected = (OSError, ParticleError)
    for outcome in faults.each(lambda: lambda: work_with(output), fault, expected):
        if outcome.end == "killed":
            work_with(output)
        left = [*(own_cache / "work").glob("[!.]*"), *output.glob(".*")]
        assert left == [], f"{fault} at {outcome.call}"


def test_a_signal_while_a_workspace_is_made_leaves_no_file(own_cache, monkeypatch):
    def interrupted(*arguments, **options):
        made = mkdtemp(*arguments, **options)
        signal.raise_signal(signal.SIGTERM)
        return made

    mkdtemp = tempfile.mkdtemp
    monkeypatch.setattr(tempfile, "mkdtemp", interrupted)
    interrupt.install()
    try:
        with pytest.raises(Interrupted), workspace():
            pass
    finally:
        for number in interrupt.ENDING:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert os.listdir(own_cache / "work") == [".lock"]


def test_what_a_running_process_uses_stays(other):
    _, path, adopted = other
    with workspace() as work:
        assert work.path != path
    assert (path / "scratch").exists()
    assert (adopted / "image").exists()


def test_only_directories_of_ours_are_swept(own_cache, tmp_path):
    """A list may name directories that are not ours; the test names only harmless ones."""
    ours, precious = tmp_path / ".particle-os-00", tmp_path / "precious"
    hidden_above = tmp_path / ".particle-os-01" / "precious"
    stale = own_cache / "work/stale"
    for directory in (ours, precious, hidden_above, stale):
        directory.mkdir(parents=True)
    (stale / "lock").touch()
    names = (precious, hidden_above, ours)
    (stale / "adopted").write_bytes(b"".join(os.fsencode(name) + b"\0" for name in names))
    with workspace():
        assert not stale.exists()
    assert not ours.exists()
    assert precious.exists()
    assert hidden_above.exists()


def test_a_fifo_in_the_cache_is_not_waited_for(own_cache, tmp_path):
    one, other = own_cache / "work/one", own_cache / "work/other"
    for directory in (one, other):
        directory.mkdir(parents=True)
    os.mkfifo(own_cache / "work/.lock")
    os.mkfifo(one / "lock")
    (other / "lock").touch()
    os.mkfifo(other / "adopted")
    with workspace():
        assert not one.exists()
        assert not other.exists()


def test_a_lock_excludes_another_and_the_waiting_ends(tmp_path, monkeypatch, clock):
    monkeypatch.setattr(workspace_module, "time", clock)
    deadline = clock.deadline(30, "making the helper")
    with locked(tmp_path / "lock", deadline):
        with pytest.raises(DeadlineExceeded, match="another process holds"):
            with locked(tmp_path / "lock", deadline):
                pass
    assert clock.now == pytest.approx(deadline.at)
    with locked(tmp_path / "lock", deadline):
        pass


def test_locks_are_taken_in_turn(tmp_path, monkeypatch, soon):
    """Each holds the lock until another one has asked for it in vain."""
    inside, together, refused = [], [], []
    wait = SimpleNamespace(sleep=lambda seconds: refused.append(os.sched_yield()))
    monkeypatch.setattr(workspace_module, "time", wait)

    def work():
        with locked(tmp_path / "lock", soon):
            inside.append(1)
            together.append(len(inside))
            refused.clear()
            until(lambda: refused or len(together) == 4)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == [1, 1, 1, 1]


def test_holes_take_no_room(tmp_path):
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 30)
    assert allocated_bytes(tmp_path / "sparse") < 1 << 20


@pytest.mark.parametrize("name", ["new\nline", "sep\u2028arator", os.fsdecode(b"latin-\xff")])
def test_an_output_directory_of_any_name_is_cleared(tmp_path, monkeypatch, name):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with workspace() as work:
        adopted = work.adopt_directory(tmp_path / name)
        assert adopted.is_dir()
    assert list((tmp_path / name).iterdir()) == []


def test_an_output_directory_that_cannot_be_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "file").write_text("")
    with workspace() as work, pytest.raises(UsageError, match="cannot be used"):
        work.adopt_directory(tmp_path / "file")


def test_what_a_workspace_makes_is_private_and_a_lock_can_be_shared(tmp_path, soon):
    with workspace() as work:
        adopted = work.adopt_directory(tmp_path / "out")
        assert stat.S_IMODE(adopted.stat().st_mode) == 0o700
    before = os.umask(0)
    try:
        with locked(tmp_path / "lock", soon):
            assert stat.S_IMODE((tmp_path / "lock").stat().st_mode) == 0o666
    finally:
        os.umask(before)


def test_the_list_of_a_killed_process_is_not_read_through_a_link(own_cache, tmp_path):
    """Only a file of the workspace says which directories are removed with it."""
    with workspace() as work:
        root = work.path.parent
    spared = tmp_path / ".particle-os-spared"
    spared.mkdir()
    listed = tmp_path / "listed"
    listed.write_bytes(bytes(spared) + b"\0")
    killed = root / "killed"
    killed.mkdir()
    (killed / "lock").touch()
    (killed / "adopted").symlink_to(listed)
    with workspace():
        assert not killed.exists()
    assert spared.is_dir()


def test_a_file_that_cannot_be_removed_keeps_no_other_one(tmp_path, monkeypatch):
    plain = os.unlink

    def unlink(path, **options):
        if path == "b":
            raise OSError(errno.EIO, "Input/output error")
        plain(path, **options)

    for name in "abc":
        (tmp_path / "work" / name).mkdir(parents=True)
        (tmp_path / "work" / name / name).touch()
    monkeypatch.setattr(os, "unlink", unlink)
    workspace_module.remove_directories(tmp_path / "work")
    left = [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))]
    assert left == ["work", "work/b", "work/b/b"]
