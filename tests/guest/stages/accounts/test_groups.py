import pytest
from particle_agent.errors import StageError
from particle_agent.stages.accounts.groups import Group, Groups


@pytest.fixture
def debian(target):
    target.write("/etc/passwd", "root:x:0:0:root:/root:/bin/bash\nold:x:1000:1000::/home/old:\n")
    target.write("/etc/group", "root:x:0:\nold:x:1000:\nstaff:x:50:\n")
    return target


def make(target, **options):
    Groups(groups=(Group(**options),)).run(target)
    return [command.argv for command in target.commands]


def test_a_plain_group(debian):
    assert make(debian, name="web") == [("groupadd", "--", "web")]
    assert debian.commands[0].inside


def test_a_system_group_with_a_number_and_members(debian):
    assert make(debian, name="web", gid=300, system=True, members=("old", "root")) == [
        ("groupadd", "--system", "--gid", "300", "--", "web"),
        ("usermod", "--append", "--groups", "web", "--", "old"),
        ("usermod", "--append", "--groups", "web", "--", "root"),
    ]


def test_a_group_that_exists_gets_the_number_and_the_members(debian):
    assert make(debian, name="staff", gid=60, members=("old",)) == [
        ("groupmod", "--gid", "60", "--", "staff"),
        ("usermod", "--append", "--groups", "staff", "--", "old"),
    ]


@pytest.mark.parametrize("options", [{}, {"gid": 50}])
def test_a_group_that_is_as_it_should_be_is_left_alone(debian, options):
    assert make(debian, name="staff", **options) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gid": 1000}, "the gid 1000 belongs to old"),
        ({"members": ("old", "nobody")}, "no user nobody"),
    ],
)
def test_what_cannot_be_is_reported_before_anything_runs(debian, options, message):
    with pytest.raises(StageError, match=message):
        make(debian, name="web", **options)
    assert debian.commands == []
