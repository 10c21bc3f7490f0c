import errno
import threading

import pytest
from particle_os.apt import transfer

from ...waiting import HANG_SECONDS


@pytest.mark.parametrize(
    ("line", "size"),
    [
        ("Need to get 83.5 MB of archives.", 83_500_000),
        ("Need to get 1,234 kB/83.5 MB of archives.", 1_234_000),
        ("Need to get 0 B/83.5 MB of archives.", 0),
        ("Need to get 345 B of archives.", 345),
        ("Need to get 1.2.3 MB of archives.", None),
        ("You need to get 5 MB of sleep.", None),
    ],
)
def test_the_size_of_all_packages_is_read(line, size):
    assert transfer.needed(line) == size


@pytest.mark.parametrize(
    ("line", "size"),
    [
        (
            "Get:3 http://m.example.org/debian trixie/main amd64 hello amd64 2.10-3 [53.1 kB]",
            53_100,
        ),
        ("Get:12 https://m.example.org/file [1,466 kB]", 1_466_000),
        ("Get:1 https://m.example.org/file", None),
        ("Hit:1 https://m.example.org/file [1 kB]", None),
    ],
)
def test_the_size_of_a_file_is_read(line, size):
    assert transfer.begun(line) == size


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("Fetched 83.5 MB in 3s (29.0 MB/s)", (83_500_000, 3)),
        ("Fetched 1,234 kB in 1min 3s (19.6 kB/s)", (1_234_000, 63)),
        ("Fetched 5 GB in 1h 2min 3s (1 MB/s)", (5_000_000_000, 3723)),
        ("Fetched 0 B in 0s (0 B/s)", (0, 0)),
        ("Fetched 1.2.3 MB in 3s (1 B/s)", None),
        ("Fetched 3 MB in no time", None),
        ("I: Fetched 3 MB in 3s", None),
    ],
)
def test_the_size_and_the_time_of_what_was_fetched_are_read(line, found):
    assert transfer.fetched(line) == found


@pytest.fixture
def told(monkeypatch):
    """The lines about a download whose size grows step by step."""
    monkeypatch.setattr(transfer, "SECONDS", 0.001)

    def run(sizes, total, log=None):
        lines, ended, left = [], threading.Event(), list(sizes)

        def measure():
            if len(left) == 1:
                ended.set()
            return left.pop(0) if len(left) > 1 else left[0]

        with transfer.watched(measure, lambda: total, log or lines.append):
            assert ended.wait(HANG_SECONDS)
        return lines

    return run


def test_each_new_per_cent_is_a_line(told):
    assert told([0, 1, 50, 50, 120], 200) == [
        "fetched 25 % of 200 bytes",
        "fetched 60 % of 200 bytes",
    ]
    assert told([0, 300, 300], 200) == ["fetched 100 % of 200 bytes"]


def test_a_log_that_cannot_be_written_ends_no_download(told):
    def full(line):
        raise OSError(errno.ENOSPC, "No space left on device")

    done = threading.Event()

    def measure():
        done.set()
        return 1

    with transfer.watched(measure, lambda: 2, full):
        assert done.wait(HANG_SECONDS)


def test_nothing_is_said_while_the_size_is_unknown(monkeypatch):
    monkeypatch.setattr(transfer, "SECONDS", 0.001)
    asked, lines = threading.Event(), []

    def total():
        asked.set()
        return 0

    with transfer.watched(lambda: 1, total, lines.append):
        assert asked.wait(HANG_SECONDS)
    assert lines == []


def test_files_and_directories_are_measured_and_missing_ones_do_not_count(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/c").write_bytes(bytes(5))
    (tmp_path / "d").write_bytes(bytes(7))
    assert transfer.size_of([tmp_path / "a", tmp_path / "d", tmp_path / "none"]) == 12
