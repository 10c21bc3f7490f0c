import os
import signal
import sys
from contextlib import suppress

import pytest
from particle_agent.contract import wire
from particle_agent.errors import CommandFailed, EnvironmentFailed
from particle_agent.target import command

from ...waiting import HANG_SECONDS, Clock, is_running, until


def run(*argv, timeout=HANG_SECONDS, **options):
    lines = []
    command.run(argv, emit=lines.append, timeout=timeout, **options)
    return lines


def shell(text, **options):
    return run("sh", "-c", text, **options)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(command, "time", clock)
    return clock


def test_both_outputs_come_line_by_line():
    assert shell("echo one; echo two >&2; printf three") == ["one", "two", "three"]


def test_lines_come_while_the_command_runs(tmp_path):
    """The command prints its second line only after its first line has arrived."""
    lines = []

    def emit(line):
        lines.append(line)
        (tmp_path / "go").touch()

    script = f"echo first; while [ ! -e {tmp_path}/go ]; do sleep 0.02; done; echo second"
    command.run(["sh", "-c", script], emit=emit, timeout=HANG_SECONDS)
    assert lines == ["first", "second"]


def test_progress_bars_and_blank_lines_are_split_and_dropped():
    assert shell(r"printf '10%%\r50%%\r\n\n   \n100%%\n'") == ["10%", "50%", "100%"]


def test_a_line_that_arrives_in_parts_is_one_line():
    lines = []
    splitter = command._Lines(lines.append)
    for part in (b"pass", b"word\nse", "ä".encode()[:1], "ä".encode()[1:]):
        splitter.feed(part)
    assert lines == ["password"]
    splitter.close()
    assert lines == ["password", "seä"]


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
def test_the_deadline_kills_the_command_and_its_children(clock):
    lines = []

    def emit(line):
        lines.append(line)
        clock.sleep(70)

    argv = ["sh", "-c", "trap '' TERM; sleep 3600 & echo $!; wait"]
    with pytest.raises(EnvironmentFailed, match="did not end within 60 s") as late:
        command.run(argv, emit=emit, timeout=60)
    assert late.value.tail == (lines[0],)
    until(lambda: not is_running(int(lines[0])))


def test_the_deadline_holds_against_a_flood(clock):
    with pytest.raises(EnvironmentFailed, match="did not end within 60 s"):
        command.run(["yes"], emit=lambda line: clock.sleep(0.1), timeout=60)


@pytest.mark.usefixtures("clock")
def test_closed_output_is_not_the_end():
    with pytest.raises(EnvironmentFailed, match="closed its output"):
        shell("exec >&- 2>&-; sleep 3600", timeout=0.1)


@pytest.mark.parametrize(
    "daemon",
    ["sleep 3600", "while :; do echo still here; sleep 0.1; done"],
    ids=["silent", "talkative"],
)
def test_a_daemon_that_holds_the_output_does_not_hold_us_up(monkeypatch, daemon):
    monkeypatch.setattr(command, "LEFTOVER_SECONDS", 0.2)
    lines = shell(f"echo $$; ({daemon}) & echo done")
    with suppress(ProcessLookupError):
        os.killpg(int(lines[0]), signal.SIGKILL)
    assert "done" in lines


@pytest.mark.parametrize("character", ["x", "\u00e4", "\U0001f511"])
@pytest.mark.parametrize("before", [0, 1, 2, 3])
def test_an_endless_line_becomes_lines_without_loss(character, before):
    text = "-" * before + character * 300_000
    lines = run(sys.executable, "-c", f"print('-' * {before} + '{character}' * 300_000)")
    assert "".join(lines) == text
    assert max(map(len, lines)) <= command.LINE_CHARACTERS
    assert max(len(wire.to_line(wire.OutputLine(text=line))) for line in lines) < wire.LINE_LIMIT


def test_no_descriptor_is_left_open():
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        shell("echo x")
    assert len(os.listdir("/proc/self/fd")) == before


def feed(argv, data, timeout=HANG_SECONDS):
    command.feed(argv, data, timeout=timeout, env=os.environ)


def test_data_of_any_size_reaches_the_program(tmp_path):
    data = [b"", b"x" * 3_000_000, b"y" * 5, b"z" * command.PIPE_BYTES]
    feed(["sh", "-c", f"sleep 0.1; cat >{tmp_path}/got"], data)
    assert (tmp_path / "got").read_bytes() == b"".join(data)


def test_a_program_that_takes_no_data_is_given_up_at_the_deadline(tmp_path):
    pid = tmp_path / "pid"

    def chunks():
        until(lambda: pid.exists() and pid.read_text())
        while True:
            yield bytes(65536)

    with pytest.raises(EnvironmentFailed, match="did not end within 0 s"):
        feed(["sh", "-c", f"trap '' TERM; echo $$ >{pid}; exec sleep 3600"], chunks(), timeout=0.3)
    assert not is_running(int(pid.read_text()))


def test_a_program_that_takes_data_slowly_is_given_up_at_the_deadline(clock):
    def chunks():
        while True:
            clock.sleep(1)
            yield b"x"

    with pytest.raises(EnvironmentFailed, match="did not end within 60 s"):
        feed(["sh", "-c", "cat >/dev/null"], chunks(), timeout=60)


def test_a_program_that_has_all_data_and_does_not_end_is_given_up_at_the_deadline():
    with pytest.raises(EnvironmentFailed, match="did not end within 0 s"):
        feed(["sleep", "3600"], [b"x"], timeout=0.2)


def test_a_program_that_stops_reading_reports_the_reason():
    with pytest.raises(CommandFailed) as failed:
        feed(["sh", "-c", "seq 100; echo full >&2; exit 3"], [bytes(1 << 16)] * 99)
    assert failed.value.status == 3
    assert failed.value.tail[-1] == "full"
    assert len(failed.value.tail) == command.TAIL_LINES
    feed(["true"], [bytes(1 << 16)] * 99)


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        (["apt-get", "install", "x"], "apt-get install x"),
        (["chroot", "/scratch/target", "systemctl", "enable"], "systemctl enable"),
        (["chroot", "/t", "env", "--chdir=/srv", "--", "A=b", "sh", "-c", "x=y"], "sh -c x=y"),
        (["env", "A=b"], "env A=b"),
        (["chroot", "/t"], "chroot /t"),
    ],
)
def test_a_failed_command_is_shown_as_the_recipe_means_it(argv, shown):
    assert CommandFailed(argv, 1, ()).message == f"'{shown}' ended with status 1"


def test_each_command_has_its_variables_and_a_session_of_its_own(tmp_path):
    script = f'cut -d" " -f6 /proc/self/stat > {tmp_path}/session; echo "$A" | tee {tmp_path}/a'
    for number, start in enumerate((command.feed, command.capture, command.run)):
        more = ((),) if start is command.feed else ()
        options = {"emit": lambda line: None} if start is command.run else {}
        env = {"A": f"value {number}", "PATH": os.environ["PATH"]}
        start(["sh", "-c", script], *more, timeout=HANG_SECONDS, env=env, **options)
        assert (tmp_path / "a").read_text() == f"value {number}\n"
        assert int((tmp_path / "session").read_text()) != os.getsid(0)
