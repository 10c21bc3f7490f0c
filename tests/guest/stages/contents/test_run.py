import subprocess
from contextlib import nullcontext

import pytest
from particle_agent.errors import CommandFailed
from particle_agent.stages.contents.run import PRIVATE, SCRIPT, SHELL, Run


def test_the_command_is_given_as_it_is(target):
    command = ("A=1", "sh", "-c", "echo \"$A\" 'x'; exit", "$(id)", "")
    Run(command=command, working_directory="/srv", stdin="in").run(target)
    (ran,) = target.commands
    assert ran.argv == ("env", "--chdir=/srv", "--", *command)
    assert (ran.inside, ran.stdin, target.networked) == (True, "in", 1)


def test_a_script_is_a_file_for_its_interpreter_and_goes_away(target):
    seen = []
    target.when("env", lambda c: seen.append((target.read(c.argv[-1]), target.mode(c.argv[-1]))))
    Run(script="echo a\nexit 0\n").run(target)
    assert target.only("env").argv[2:] == ("--", "/bin/sh", "-eu", SCRIPT)
    assert seen == [("echo a\nexit 0\n", 0o600)]
    assert target.list("/run") == []


def test_another_interpreter_gets_its_options(target):
    script = "#!/usr/bin/python3\nprint(1)\n"
    Run(script=script, interpreter=("/usr/bin/python3", "-I")).run(target)
    assert target.only("env").argv[3:] == ("/usr/bin/python3", "-I", SCRIPT)


def test_the_script_goes_away_when_it_fails(target):
    def fail(command):
        raise CommandFailed(command.argv, 1, [])

    target.when("env", fail)
    with pytest.raises(CommandFailed):
        Run(script="false").run(target)
    assert target.list("/run") == []


def test_the_environment_is_no_part_of_the_command_line(target):
    Run(command=("env",), environment={"TOKEN": "a b", "LANG": "C"}).run(target)
    (ran,) = target.commands
    assert ran.env == {"TOKEN": "a b", "LANG": "C"}
    assert "a b" not in " ".join(ran.argv)


def test_in_the_helper_it_learns_where_the_target_is(target):
    Run(script="x", in_="helper", environment={"A": "b"}, working_directory="/tmp").run(target)
    (ran,) = target.commands
    assert not ran.inside
    assert ran.argv[0] == "unshare"
    assert ran.argv[-6:-1] == ("env", "--chdir=/tmp", "--", "/bin/sh", "-eu")
    assert ran.argv[-1] == str(target.root / SCRIPT.strip("/"))
    assert ran.env == {"A": "b", "TARGET": str(target.root)}


def test_the_scripts_own_first_line_agrees_with_the_default_interpreter(target):
    Run(script="#!/bin/sh\ntrue\n").run(target)
    assert target.programs() == ["env"]


def test_an_interpreter_that_is_named_is_the_one_that_runs(target):
    Run(script="#!/usr/bin/python3\n", interpreter=("/bin/sh", "-eu")).run(target)
    assert target.only("env").argv[-3:-1] == ("/bin/sh", "-eu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"command": ("true",), "interpreter": ("/bin/sh", "-eu")}, "needs a 'script'"),
        ({}, "one of 'command', 'script' and 'script-file'"),
        ({"command": ("true",), "script": "true"}, "one of 'command', 'script' and 'script-file'"),
        ({"command": ("true",), "interpreter": ("/bin/bash",)}, "'interpreter' needs a 'script'"),
        ({"script": "#!/usr/bin/env python3\n"}, "'#!/usr/bin/env python3' is a comment here"),
    ],
)
def test_what_contradicts_itself_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Run(**options)


def test_the_default_interpreter_stops_at_the_first_failure(tmp_path):
    script = tmp_path / "script"
    script.write_text("false\ntouch reached\n")
    done = subprocess.run([*SHELL, script], cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert not (tmp_path / "reached").exists()


def test_a_failure_is_reported(target):
    def fail(command):
        raise CommandFailed(command.argv, 3, ["words"])

    target.when("env", fail)
    with pytest.raises(CommandFailed, match="status 3"):
        Run(command=("false",)).run(target)


@pytest.mark.parametrize(
    ("content", "options", "interpreter"),
    [
        (b"echo hi\n", {}, ("/bin/sh", "-eu")),
        (b"#!/usr/bin/python3\nprint(1)\n", {}, ("/usr/bin/python3",)),
        (b"#! /usr/bin/env -S perl -w\r\n", {}, ("/usr/bin/env", "-S perl -w")),
        (b"#!\n", {}, ("/bin/sh", "-eu")),
        (b"#!/usr/bin/python3\n", {"interpreter": ("/bin/bash",)}, ("/bin/bash",)),
        (b"\xff\xfe", {}, ("/bin/sh", "-eu")),
        (b"#!/usr/bin/python3\n", {"interpreter": ("/bin/sh", "-eu")}, ("/bin/sh", "-eu")),
    ],
)
def test_a_script_file_runs_with_the_interpreter_of_its_first_line(
    target, content, options, interpreter
):
    seen = []
    target.when("env", lambda command: seen.append(target.read_bytes(command.argv[-1])))
    (target.directory / "file").write_bytes(content)
    Run(script_file="sha256:file", **options).run(target)
    argv = target.only("env").argv
    assert argv[argv.index("--") + 1 : -1] == interpreter
    assert seen == [content]
    assert not target.exists(argv[-1])


@pytest.mark.parametrize(
    ("network", "given"), [(None, []), ("none", ["NET_ADMIN"]), (("example.org",), ["NET_ADMIN"])]
)
def test_a_network_of_its_own_may_be_changed(target, monkeypatch, network, given):
    asked = []
    monkeypatch.setattr(target, "capability", lambda name: asked.append(name) or nullcontext())
    Run(command=("nft", "-c", "-f", "x"), network=network).run(target)
    Run(command=("nft",), network=network, in_="helper").run(target)
    assert asked == given


@pytest.mark.parametrize(
    "said",
    [
        "Operation not permitted (you must be root)",
        "iptables v1.8.11 (nf_tables): Could not fetch rule set generation id: Permission denied "
        "(you must be root)",
        "RTNETLINK answers: Operation not permitted",
    ],
)
@pytest.mark.parametrize("network", [None, "none"])
def test_a_refused_change_of_the_network_has_a_hint(target, said, network):
    def fail(command):
        raise CommandFailed(command.argv, 1, ["first", said])

    target.when("env", fail)
    with pytest.raises(CommandFailed) as caught:
        Run(command=("nft",), network=network).run(target)
    assert (caught.value.hint == PRIVATE) is (network is None)
