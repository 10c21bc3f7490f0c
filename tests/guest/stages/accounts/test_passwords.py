import pytest
from particle_agent.errors import StageError
from particle_agent.stages.accounts.users import User, Users
from particle_agent.stages.base import Secret

from .account import make


def test_the_password_hash_is_never_an_argument(debian):
    make(debian, name="admin", password_hash="$6$salt$hash")
    command = debian.only("chpasswd")
    assert command.argv == ("chpasswd", "--encrypted")
    assert command.stdin == "admin:$6$salt$hash\n"
    assert all("hash" not in " ".join(c.argv) for c in debian.commands)


@pytest.mark.parametrize(
    ("state", "command"),
    [
        ("locked", ("usermod", "--lock", "--", "old")),
        ("empty", ("passwd", "--quiet", "--delete", "--", "old")),
        ("expired", ("chage", "--lastday", "0", "--", "old")),
    ],
)
def test_states_of_a_password(debian, state, command):
    make(debian, name="old", password=state)
    assert debian.commands[-1].argv == command


def test_the_hash_is_there_before_it_is_locked(debian):
    make(debian, name="old", password="locked", password_hash="$6$salt$hash")
    assert debian.programs() == ["chpasswd", "usermod"]


@pytest.mark.parametrize(("lock", "date"), [(True, "1"), (False, "")])
def test_an_account_is_closed_and_opened(debian, lock, date):
    make(debian, name="old", lock=lock)
    assert debian.only("usermod").argv == ("usermod", "--expiredate", date, "--", "old")


@pytest.mark.parametrize(
    "options",
    [
        {"password": "empty", "password_hash": "$6$salt$hash"},
        {"password": "expired", "password_hash": "*"},
    ],
)
def test_passwords_that_contradict_themselves_are_refused(options):
    with pytest.raises(ValueError, match="user a: "):
        User(name="a", **options)


def with_secret(target, password):
    secret = Secret(name="admin-password", env="PASSWORD")
    user = User(name="old", password_secret="admin-password")
    with target.secrets({"admin-password": password}):
        Users(users=(user,), secrets=(secret,)).run(target)


def test_a_password_from_a_secret_is_never_an_argument(debian):
    with_secret(debian, "grüße; $(id)".encode())
    command = debian.only("chpasswd")
    assert command.argv == ("chpasswd",)
    assert command.stdin == "old:grüße; $(id)\n"


def test_a_password_is_one_line(debian):
    with pytest.raises(StageError, match="one line"):
        with_secret(debian, b"one\nroot:two")
    assert debian.commands == []


def test_a_password_names_a_secret_of_the_stage():
    with pytest.raises(ValueError, match="no secret of the name"):
        Users(users=(User(name="a", password_secret="other"),))
    with pytest.raises(ValueError, match="excludes a hash"):
        User(name="a", password_secret="x", password_hash="*")
