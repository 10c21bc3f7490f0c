"""QEMU itself accepts every kind of device and every static address; no guest runs."""

import subprocess
from ipaddress import IPv4Address, IPv4Interface
from itertools import product
from pathlib import Path

import pytest
from particle_os.vm.argv import MIB, Disk, Forward, MachineSpec, qemu_argv
from particle_os.vm.devices.hardware import CARD_MODELS, DISK_BUSES, MOST_DISKS, Hardware
from particle_os.vm.devices.user_network import UserNetwork

from ....waiting import HANG_SECONDS

ADDRESSES = [
    None,
    UserNetwork(IPv4Interface("192.0.2.10/24"), IPv4Address("192.0.2.1")),
    UserNetwork(IPv4Interface("192.0.2.10/24"), IPv4Address("192.0.2.2")),
    UserNetwork(IPv4Interface("192.0.2.10/24"), IPv4Address("192.0.2.3")),
    UserNetwork(IPv4Interface("192.0.2.2/24")),
    UserNetwork(IPv4Interface("192.0.2.1/30"), IPv4Address("192.0.2.2")),
    UserNetwork(IPv4Interface("192.0.2.0/31"), IPv4Address("192.0.2.1")),
    UserNetwork(IPv4Interface("192.0.2.10/32"), IPv4Address("172.31.1.1")),
    UserNetwork(IPv4Interface("10.9.8.7/3")),
]


def told(tmp_path, spec):
    """The answer of a machine that does not run about its network and its disks."""
    (tmp_path / "hmp.in").write_text("info usernet\ninfo blockstats\nquit\n")
    argv = [*qemu_argv(spec), "-S", "-chardev", "file,id=hmp,path=hmp.out,input-path=hmp.in"]
    argv += ["-mon", "chardev=hmp,mode=readline"]
    done = subprocess.run(
        argv, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=HANG_SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return (tmp_path / "hmp.out").read_text()


def spec_of(tmp_path, hardware, **options):
    names = [f"a,b={number}.raw" for number in range(MOST_DISKS)]
    for name in names:
        (tmp_path / name).touch()
        (tmp_path / name).open("rb+").truncate(MIB)
    disks = tuple(Disk(Path(name), "raw", f"disk{index}") for index, name in enumerate(names))
    return MachineSpec("tcg", 64 * MIB, 1, disks=disks, hardware=hardware, **options)


@pytest.mark.slow
@pytest.mark.parametrize(("disk", "card"), list(product(DISK_BUSES, CARD_MODELS)))
def test_every_kind_of_disk_and_card(tmp_path, disk, card):
    hardware = Hardware(disk, card)
    answer = told(tmp_path, spec_of(tmp_path, hardware, network="isolated"))
    assert answer.count("rd_operations") == MOST_DISKS


@pytest.mark.slow
@pytest.mark.parametrize("addresses", ADDRESSES)
def test_the_host_reaches_a_static_address(tmp_path, addresses):
    spec = MachineSpec(
        "tcg", 64 * MIB, 1, network="isolated", forwards=(Forward(8080),), addresses=addresses
    )
    guest = "10.0.2.15" if addresses is None else str(addresses.guest.ip)
    (forward,) = [line for line in told(tmp_path, spec).splitlines() if "HOST_FORWARD" in line]
    assert forward.split()[4:6] == [guest, "8080"]
