import pytest
from particle_agent.stages.settings.hostname import Hostname


def test_a_base_without_hosts_gets_them(target):
    Hostname(hostname="web1").run(target)
    assert target.read("/etc/hostname") == "web1\n"
    hosts = target.read("/etc/hosts").splitlines()
    assert hosts[0] == "127.0.1.1 web1"
    assert "127.0.0.1 localhost" in hosts


@pytest.mark.parametrize("before", ["127.0.1.1 old.example old\n", "127.0.1.1\told", ""])
def test_only_the_line_of_the_own_name_changes(target, before):
    target.write("/etc/hosts", f"127.0.0.1 localhost\n{before}")
    Hostname(hostname="web1.example.org").run(target)
    assert target.read("/etc/hosts") == "127.0.1.1 web1.example.org web1\n127.0.0.1 localhost\n"
