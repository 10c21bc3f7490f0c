import pytest
from particle_agent.errors import StageError
from particle_agent.stages.settings.services import Services


@pytest.fixture
def debian(target):
    target.write("/bin/systemctl", "")
    for name in ("ssh.service", "getty@.service", "apt-daily.timer", "nginx.service"):
        target.write(f"/usr/lib/systemd/system/{name}", "")
    target.write("/etc/init.d/old", "")
    return target


def systemctl(target):
    return [c.argv[2:] for c in target.commands if c.argv[0] == "systemctl" and c.inside]


def test_units_are_enabled_disabled_and_masked(debian):
    Services(
        enable=("nginx.service", "getty@tty2.service", "old.service"),
        disable=("ssh.service",),
        mask=("apt-daily.timer",),
    ).run(debian)
    enabled = ("nginx.service", "getty@tty2.service", "old.service")
    assert systemctl(debian) == [
        ("unmask", "--", *enabled),
        ("enable", "--", *enabled),
        ("disable", "--", "ssh.service"),
        ("mask", "--", "apt-daily.timer"),
    ]


@pytest.mark.parametrize("verb", ["enable", "disable", "mask"])
def test_a_unit_that_does_not_exist_is_reported_before_anything_changes(debian, verb):
    options = {"enable": ("ssh.service",), verb: ("ngnix.service",)}
    with pytest.raises(StageError, match=r"no unit ngnix\.service") as raised:
        Services(**options).run(debian)
    assert "nginx.service" in raised.value.hint
    assert systemctl(debian) == []


def test_an_instance_needs_its_template(debian):
    with pytest.raises(StageError, match="no unit"):
        Services(enable=("ssh@one.service",)).run(debian)


def test_an_image_without_systemd_is_reported(target):
    with pytest.raises(StageError, match="no systemctl") as raised:
        Services(enable=("ssh.service",)).run(target)
    assert "systemd-sysv" in raised.value.hint
