import os
import sys
import time

import pytest
from particle_agent.errors import CommandFailed, EnvironmentFailed
from particle_agent.target import command


def run(*argv, timeout=10.0, **options):
    lines = []
    command.run(argv, emit=lines.append, timeout=timeout, **options)
    return lines


def shell(text, **options):
    return run("sh", "-c", text, **options)


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_both_outputs_come_line_by_line():
    assert shell("echo one; echo two >&2; printf three") == ["one", "two", "three"]


def test_lines_come_while_the_command_runs():
    times = []
    command.run(
        ["sh", "-c", "echo first; sleep 0.6; echo second"],
        emit=lambda line: times.append(time.monotonic()),
        timeout=10,
    )
    assert times[1] - times[0] > 0.3


def test_progress_bars_and_blank_lines_are_split_and_dropped():
    assert shell(r"printf '10%%\r50%%\r\n\n   \n100%%\n'") == ["10%", "50%", "100%"]


def test_bytes_that_are_no_text_do_no_harm():
    assert shell(r"printf 'a\377b\n'") == ["a\ufffdb"]


def test_standard_input_of_any_size_is_read_whole():
    assert run("wc", "-c", stdin=b"x" * 300_000) == ["300000"]


def test_nothing_waits_for_the_keyboard():
    assert shell("cat; echo end") == ["end"]


def test_arguments_are_never_shell_text():
    assert run("printf", "%s\n", "$(echo gone) ; `x` 'q' \"d\"") == [
        "$(echo gone) ; `x` 'q' \"d\"",
    ]


def test_a_failure_carries_status_and_tail():
    with pytest.raises(CommandFailed) as failed:
        shell("seq 100; echo last words >&2; exit 7")
    assert failed.value.status == 7
    assert failed.value.tail[-1] == "last words"
    assert len(failed.value.tail) == command.TAIL_LINES


def test_death_by_a_signal_is_a_failure():
    with pytest.raises(CommandFailed) as failed:
        shell("kill -9 $$")
    assert failed.value.status == -9


@pytest.mark.slow
def test_the_deadline_kills_the_command_and_its_children():
    started = time.monotonic()
    lines = []
    with pytest.raises(EnvironmentFailed, match="did not end within 1 s") as late:
        command.run(
            ["sh", "-c", "trap '' TERM; sleep 60 & echo $!; wait"], emit=lines.append, timeout=0.6
        )
    assert time.monotonic() - started < 3
    assert late.value.tail == (lines[0],)
    time.sleep(0.1)
    assert not is_running(int(lines[0]))


def test_the_deadline_holds_against_a_flood():
    started = time.monotonic()
    with pytest.raises(EnvironmentFailed):
        shell("yes", timeout=0.5)
    assert time.monotonic() - started < 3


def test_closed_output_is_not_the_end():
    with pytest.raises(EnvironmentFailed, match="closed its output"):
        shell("exec >&- 2>&-; sleep 60", timeout=0.5)


@pytest.mark.parametrize(
    "daemon",
    ["sleep 8", "while :; do echo still here; sleep 0.1; done"],
    ids=["silent", "talkative"],
)
def test_a_daemon_that_holds_the_output_does_not_hold_us_up(monkeypatch, daemon):
    monkeypatch.setattr(command, "LEFTOVER_SECONDS", 0.2)
    started = time.monotonic()
    lines = shell(f"({daemon}) & echo done", timeout=4)
    assert "done" in lines
    assert time.monotonic() - started < 3


def test_an_endless_line_stays_bounded():
    lines = run(sys.executable, "-c", "print('x' * 3_000_000)")
    assert "".join(lines).startswith("xxx")
    assert max(map(len, lines)) <= command.LINE_BYTES


def test_no_descriptor_is_left_open():
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        shell("echo x")
    assert len(os.listdir("/proc/self/fd")) == before
