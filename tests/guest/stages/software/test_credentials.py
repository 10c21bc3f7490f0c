import pytest
from particle_agent.contract.options import Faults
from particle_agent.errors import StageError
from particle_agent.stages.base import Secret
from particle_agent.stages.software.apt import Apt
from particle_agent.stages.software.preparation import PASSWORDS, Credential, passwords

PRIVATE = Credential(machine="https://packages.example.org/private", secret="login")


@pytest.fixture
def debian(target):
    for program in ("/usr/bin/apt-get", "/bin/sh"):
        target.write(program, "")
    return target


def stage():
    secret = Secret(name="login", env="LOGIN")
    return Apt(
        packages=("tool",), secrets=(secret,), credentials=(PRIVATE,), architectures=("i386",)
    )


def test_apt_gets_the_password_and_the_image_does_not(debian, monkeypatch):
    monkeypatch.setattr("particle_agent.stages.software.apt.check_installed", lambda *_: None)
    seen = []
    debian.when(
        "apt-get", lambda c: seen.append((debian.read(PASSWORDS), debian.mode(PASSWORDS), c.argv))
    )
    with debian.secrets({"login": b"ann:pass:word\n"}):
        stage().run(debian)
    assert len(seen) == 2  # update, install
    for text, mode, argv in seen:
        assert text == f"machine {PRIVATE.machine} login ann password pass:word\n"
        assert mode == 0o600
        assert f"-oDir::Etc::netrc={PASSWORDS}" in argv
        assert "pass:word" not in " ".join(argv)
    assert not debian.exists(PASSWORDS)
    assert debian.report.requests == []
    assert debian.commands[0].argv == ("dpkg", "--add-architecture", "i386")


def test_the_images_own_passwords_stay_beside_those_of_the_stage(debian):
    """The option of apt names one file, which replaces /etc/apt/auth.conf."""
    own = "machine mirror.example.org login image password own\n"
    debian.write("/etc/apt/auth.conf", own, mode=0o600)
    with debian.secrets({"login": b"ann:x"}), passwords(debian, [PRIVATE]):
        assert debian.read(PASSWORDS) == f"machine {PRIVATE.machine} login ann password x\n{own}"
    assert debian.read("/etc/apt/auth.conf") == own


@pytest.mark.parametrize(
    "text", [b"ann", b":x", b"ann:", b"ann:a b", b"ann:x\nmachine y", b"a\0:b"]
)
def test_another_text_is_no_credential_and_is_not_shown(debian, text):
    with (
        debian.secrets({"login": text}),
        pytest.raises(StageError, match="USER:PASSWORD") as raised,
    ):
        with passwords(debian, (PRIVATE,)):
            pass
    assert text.decode() not in str(raised.value)
    assert not debian.exists(PASSWORDS)


def test_a_secret_that_the_stage_lacks_is_reported_without_it():
    with pytest.raises(Faults, match="the stage has no such secret") as raised:
        Apt(credentials=(Credential(machine="packages.example.org", secret="hunter2"),))
    assert "hunter2" not in str(raised.value)
