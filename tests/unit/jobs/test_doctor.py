import functools
import json
import platform
import re
import shutil
from pathlib import Path

import pytest
from particle_os.architecture import AMD64, ARM64, usual
from particle_os.jobs.host import doctor
from particle_os.system import host_packages, process
from particle_os.vm import accel, firmware

OS_RELEASES = {
    "debian": {"ID": "debian", "VERSION_CODENAME": "trixie"},
    "ubuntu": {"ID": "ubuntu", "ID_LIKE": "debian", "PRETTY_NAME": "Ubuntu 24.04.3 LTS"},
    "fedora": {"ID": "fedora"},
    "arch": {"ID": "manjaro", "ID_LIKE": "arch"},
    "opensuse": {"ID": "opensuse-leap", "ID_LIKE": "suse opensuse"},
    "unknown": {"ID": "gentoo"},
}


# Each program is asked for its version once, and not by each test.
VERSION = functools.cache(process.version)


@pytest.fixture(autouse=True)
def versions(monkeypatch):
    monkeypatch.setattr(process, "version", VERSION)


def on(monkeypatch, host):
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: OS_RELEASES[host])


@pytest.fixture(autouse=True)
def debian(monkeypatch):
    on(monkeypatch, "debian")


def finding(what):
    (found,) = [each for each in doctor.examine() if each.what == what]
    return found


@pytest.mark.parametrize(("name", "status"), [("skopeo", "warning"), ("zstd", "missing")])
def test_a_missing_program_is_reported_with_its_package(monkeypatch, name, status):
    which = shutil.which
    monkeypatch.setattr(
        shutil, "which", lambda program, **how: None if program == name else which(program, **how)
    )
    (found,) = [finding for finding in doctor.examine() if finding.what == name]
    assert found.status == status
    assert found.advice == f"sudo apt install {name}"


def test_an_installed_program_is_reported_with_its_version():
    (found,) = [finding for finding in doctor.examine() if finding.what == "skopeo"]
    assert found.status == "ok"
    assert "version" in found.detail


@pytest.mark.parametrize(
    ("kernel", "detail"),
    [(None, "when it was last tried, it spins"), ("another", "/dev/kvm opens; the first build")],
)
def test_a_trial_of_kvm_counts_for_its_own_kernel_only(
    monkeypatch, tmp_path, own_cache, kernel, detail
):
    (tmp_path / "kvm").touch()
    monkeypatch.setattr(accel, "DEVICE", tmp_path / "kvm")
    trial = {"key": accel._trial_key(usual()), "works": False, "reason": "it spins"}
    own_cache.mkdir(parents=True)
    (own_cache / accel.KVM_MEMORY).write_text(json.dumps(trial))
    if kernel is not None:
        monkeypatch.setattr(accel.platform, "release", lambda: kernel)
    assert finding("KVM").detail.startswith(detail)


@pytest.mark.parametrize(("abi", "status"), [(0, "warning"), (6, "ok")])
def test_a_kernel_without_landlock_is_reported(monkeypatch, abi, status):
    monkeypatch.setattr(doctor, "landlock_abi", lambda: abi)
    (found,) = [finding for finding in doctor.examine() if finding.what == "Landlock"]
    assert found.status == status


@pytest.mark.parametrize(
    ("host", "need", "advice"),
    [
        ("ubuntu", "qemu-img", "sudo apt install qemu-utils"),
        ("fedora", "qemu-img", "sudo dnf install qemu-img"),
        ("fedora", "uefi", "sudo dnf install edk2-ovmf"),
        ("fedora", str(doctor.KEYRING), "sudo dnf install debian-keyring"),
        ("arch", "qemu-img", "sudo pacman -S qemu-img"),
        ("arch", "mmdebstrap", "install mmdebstrap from the AUR"),
        ("opensuse", "uefi", "sudo zypper install qemu-ovmf-x86_64"),
        ("unknown", "uefi", "install your distribution's equivalent of Debian's package ovmf"),
    ],
)
def test_the_advice_names_the_package_of_the_hosts_distribution(monkeypatch, host, need, advice):
    on(monkeypatch, host)
    assert host_packages.advice(need) == advice


@pytest.mark.parametrize(
    ("host", "command"),
    [
        ("debian", "sudo apt install qemu-utils mmdebstrap zstd"),
        ("arch", "sudo pacman -S qemu-img zstd"),
        ("unknown", None),
    ],
)
def test_one_command_installs_all_that_is_missing(monkeypatch, host, command):
    on(monkeypatch, host)
    needs = ["qemu-img", "mmdebstrap", "zstd", "zstd"]
    assert host_packages.at_once([host_packages.advice(need) for need in needs]) == command
    assert host_packages.at_once([host_packages.advice("zstd")]) is None


def test_a_distribution_without_a_package_gets_a_way_round(monkeypatch):
    on(monkeypatch, "opensuse")
    assert "no package of Debian's mmdebstrap" in host_packages.advice("mmdebstrap")


def test_a_host_without_a_name_gets_debians_names(monkeypatch):
    monkeypatch.setattr(platform, "freedesktop_os_release", raise_os_error)
    assert host_packages.advice("zstd").endswith("Debian's package zstd")
    assert finding("host").status == "ok"


def raise_os_error():
    raise OSError("no os-release")


@pytest.mark.parametrize("need", [*doctor.PROGRAMS, *doctor.OPTIONAL, "uefi", str(doctor.KEYRING)])
def test_each_requirement_has_a_package_in_each_family(need):
    assert set(host_packages.packages(need)) == set(host_packages.FAMILIES)


def test_every_requirement_of_builds_is_examined():
    text = (Path(host_packages.__file__).parent / "host_packages.txt").read_text()
    needs = re.findall(r"^([^#\s]\S*) +(?:build|amd64)", text, re.MULTILINE)
    known = {AMD64.vm.qemu, *doctor.PROGRAMS, *doctor.OPTIONAL, "uefi", str(doctor.KEYRING)}
    # A build needs no module venv: particle-os is installed by then.
    assert set(needs) - {"venv"} == known


@pytest.mark.parametrize(("limit", "told"), [("1\n", True), ("0\n", False), (None, False)])
def test_ubuntu_is_named_and_its_limit_reasoned(monkeypatch, tmp_path, limit, told):
    on(monkeypatch, "ubuntu")
    monkeypatch.setattr(doctor, "NAMESPACE_LIMIT", tmp_path / "limit")
    if limit is not None:
        (tmp_path / "limit").write_text(limit)
    found = finding("host")
    assert found.status == "ok"
    assert found.detail.startswith("Ubuntu 24.04.3 LTS")
    assert ("AppArmor limits user namespaces, which does not matter" in found.detail) == told


def test_only_debian_12_is_told_of_its_backports(monkeypatch):
    monkeypatch.setattr(doctor, "SLOW_QEMU", 1000)
    assert "backports" not in finding("qemu-system-x86_64").advice
    monkeypatch.setitem(OS_RELEASES, "debian", {"ID": "debian", "VERSION_CODENAME": "bookworm"})
    assert "(bookworm-backports)" in finding("qemu-system-x86_64").advice


FILES = firmware.UefiFiles(Path("/f/code"), Path("/f/vars"))


@pytest.mark.parametrize(
    ("present", "status", "advice"),
    [
        ((), "warning", "sudo apt install ovmf; without it"),
        (("uefi",), "warning", "boot tests under uefi-secure need"),
        (("uefi", "uefi-secure"), "ok", ""),
    ],
)
def test_firmware_is_reported(monkeypatch, present, status, advice):
    monkeypatch.setattr(firmware, "find", lambda name, whose: FILES if name in present else None)
    found = finding("UEFI firmware")
    assert found.status == status
    assert (found.advice or "").startswith(advice)
    assert ("/f/code" in found.detail) == bool(present)


@pytest.mark.parametrize(
    ("programs", "files", "status", "words"),
    [
        ((), (), "warning", "qemu-system-aarch64 not installed, UEFI firmware not installed"),
        (("qemu-system-aarch64",), (), "warning", "not possible: UEFI firmware not installed"),
        (("qemu-system-aarch64",), ("uefi",), "ok", "built in emulated machines"),
    ],
)
@pytest.mark.usefixtures("asked_anew")
def test_what_images_of_another_architecture_lack_is_told(
    monkeypatch, programs, files, status, words
):
    which = shutil.which
    monkeypatch.setattr(
        shutil,
        "which",
        lambda program, **how: (
            (program if program in programs else None)
            if program == ARM64.vm.qemu
            else which(program, **how)
        ),
    )
    monkeypatch.setattr(
        process,
        "version",
        lambda name: "QEMU emulator version 10.0.2" if "aarch64" in name else VERSION(name),
    )
    monkeypatch.setattr(
        firmware, "find", lambda name, whose: FILES if whose is not ARM64 or name in files else None
    )
    found = finding("images of arm64")
    assert found.status == status
    assert words in found.detail
    missing = {"sudo apt install qemu-efi-aarch64"} if status == "warning" else set()
    assert missing <= {*(found.advice or "").split("; ")}


def with_qemu(monkeypatch, version):
    """Gives the host all programs of QEMU, of one version."""
    monkeypatch.setattr(shutil, "which", lambda program, **how: f"/usr/bin/{program}")
    monkeypatch.setattr(
        process, "version", lambda name: f"QEMU emulator version {version} (Debian)"
    )


@pytest.mark.usefixtures("asked_anew")
def test_a_qemu_that_is_too_old_for_the_other_architecture_is_told(monkeypatch):
    with_qemu(monkeypatch, "7.2.19")
    monkeypatch.setattr(doctor, "usual", lambda: AMD64)
    monkeypatch.setattr(firmware, "find", lambda name, whose: FILES)
    found = finding("images of arm64")
    assert (found.status, found.advice) == ("warning", "install QEMU 10.0 or later")
    assert found.detail == "not possible: qemu-system-aarch64 7.2 is too old"
    # A worker offers what its builds can do.
    assert doctor.architectures() == ["amd64"]


@pytest.mark.usefixtures("asked_anew")
@pytest.mark.parametrize(
    ("own", "version", "status"),
    [
        (AMD64, "7.0.1", "missing"),
        (AMD64, "7.2.19", "warning"),
        (AMD64, "10.0.2", "ok"),
        (ARM64, "9.2.0", "missing"),
        (ARM64, "10.0.2", "ok"),
    ],
)
def test_the_hosts_own_qemu_is_compared_with_the_least_version(monkeypatch, own, version, status):
    with_qemu(monkeypatch, version)
    monkeypatch.setattr(doctor, "usual", lambda: own)
    monkeypatch.setitem(OS_RELEASES, "debian", {"ID": "debian", "VERSION_CODENAME": "bookworm"})
    found = finding(own.vm.qemu)
    assert found.status == status
    if status == "missing":
        least = ".".join(map(str, own.vm.least_qemu))
        assert found.advice == f"install QEMU {least} or later (bookworm-backports)"


@pytest.mark.usefixtures("asked_anew")
def test_a_foreign_pc_without_uefi_still_boots_with_its_bios(monkeypatch):
    with_qemu(monkeypatch, "10.0.2")
    monkeypatch.setattr(doctor, "usual", lambda: ARM64)
    monkeypatch.setattr(firmware, "find", lambda name, whose: FILES if whose is ARM64 else None)
    assert doctor.architectures() == ["amd64", "arm64"]
    found = finding("images of amd64")
    assert found.status == "warning"
    assert found.detail.endswith("for BIOS only")
    assert found.advice.startswith("sudo apt install ovmf")


@pytest.mark.usefixtures("asked_anew")
def test_a_host_of_arm64_needs_its_uefi(monkeypatch):
    with_qemu(monkeypatch, "10.0.2")
    monkeypatch.setattr(doctor, "usual", lambda: ARM64)
    monkeypatch.setattr(firmware, "find", lambda name, whose: None)
    found = finding("UEFI firmware")
    assert (found.status, found.advice) == ("missing", "sudo apt install qemu-efi-aarch64")
