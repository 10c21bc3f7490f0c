import os
import re
import subprocess
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from particle_os.boot.evidence import (
    COMMAND,
    LOST_TIMER,
    SCREEN,
    Evidence,
    by_hand,
    console_tail,
    is_open_to_others,
)
from particle_os.errors import InfrastructureError, VmError
from particle_os.system.gate import Gate
from particle_os.vm import firmware as firmwares
from particle_os.vm.argv import Disk, MachineSpec, Uefi
from particle_os.vm.devices.hardware import Hardware
from particle_os.vm.firmware import UefiFiles

from ...waiting import HANG_SECONDS

SPEC = MachineSpec(
    accelerator="tcg",
    memory=1 << 30,
    cpus=2,
    disks=(Disk(Path("/private/work/overlay.qcow2"), "qcow2", "image"),),
    network="isolated",
    credentials={"particle-os.probe": b"secret nonce"},
    probe_socket="probe.sock",
    firmware_socket="firmware.sock",
)
UEFI = Uefi(Path("/usr/share/OVMF/OVMF_CODE_4M.fd"), Path("/private/work/uefi-variables.fd"))


def stand_in(directory, name, script):
    program = directory / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def run(script, tmp_path, *arguments, **environment):
    """Runs boot.sh with stand-in programs that record their arguments; returns the records."""
    done = start(script, tmp_path, *arguments, **environment)
    assert done.returncode == 0, done.stderr
    return (tmp_path / "recorded").read_text().splitlines()


def start(script, tmp_path, *arguments, **environment):
    programs = tmp_path / "bin"
    programs.mkdir(exist_ok=True)
    recorded = tmp_path / "recorded"
    for name in ("qemu-img", "qemu-system-x86_64", "cp"):
        stand_in(programs, name, f'printf "%s\\n" {name} "$PWD" "$@" >>{recorded}')
    return subprocess.run(
        ["sh", script, *arguments],
        env={"PATH": f"{programs}:/usr/bin:/bin", "TMPDIR": str(tmp_path), **environment},
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
    )


def test_the_command_boots_the_image_where_it_lies_and_leaves_nothing(tmp_path):
    image = tmp_path / "out" / "it's $(an) image.raw"
    image.parent.mkdir()
    image.touch()
    evidence = Evidence(
        tmp_path / "out/x.evidence/bios", Path("../..") / image.name, plot=False, gate=Gate()
    )
    evidence.clear()
    evidence.begin(SPEC, "raw", "bios")
    recorded = run(evidence.directory / COMMAND, tmp_path, "-display", "gtk")
    assert recorded[0] == "qemu-img"
    assert recorded[recorded.index("-b") + 1] == str(image)
    assert recorded[recorded.index("-F") + 1] == "raw"
    assert recorded[-2:] == ["-display", "gtk"]
    assert "stdio,id=console,signal=off,mux=on,logfile=console.log" in recorded
    # Neither the test's private directory nor the questions for the system.
    assert not [word for word in recorded if "/private" in word or "smbios" in word]
    assert not [word for word in recorded if "probe" in word or "firmware" in word]
    assert not Path(recorded[1]).exists()


@pytest.mark.parametrize(
    ("name", "format_", "told_to_qemu"),
    [
        ("other.qcow2", "", "qcow2"), ("other.vmdk", "", "vmdk"), ("other.vdi", "", "vdi"),
        ("other.vhd", "", "vpc"), ("other.raw", "", "raw"), ("other", "", "raw"),
        ("other.img", "qcow2", "qcow2"),
    ],
)  # fmt: skip
def test_the_command_takes_another_image_of_any_format(tmp_path, name, format_, told_to_qemu):
    script = tmp_path / COMMAND
    script.write_text(by_hand(SPEC, Path("/not/there.vdi"), "vdi", "bios"))
    other = tmp_path / name
    other.touch()
    recorded = run(script, tmp_path, IMAGE=str(other), FORMAT=format_)
    assert recorded[recorded.index("-b") + 1] == str(other)
    assert recorded[recorded.index("-F") + 1] == told_to_qemu


def test_the_command_says_how_to_unpack_the_image(tmp_path):
    script = tmp_path / COMMAND
    script.write_text(by_hand(SPEC, Path("x.raw"), "raw", "bios"))
    (tmp_path / "x.raw.zst").touch()
    for environment in ({}, {"IMAGE": str(tmp_path / "x.raw.zst")}):
        done = start(script, tmp_path, **environment)
        assert done.returncode == 1
        assert f"zstd -d '{tmp_path}/x.raw.zst'" in done.stderr
    (tmp_path / "x.raw").touch()
    recorded = run(script, tmp_path)
    assert recorded[recorded.index("-b") + 1] == str(tmp_path / "x.raw")


@pytest.mark.parametrize("firmware", ["uefi", "uefi-secure"])
def test_the_command_has_the_firmware(tmp_path, firmware, monkeypatch):
    files = UefiFiles(UEFI.code, Path(f"/f/{firmware}.vars"))
    monkeypatch.setattr(
        firmwares, "find", lambda name, architecture: files if name == firmware else None
    )
    spec = replace(SPEC, uefi=replace(UEFI, secure=firmware == "uefi-secure"))
    script = tmp_path / COMMAND
    script.write_text(by_hand(spec, tmp_path, "raw", firmware))
    recorded = run(script, tmp_path)
    copied = recorded[recorded.index("cp") :]
    assert copied[2].startswith("--")
    assert copied[3] == f"/f/{firmware}.vars"
    assert copied[4] == "uefi-variables.fd"
    assert any('"filename": "uefi-variables.fd"' in word for word in recorded)


def test_the_screen_is_kept(tmp_path):
    directory = tmp_path / "machine"
    directory.mkdir()
    evidence = Evidence(tmp_path / "evidence", Path("image"), plot=False, gate=Gate())
    evidence.clear()
    evidence.begin(SPEC, "raw", "bios")

    def screendump(file, deadline):
        (directory / file).write_bytes(b"picture")

    monitor = SimpleNamespace(screendump=screendump)
    evidence.take_screen(SimpleNamespace(monitor=monitor, directory=directory))
    assert (evidence.directory / SCREEN).read_bytes() == b"picture"


def test_a_machine_that_has_gone_has_no_screen(tmp_path):
    def screendump(file, deadline):
        raise VmError("QEMU closed its monitor")

    evidence = Evidence(tmp_path, Path("image"), plot=False, gate=Gate())
    monitor = SimpleNamespace(screendump=screendump)
    evidence.take_screen(SimpleNamespace(monitor=monitor, directory=tmp_path))
    assert not (tmp_path / SCREEN).exists()


def test_the_end_of_a_long_console_is_readable(tmp_path):
    path = tmp_path / "console.log"
    assert console_tail(path) == []
    path.write_bytes(
        b"x" * 1_000_000
        + b"\r\n\x1b]104\x07\x1b]8;;x\x1b\\\x1b[31mred\x1b[0m \x07\xff\r\n\r\nlogin: "
    )
    cut, *rest = console_tail(path)
    assert set(cut) == {"x"}
    assert rest == ["red \\x07\ufffd", "login: "]


def test_others_can_plant_no_link_in_the_place_of_evidence(tmp_path):
    (tmp_path / "open").mkdir(mode=0o777)
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "open/console.log").symlink_to(tmp_path / "victim")
    evidence = Evidence(tmp_path / "open", Path("x"), plot=False, gate=Gate())
    evidence.clear()
    assert [*evidence.directory.iterdir()] == []
    assert evidence.directory.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize(
    ("mode", "refused"),
    [(0o755, False), (0o700, False), (0o1777, False), (0o777, True), (0o775, True)],
)
def test_others_cannot_replace_the_directory_of_evidence(tmp_path, mode, refused):
    given = tmp_path / "given"
    given.mkdir()
    given.chmod(mode)
    evidence = Evidence(given / "bios", Path("x"), plot=False, gate=Gate())
    with pytest.raises(InfrastructureError, match="other users can") if refused else nullcontext():
        evidence.clear()
    assert evidence.directory.exists() != refused


@pytest.mark.parametrize(
    ("mode", "owner", "is_open"),
    [
        (0o040755, 1000, False),
        (0o040755, 0, False),
        (0o041777, 0, False),
        (0o120777, 1000, False),
        (0o040777, 0, True),
        (0o040755, 1001, True),
        (0o041777, 1001, True),
        (0o120777, 1001, True),
    ],
)
def test_a_directory_of_a_stranger_is_open_to_others(mode, owner, is_open):
    found = os.stat_result((mode, 1, 1, 1, owner, owner, 0, 0, 0, 0))
    assert is_open_to_others(found, 1000) == is_open


def test_a_new_directory_of_evidence_is_the_users_alone(tmp_path):
    before = os.umask(0)
    try:
        Evidence(tmp_path / "given" / "bios", Path("x"), plot=False, gate=Gate()).clear()
    finally:
        os.umask(before)
    assert (tmp_path / "given").stat().st_mode & 0o777 == 0o755


def test_a_link_and_the_directory_of_another_user_are_no_place_for_evidence(tmp_path, monkeypatch):
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim/console.log").touch()
    (tmp_path / "link").symlink_to("victim")
    for name, uid in (("link", os.geteuid()), ("victim", os.geteuid() + 1)):
        monkeypatch.setattr(os, "geteuid", lambda uid=uid: uid)
        with pytest.raises(InfrastructureError, match="is a link, or belongs to another user"):
            Evidence(tmp_path / name, Path("x"), plot=False, gate=Gate()).clear()
    assert (tmp_path / "victim/console.log").exists()


PORTS = 'printf "TCP[HOST_FORWARD] 13 127.0.0.1 40001 10.0.2.15 80 0 0\\r\\n" >monitor.out'
EMULATED = replace(SPEC, x2apic=True)


def starts(tmp_path, spec, qemu):
    """Runs boot.sh with a QEMU that does `qemu`; returns the processors of each start."""
    script, programs = tmp_path / COMMAND, tmp_path / "bin"
    script.write_text(by_hand(spec, tmp_path / "x.raw", "raw", "bios"))
    (tmp_path / "x.raw").touch()
    programs.mkdir(exist_ok=True)
    stand_in(programs, "qemu-img", "true")
    record = f'printf "%s\\n" "$*" >>{tmp_path}/starts'
    stand_in(programs, "qemu-system-x86_64", f"{record}\n{qemu}")
    done = subprocess.run(
        ["sh", script], env={"PATH": f"{programs}:/usr/bin:/bin", "TMPDIR": str(tmp_path)},
        capture_output=True, text=True, timeout=HANG_SECONDS,
    )  # fmt: skip
    lines = (tmp_path / "starts").read_text().splitlines()
    found = [(re.search(r"-smp (\d)", line)[1], "intel-iommu" in line) for line in lines]
    return done, found


@pytest.mark.parametrize("failure", ["kill -ABRT $$", f'echo "{LOST_TIMER}" >console.log'])
def test_the_command_starts_again_on_one_processor_as_the_test_does(tmp_path, failure):
    done, found = starts(tmp_path, EMULATED, failure)
    assert found == [("2", True), ("1", False), ("1", False)]
    assert "one processor" in done.stderr


@pytest.mark.parametrize("spec", [SPEC, EMULATED])
def test_the_command_starts_once_when_the_emulation_works(tmp_path, spec):
    done, found = starts(tmp_path, spec, "exit 3")
    assert (done.returncode, found) == (3, [("2", spec.x2apic)])


def test_the_command_shows_the_ports_that_were_chosen(tmp_path):
    # QEMU ends when the script has read its answer.
    done, _ = starts(tmp_path, SPEC, f"{PORTS}; while pgrep -P $PPID sh >/dev/null; do :; done")
    assert "port 80 of the image: 127.0.0.1:40001" in done.stdout


def test_the_command_has_the_disks_and_the_tpm_of_the_test(tmp_path):
    seed = tmp_path / "private/seed.img"
    seed.parent.mkdir()
    seed.write_bytes(b"the seed")
    disks = (*SPEC.disks, Disk(seed, "raw", "seed", read_only=True))
    evidence = Evidence(tmp_path / "evidence", tmp_path / "x.raw", plot=False, gate=Gate())
    evidence.clear()
    spec = replace(SPEC, disks=disks, hardware=Hardware(tpm=True))
    evidence.begin(spec, "raw", "bios")
    assert (evidence.directory / "seed.img").read_bytes() == b"the seed"
    text = (evidence.directory / COMMAND).read_text()
    assert str(seed) not in text
    assert "swtpm socket --tpm2" in text
    assert "swtpm" not in by_hand(SPEC, tmp_path, "raw", "bios")
