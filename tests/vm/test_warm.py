"""Helper VMs that start from one saved memory share no secrets."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from particle_os.sandbox.running import PACKAGES_BYTES

from .conftest import Account

# Starts a helper VM as a build does, and prints its random values and its devices.
SCRIPT = """
import json, sys
from particle_os.architecture import ARCHITECTURES
from pathlib import Path
from particle_os.sandbox import helper, running
from particle_os.sandbox.template import template_for
from particle_os.system.deadline import Deadline
from particle_os.system.gate import Gate
from particle_os.vm import accel
from particle_os.vm.console import ConsoleLog
from particle_os.system.workspace import cache_directory, workspace

architecture = ARCHITECTURES[sys.argv[1]]
deadline = Deadline.after(300, "the test")
notes = []
with workspace() as work:
    made = helper.ensure(
        template_for(None, architecture.name), cache=cache_directory(), work=work,
        log=lambda line: None, note=lambda text: None,
    )
    resources = running.Resources(memory=2 << 30, cpus=2, scratch=1 << 30)
    with running.running_sandbox(
        made, accel.emulated(architecture), resources,
        directory=work.path / "vm", output=work.path / "output",
        transcript=ConsoleLog(work.path / "console", Gate()), deadline=deadline,
        note=notes.append,
    ) as vm:
        def run(command):
            with vm.agent._connection.command(command, deadline) as channel:
                channel.settimeout(60)
                return channel.makefile("rb").read().decode()
        print(json.dumps({
            "random": run("head -c 32 /dev/urandom | od -An -tx1"),
            "uuid": run("cat /proc/sys/kernel/random/uuid"),
            "host-key": run("ssh-keygen -y -f /run/particle-os/host_key"),
            "getrandom": run("python3 -c 'import os; print(os.getrandom(32).hex())'"),
            "python": run("python3 -c 'import random; print(random.random())'"),
            # OpenSSL's generator of random numbers, by way of a program that uses it.
            "openssl": run(
                "ssh-keygen -q -t ecdsa -N '' -C '' -f /tmp/key && cat /tmp/key.pub; rm /tmp/key*"
            ),
            "processors": run("cat /sys/devices/system/cpu/online").strip(),
            "disks": run(
                "until ls /sys/block/*/serial | grep -q vdd; do busybox usleep 100000; done;"
                " for disk in /sys/block/vd*; do"
                " echo $(cat $disk/serial) $(cat $disk/size $disk/ro); done"
            ),
            "console": (work.path / "console").read_text(errors="replace"),
            "notes": " ".join(notes),
            "fork": run("dmesg | grep -c 'virtual machine fork' || true").strip(),
        }))
"""


SECRETS = ("random", "uuid", "host-key", "getrandom", "python", "openssl")
# Twenty machines are 190 pairs.
MACHINES = 20


def start(account: Account, architecture: str = "amd64") -> dict[str, str]:
    outcome = account.run("-c", SCRIPT, architecture, program="python")
    assert outcome.status == 0, outcome.stderr
    found = json.loads(outcome.stdout)
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def states(account: Account) -> list[Path]:
    """The saved states of the helper that `start` uses; those of other helpers are removed."""
    saved = account.cache / "warm"
    for state in saved.glob("*.state"):
        state.unlink()
    start(account)
    return sorted(saved.glob("*.state"))


def test_two_restored_machines_have_other_keys_and_randomness(
    account: Account, states: list[Path]
) -> None:
    assert states
    assert all(state.stat().st_mode & 0o077 == 0 for state in states)
    one, two = start(account), start(account)
    assert [one["fork"], two["fork"]] == ["1", "1"], "both run from the saved memory"
    for secret in SECRETS:
        assert one[secret] != two[secret]
    assert "ssh-ed25519" in one["host-key"]
    assert one["processors"] == "0-1"
    # The saved VM had placeholder disks: these sizes in sectors and read-only flags are the real
    # ones.
    sizes = ["scratch 2097152 0", "output 2048 0", f"packages {PACKAGES_BYTES // 512} 1"]
    assert one["disks"].splitlines()[1:] == sizes
    for found in (one, two):
        assert "KEY " not in found["console"], "the VM does not print its input"


@pytest.mark.weekly
@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
def test_no_two_of_many_restored_machines_share_a_random_value(
    account: Account, architecture: str
) -> None:
    start(account, architecture)
    found = [start(account, architecture) for _ in range(MACHINES)]
    for secret in SECRETS:
        values = [each[secret] for each in found]
        assert all(values)
        assert len(set(values)) == MACHINES, secret
    # Only one of the architectures has a device that notifies a kernel of the restore.
    forks = {each["fork"] for each in found}
    assert forks == ({"1"} if architecture == "amd64" else {"0"})
    assert not any("without its saved state" in each["notes"] for each in found)


def test_a_damaged_state_costs_a_boot_and_nothing_else(
    account: Account, states: list[Path]
) -> None:
    for state in states:
        with state.open("r+b") as file:
            file.seek(state.stat().st_size // 2)
            byte = file.read(1)[0]
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte ^ 1]))
    assert account.run("cache", "verify").status == 5
    remade = start(account)
    assert "ssh-ed25519" in remade["host-key"]
    assert "saved state of the helper VM is damaged" in remade["notes"]
    assert account.run("cache", "verify").status == 0, "a new state has replaced the damaged one"
    assert start(account)["fork"] == "1"
