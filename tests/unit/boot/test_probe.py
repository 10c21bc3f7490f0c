import base64
import shlex
import subprocess
from importlib import resources
from pathlib import Path

import pytest
from particle_os.architecture import AMD64, ARM64
from particle_os.boot import probe
from particle_os.errors import UsageError
from particle_os.recipe.checks import questions
from particle_os.recipe.checks.base import NO_REPLY, Reply
from particle_os.recipe.checks.contents import CommandCheck, FileCheck
from particle_os.recipe.checks.system import UnitCheck
from particle_os.vm import smbios

from ...waiting import HANG_SECONDS

NONCE = "0123456789abcdef"


def encoded(text):
    return base64.b64encode(text.encode()).decode()


def answer(facts, nonce=NONCE, more=()):
    text = "".join(f"\x1e{name}\n{text}\n" for name, text in facts.items())
    lines = [f"facts {encoded(text)}"]
    return "\r\n".join(
        [f"PARTICLE-OS-PROBE {nonce}", *lines, *more, f"PARTICLE-OS-PROBE-END {nonce}", ""]
    ).encode()


def answer_of(text):
    line = b"facts " + base64.b64encode(text) + b"\n"
    return probe.begin_marker(NONCE) + b"\n" + line + probe.end_marker(NONCE) + b"\n"


def test_facts_come_decoded():
    facts = {"state": "running", "locale": "LANG=de_DE.UTF-8", "journal:x.service": "one\ntwo"}
    assert probe.facts(answer(facts), NONCE) == facts


def test_facts_of_another_run_are_not_believed():
    stale = answer({"state": "running", "failed": ""}, nonce="f" * 16)
    assert probe.facts(stale, NONCE) == {}
    fresh = answer({"state": "degraded"})
    assert probe.facts(stale + fresh + stale, NONCE) == {"state": "degraded"}


def test_facts_outside_of_the_markers_are_not_believed():
    line = b"facts " + base64.b64encode(b"\x1estate\nrunning\n") + b"\n"
    data = line + answer({"kernel": "6.12"}) + line
    assert probe.facts(data, NONCE) == {"kernel": "6.12"}


def test_lines_that_are_no_facts_are_passed_over():
    noise = b"garbage\nfacts not-base64!\n\xff\xfe\n"
    data = answer({"state": "running"}).replace(b"facts", noise + b"facts", 1)
    assert probe.facts(data, NONCE)["state"] == "running"


def test_facts_play_no_tricks_with_the_terminal():
    facts = probe.facts(answer({"system": "\x1b[2JDebian\x07\nsecond\r"}), NONCE)
    assert facts == {"system": "\\x1b[2JDebian\\x07\nsecond"}


def test_bytes_that_are_no_text_hide_neither_facts_nor_replies():
    assert probe.facts(answer_of(b"\x1estate\nrun\xff\n"), NONCE) == {"state": "run\ufffd"}
    reply = f"reply:2.0 {base64.b64encode(bytes([0xFF])).decode()} 0"
    found = probe.replies(answer({}, more=[reply]), NONCE, CHECKS)
    assert found[2] == [probe.Reply(0, "\ufffd")]


def test_what_a_service_has_said_is_no_fact():
    said = "it went wrong\n\x1estate\nrunning"
    facts = probe.facts(answer({"state": "degraded", "journal:x.service": said}), NONCE)
    assert facts == {"state": "degraded", "journal:x.service": "it went wrong"}


WORDS = ["", "plain", "a b", "tab\tnew\n\n", "back\\slash \\0101 \\c", "ünï*?$`'\"", "%s %b", "-n"]


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_arguments_arrive_as_they_were(shell):
    """Runs the loop of probe.sh with a `try` that prints its arguments."""
    script = resources.files("particle_os.boot").joinpath("probe.sh").read_text()
    loop = script[script.index("	set --\n") : script.index("	try ")]
    line = " ".join(f".{questions.escaped(word.encode())}" for word in WORDS)
    shown = f"read -r words\n{loop}\nprintf '<%s>' \"$@\"\n"
    done = subprocess.run([shell, "-c", shown], input=line, capture_output=True, text=True)
    assert done.stdout == "".join(f"<{word}>" for word in WORDS)


def joined(credentials, prefix):
    names = sorted(name for name in credentials if name.startswith(f"{prefix}."))
    return b"".join(credentials[name] for name in names).decode()


CHECKS = (
    UnitCheck(unit="ssh.service"),
    FileCheck(file="/etc/motd", contains="x"),
    CommandCheck(command=("true",)),
    CommandCheck(command=("sleep", "60")),
)


def test_each_check_gets_its_replies():
    more = [
        f"reply:1.1 {encoded('content')} 0",
        f"reply:0.0 {encoded('active')} 0",
        "reply:2.0  127",
        "reply:7.0 xx 0",
        "reply:1.0 not-base64! 0",
        f"reply:3.0 {encoded('out')} late",
        "reply:3.0  never",
    ]
    found = probe.replies(answer({}, more=more), NONCE, CHECKS)
    assert found == [
        [Reply(0, "active")],
        [NO_REPLY, Reply(0, "content")],
        [Reply(127, "")],
        [Reply(None, "out")],
    ]


def test_replies_are_not_facts():
    assert probe.facts(answer({}, more=[f"reply:0.0 {encoded('active')} 0"]), NONCE) == {}


def test_the_credentials_carry_the_nonce_for_old_and_new_systemd():
    credentials = probe.credentials(NONCE, ())
    unit = credentials["systemd.extra-unit.particle-os-probe.service"]
    assert f"probe {NONCE}\n".encode() in unit
    lines = credentials["tmpfiles.extra"].decode().splitlines()
    assert (
        f"/run/systemd/system/particle-os-probe.service 0644 root root - {encoded(unit.decode())}"
        in lines[0]
    )
    assert lines[-1].endswith("/proc/sys/net/ipv4/tcp_congestion_control - - - - particle_os")


def test_no_initramfs_with_systemd_answers_for_the_image():
    """Its systemd reads the credentials first. It has the file of systemd's INITRD_INTERFACE."""
    given = probe.credentials(NONCE, [])
    unit = given[f"systemd.extra-unit.{probe.UNIT}"].decode()
    assert "\nConditionPathExists=!/etc/initrd-release\n" in unit.partition("[Service]")[0]
    emergency = given[f"systemd.extra-unit.{probe.EMERGENCY_UNIT}"].decode()
    assert "Condition" not in emergency


def test_too_many_questions_are_refused():
    long = CommandCheck(command=("sh", "-c", "x" * 60000))
    with pytest.raises(UsageError, match="passed to an image: 60017"):
        probe.credentials(NONCE, (long,))


def test_whatever_is_long_comes_in_pieces_that_fit_and_that_the_unit_loads():
    checks = [CommandCheck(command=("echo", "x" * 2000)) for _ in range(5)]
    credentials = probe.credentials(NONCE, checks)
    for number, (name, value) in enumerate(credentials.items()):
        assert len(smbios.table(number, name, value)) <= 4096
    assert len(joined(credentials, "particle-os.questions").splitlines()) == 5
    unit = credentials["systemd.extra-unit.particle-os-probe.service"].decode()
    loaded = [line for line in unit.splitlines() if line.startswith("LoadCredential=")]
    ours = [name for name in credentials if name.startswith("particle-os.")]
    assert loaded == [f"LoadCredential={name}" for name in ours]
    assert len(ours) > 3


@pytest.fixture
def asked(tmp_path):
    """Runs the probe's code for questions on the host, in a real shell."""

    def ask(*argvs, timeout=60):
        checks = [CommandCheck(command=argv, timeout=timeout) for argv in argvs]
        credentials = probe.credentials(NONCE, checks)
        script = joined(credentials, "particle-os.probe").replace("exec >/dev/ttyS1", "exec ")
        functions, _, rest = script.partition('echo "PARTICLE-OS-PROBE $1"')
        loop = rest[rest.index("# Each line") : rest.index("# The host looks")]
        for name, value in credentials.items():
            (tmp_path / name).write_bytes(value)
        text = f'{functions}\necho "PARTICLE-OS-PROBE $1"\n{loop}'
        environment = {
            "CREDENTIALS_DIRECTORY": str(tmp_path), "RUNTIME_DIRECTORY": str(tmp_path),
            "PATH": "/usr/bin:/bin",
        }  # fmt: skip
        done = subprocess.run(
            ["sh", "-c", text, "probe", NONCE],
            env=environment,
            capture_output=True,
            timeout=HANG_SECONDS,
        )
        return [reply for (reply,) in probe.replies(done.stdout, NONCE, checks)]

    return ask


@pytest.mark.parametrize(
    "argument",
    ["", " ", "two words", "$(id)", "`id`", "a\nb\n", "*", "'\"\\", "-n", "ä", "%s", "\n\n"],
)
def test_arguments_arrive_as_they_are(asked, argument):
    (reply,) = asked(("printf", "<%s>", argument))
    assert reply == Reply(0, f"<{argument}>")


def test_the_status_and_both_outputs_come_back(asked):
    assert asked(("sh", "-c", "echo out; echo err >&2; exit 7"), ("true",)) == [
        Reply(7, "out\nerr\n"),
        Reply(0, ""),
    ]


def test_a_program_that_is_not_there(asked):
    (reply,) = asked(("no-such-program", "x"))
    assert reply.status == 127


def test_a_program_may_end_as_if_it_had_been_late(asked):
    replies = asked(*(("sh", "-c", does) for does in ("exit 124", "exit 137", "kill -9 $$")))
    assert [reply.status for reply in replies] == [124, 137, 137]


def test_a_flood_is_cut_and_the_status_is_the_programs(asked):
    (reply,) = asked(("sh", "-c", "yes | head -c 3000000; exit 3"))
    assert (reply.status, len(reply.output)) == (3, 65536)


@pytest.fixture
def facts_of(tmp_path):
    """Runs the probe's code for facts, with stand-ins for systemd's programs."""

    def run(state, units, results=None, restarted=(), late=None):
        (tmp_path / "units").write_text(units)
        (tmp_path / "late").write_text(units if late is None else late)
        for unit, result in (results or {}).items():
            (tmp_path / f"result-{unit}").write_text(result)
        for name, does in {
            "systemctl": f"""cd "{tmp_path}" && echo "$1" >>asked && case $* in
                *list-units*--state=failed,auto-restart*) cat units ;;
                show*) shift 4 && cat "result-$1" ;;
                *) echo {state} ;;
                esac""",
            "journalctl": f"""case $* in
                *MESSAGE_ID=*) echo {" ".join(restarted)} ;;
                *) echo it went wrong ;;
                esac""",
            "sleep": f'cd "{tmp_path}" && mv late units && : >late',
            "systemd-analyze": ":",
        }.items():
            (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
            (tmp_path / name).chmod(0o755)
        script = resources.files("particle_os.boot").joinpath("probe.sh").read_text()
        functions = script.replace("exec >/dev/ttyS1", "exec ").partition(
            'echo "PARTICLE-OS-PROBE $1"'
        )[0]
        for name in ("/etc/os-release", "/etc/machine-id"):
            functions = functions.replace(name, str(tmp_path / Path(name).name))
        environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
        done = subprocess.run(["sh", "-c", f"{functions}\nfacts"], env=environment, stdout=-1)
        return probe.facts(answer_of(done.stdout), NONCE)

    return run


@pytest.mark.parametrize(("units", "more"), [(20, None), (25, 5)])
def test_journals_that_are_left_out_are_counted(facts_of, units, more):
    lines = "".join(f"bad{i:02}.service loaded failed failed bad\n" for i in range(units))
    facts = facts_of("degraded", lines)
    assert len(facts["failed"].split()) == units
    journals = {name: text for name, text in facts.items() if name.startswith("journal:")}
    assert journals["journal:bad19.service"] == "it went wrong"
    assert len(journals) == 20 + (more is not None)
    assert (f"{more} more units failed" in list(journals.values())[-1]) == (more is not None)


def test_what_crashes_and_is_started_again_for_ever_is_told_though_systemd_is_running(facts_of):
    lines = (
        "crash.service loaded activating auto-restart bad\n"
        "poll.service loaded activating auto-restart good\n"
    )
    facts = facts_of("running", lines, {"crash.service": "exit-code", "poll.service": "success"})
    assert (facts["failed"], facts["crash-looping"]) == ("", "crash.service")
    journals = [name for name in facts if name.startswith("journal:")]
    assert (journals, facts["journal:crash.service"]) == (
        ["journal:crash.service"],
        "it went wrong",
    )


CRASH = "crash.service loaded activating auto-restart bad\n"


@pytest.mark.parametrize("restarted", [["crash.service"], []])
@pytest.mark.parametrize(("late", "looping"), [(CRASH, "crash.service"), ("", "")])
def test_a_unit_that_crashes_after_the_last_job_is_found(facts_of, restarted, late, looping):
    """systemd has no job left while the unit runs, at its first start or between two crashes."""
    results = {"crash.service": "exit-code"}
    facts = facts_of("running", "", results, restarted=restarted, late=late)
    assert facts["crash-looping"] == looping


def test_a_good_system_runs_systemctl_no_more_than_it_must(facts_of, tmp_path):
    facts = facts_of("running", "")
    assert (facts["failed"], facts["crash-looping"]) == ("", "")
    assert not [name for name in facts if name.startswith("journal:")]
    assert (tmp_path / "asked").read_text().split() == ["is-system-running", "list-units"]


def test_the_facts_that_a_reboot_compares_come_whatever_is_missing(facts_of, tmp_path):
    assert {"kernel", "hostname", "ssh-host-keys", "root-device"} <= facts_of("running", "").keys()
    assert "machine-id" not in facts_of("running", "")
    (tmp_path / "machine-id").write_text("a" * 32)
    (tmp_path / "os-release").write_text("it's ) no shell\n")
    assert facts_of("running", "")["machine-id"] == "a" * 32
    (tmp_path / "os-release").write_text('PRETTY_NAME="My Debian"\n')
    (tmp_path / "machine-id").write_text("b" * 32 + "\n")
    facts = facts_of("running", "")
    assert (facts["system"], facts["machine-id"]) == ("My Debian", "b" * 32)


@pytest.mark.slow
def test_a_program_that_does_not_end(asked):
    deaf = ("sh", "-c", "trap '' TERM; echo started; sleep 60; sleep 60")
    replies = asked(("sleep", "60"), deaf, timeout=3)
    assert [reply.status for reply in replies] == [None, None]
    assert replies[1].output.startswith("started\n")


def test_a_program_whose_status_is_that_of_a_time_limit(asked):
    (reply,) = asked(("sh", "-c", "exit 124"))
    assert reply.status == 124


@pytest.mark.slow
def test_a_daemon_that_keeps_the_output_open_does_not_hold_the_probe_up(asked):
    (reply,) = asked(("sh", "-c", "sleep 50 & echo started"), timeout=3)
    assert reply == Reply(0, "started\n")


def test_a_system_in_emergency_or_rescue_mode_says_so_with_this_runs_nonce(tmp_path):
    credentials = probe.credentials(NONCE, ())
    for target in ("emergency.target", "rescue.target"):
        dropin = credentials[f"systemd.unit-dropin.{target}~particle-os"].decode()
        unit = credentials[f"systemd.extra-unit.{dropin.strip().partition('Wants=')[2]}"].decode()
        # The unit must not wait for units that an emergency has stopped.
        assert "DefaultDependencies=no" in unit
        (command,) = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
        port = tmp_path / target
        argv = shlex.split(command.partition("=")[2].replace("/dev/ttyS1", str(port)))
        subprocess.run(argv, check=True)
        assert port.read_bytes().strip() == probe.emergency_marker(NONCE)
    assert probe.begin_marker(NONCE) not in probe.emergency_marker(NONCE)


@pytest.mark.parametrize(
    ("questions", "networkd", "waited"),
    [
        ("1.0 30 .id", True, ["udevadm settle", "systemd-networkd-wait-online --quiet"]),
        ("1.0 30 .id", False, ["udevadm settle"]),
        ("", True, ["udevadm settle"]),
    ],
)
def test_checks_wait_for_drivers_and_for_addresses(tmp_path, questions, networkd, waited):
    """A network card may get its driver after systemd has settled, on a busy host."""
    (tmp_path / "particle-os.questions.000").write_text(questions)
    programs = {
        "udevadm": 'echo "udevadm $1" >>"$ASKED"',
        "systemd-networkd-wait-online": 'echo "${0##*/} $1" >>"$ASKED"',
    }
    for name, does in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\necho noise\n")
        (tmp_path / name).chmod(0o755)
    script = resources.files("particle_os.boot").joinpath("probe.sh").read_text()
    functions = script.replace("exec >/dev/ttyS1", "exec ").partition('echo "PARTICLE-OS-P')[0]
    functions = functions.replace("/usr/lib/systemd/", f"{tmp_path}/")
    functions = functions.replace("/run/systemd/netif/state", f"{tmp_path}/state")
    if networkd:
        (tmp_path / "state").touch()
    asked = tmp_path / "asked"
    environment = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "CREDENTIALS_DIRECTORY": str(tmp_path),
        "ASKED": str(asked),
    }
    done = subprocess.run(["sh", "-c", f"{functions}\nsettle"], env=environment, stdout=-1)
    assert done.stdout == b""
    assert asked.read_text().splitlines() == waited


def test_the_answer_takes_the_second_serial_port_of_the_machine():
    for vm, other in ((AMD64.vm, ARM64.vm), (ARM64.vm, AMD64.vm)):
        given = b"".join(probe.credentials(NONCE, [], vm).values())
        assert f">/dev/{vm.answers}".encode() in given
        assert f"</dev/{vm.answers}".encode() in given
        assert other.answers.encode() not in given
