import pytest
from particle_agent.errors import CommandFailed
from particle_agent.stages.run import Run


def test_the_command_is_given_as_it_is(target):
    command = ("A=1", "sh", "-c", "echo \"$A\" 'x'; exit", "$(id)", "")
    Run(command=command, working_directory="/srv", stdin="in").run(target)
    (ran,) = target.commands
    assert ran.argv == ("env", "--chdir=/srv", "--", *command)
    assert (ran.inside, ran.stdin, target.networked) == (True, "in", 1)


def test_a_failure_is_told(target):
    def fail(command):
        raise CommandFailed(command.argv, 3, ["words"])

    target.when("env", fail)
    with pytest.raises(CommandFailed, match="status 3"):
        Run(command=("false",)).run(target)
