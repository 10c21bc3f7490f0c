import os

import pytest
from particle_agent.system import generalize
from particle_agent.system.hosts import DEFAULT_HOSTS

UNIT = "/etc/systemd/system/multi-user.target.wants/particle-os-ssh-host-keys.service"


def test_the_machine_id_is_empty_and_made_at_first_boot(target):
    target.write("/etc/machine-id", "0123456789abcdef0123456789abcdef\n")
    target.write("/var/lib/dbus/machine-id", "0123456789abcdef0123456789abcdef\n")
    generalize.run(target)
    assert target.read("/etc/machine-id") == ""
    assert target.mode("/etc/machine-id") == 0o444
    assert not target.exists("/var/lib/dbus/machine-id")


def test_dbus_takes_the_same_machine_id(target):
    target.write("/usr/bin/dbus-uuidgen", "")
    generalize.run(target)
    assert os.readlink(target.root / "var/lib/dbus/machine-id") == "/etc/machine-id"


def test_ssh_host_keys_go_and_come_back_at_first_boot(target):
    target.write("/usr/sbin/sshd", "")
    for name in ("ssh_host_rsa_key", "ssh_host_rsa_key.pub", "sshd_config"):
        target.write(f"/etc/ssh/{name}", "x")
    generalize.run(target)
    assert target.list("/etc/ssh") == ["sshd_config"]
    text = target.read(UNIT)
    assert "ssh-keygen -A" in text
    assert "Before=ssh.service" in text


def test_no_unit_is_made_without_an_ssh_server(target):
    generalize.run(target)
    assert not target.exists("/etc/systemd/system")


def test_the_host_gets_the_recipes_name_only_when_it_has_none(target):
    generalize.run(target)
    assert target.read("/etc/hostname") == "testbox\n"
    assert "127.0.1.1 testbox" in target.read("/etc/hosts")
    target.write("/etc/hostname", "chosen\n")
    generalize.run(target)
    assert target.read("/etc/hostname") == "chosen\n"


def test_traces_of_the_build_go(target):
    traces = [
        "/var/lib/systemd/random-seed",
        "/var/lib/systemd/credential.secret",
        "/var/log/apt/history.log",
        "/var/log/dpkg.log",
        "/root/.bash_history",
        "/var/lib/dpkg/status-old",
        "/var/cache/debconf/config.dat-old",
    ]
    kept = ["/var/lib/dpkg/status", "/var/cache/debconf/config.dat", "/var/log/wtmp"]
    for path in (*traces, *kept):
        target.write(path, "x")
    generalize.run(target)
    assert [path for path in traces if target.exists(path)] == []
    assert [path for path in kept if not target.exists(path)] == []


def test_directories_are_emptied_but_stay(target, tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("x")
    for path in ("/tmp/a/b", "/run/c", "/var/lib/apt/lists/d", "/var/cache/apt/archives/e.deb"):
        target.write(path, "x")
    (target.root / "tmp/link").symlink_to(precious)
    (target.root / "var/tmp").symlink_to(precious)
    generalize.empty(target.root)
    for path in ("/tmp", "/run", "/var/lib/apt/lists", "/var/cache/apt/archives"):
        assert target.path(path).is_dir()
        assert target.list(path) == []
    assert (precious / "file").exists()


@pytest.mark.parametrize("link", ["var", "var/lib"])
def test_a_link_to_a_directory_above_leads_to_no_directory_of_the_vm(target, tmp_path, link):
    (tmp_path / "outside/tmp").mkdir(parents=True)
    (tmp_path / "outside/apt/lists").mkdir(parents=True)
    (tmp_path / "outside/tmp/precious").write_text("x")
    (tmp_path / "outside/apt/lists/precious").write_text("x")
    place = target.root / link
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(tmp_path / "outside")
    generalize.empty(target.root)
    assert len(list((tmp_path / "outside").rglob("precious"))) == 2


def test_the_first_boot_does_not_do_again_what_the_packages_did(target):
    program = "/usr/lib/systemd/systemd-update-done"
    generalize.run(target)
    assert program not in target.programs()
    target.write(program, "", mode=0o755)
    generalize.run(target)
    assert target.only(program).inside


def test_the_hosts_of_a_new_base_get_the_name(target):
    target.write("/etc/hosts", DEFAULT_HOSTS)
    generalize.run(target)
    assert target.read("/etc/hosts") == f"127.0.1.1 testbox\n{DEFAULT_HOSTS}"


def test_hosts_that_somebody_has_written_stay(target):
    target.write("/etc/hosts", "127.0.0.1 localhost mine\n")
    generalize.run(target)
    assert target.read("/etc/hosts") == "127.0.0.1 localhost mine\n"
