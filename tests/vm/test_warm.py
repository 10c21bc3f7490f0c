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
from pathlib import Path
from particle_os.sandbox import helper, running
from particle_os.sandbox.template import load_template
from particle_os.system.deadline import Deadline
from particle_os.system.gate import Gate
from particle_os.vm import accel
from particle_os.vm.console import ConsoleLog
from particle_os.system.workspace import cache_directory, workspace

deadline = Deadline.after(300, "the test")
notes = []
with workspace() as work:
    made = helper.ensure(
        load_template("debian-trixie"), cache=cache_directory(), work=work,
        log=lambda line: None, note=lambda text: None,
    )
    resources = running.Resources(memory=2 << 30, cpus=2, scratch=1 << 30)
    with running.running_sandbox(
        made, accel.TCG, resources, directory=work.path / "vm", output=work.path / "output",
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


def start(account: Account) -> dict[str, str]:
    outcome = account.run("-c", SCRIPT, program="python")
    assert outcome.status == 0, outcome.stderr
    found = json.loads(outcome.stdout)
    assert isinstance(found, dict)
    return found


@pytest.fixture
def states(account: Account) -> list[Path]:
    """The saved states; makes one if no earlier test has."""
    start(account)
    return sorted((account.cache / "warm").glob("*.state"))


def test_two_restored_machines_have_other_keys_and_randomness(
    account: Account, states: list[Path]
) -> None:
    assert states
    assert all(state.stat().st_mode & 0o077 == 0 for state in states)
    one, two = start(account), start(account)
    assert [one["fork"], two["fork"]] == ["1", "1"], "both run from the saved memory"
    for secret in ("random", "uuid", "host-key"):
        assert one[secret] != two[secret]
    assert "ssh-ed25519" in one["host-key"]
    assert one["processors"] == "0-1"
    # The saved VM had placeholder disks: these sizes in sectors and read-only flags are the real
    # ones.
    sizes = ["scratch 2097152 0", "output 2048 0", f"packages {PACKAGES_BYTES // 512} 1"]
    assert one["disks"].splitlines()[1:] == sizes
    for found in (one, two):
        assert "KEY restored" not in found["console"], "the VM does not print its input"


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
