"""Two items of a stage that define one thing are an error; the last one does not win."""

import pytest
from particle_agent.stages.accounts.groups import Group, Groups
from particle_agent.stages.accounts.users import User, Users
from particle_agent.stages.contents.files import Directory, File, Files, Link

FILE, LINK = File(path="/etc/a", content=""), Link(path="/etc/a", to="b")


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (Users, {"users": (User(name="a"), User(name="b"), User(name="a"))}, "user 'a'"),
        (Users, {"users": (User(name="a", uid=2000), User(name="b", uid=2000))}, "uid '2000'"),
        (Groups, {"groups": (Group(name="a"), Group(name="a", gid=2000))}, "group 'a'"),
        (Groups, {"groups": (Group(name="a", gid=5), Group(name="b", gid=5))}, "gid '5'"),
        (Files, {"files": (FILE, FILE)}, "path '/etc/a'"),
        (Files, {"files": (FILE,), "links": (LINK,)}, "path '/etc/a'"),
        (Files, {"files": (FILE,), "directories": (Directory(path="/etc/a/"),)}, "path '/etc/a'"),
    ],
)
def test_two_of_a_name(kind, options, message):
    with pytest.raises(ValueError, match=f"^{message} is there twice$"):
        kind(**options)


def test_many_without_a_number():
    assert len(Users(users=(User(name="a"), User(name="b"))).users) == 2
    assert len(Groups(groups=(Group(name="a"), Group(name="b"))).groups) == 2
