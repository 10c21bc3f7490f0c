"""Tests the messages of host/setup.sh when a dependency of `make check` is missing."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
SH = shutil.which("sh")
# A stand-in for Python that fails when its program (the argument of -c) contains a word.
PYTHON = '#!/bin/sh\ncase "$2" in *{}*) exit 1 ;; esac\n'


# A stand-in for Python that makes a virtual environment whose pip has no network.
OFFLINE = """\
#!/bin/sh
[ "$1" = -m ] || exit 0
mkdir -p .venv/bin
cat >.venv/bin/pip <<END
#!/bin/sh
echo "WARNING: Retrying" >&2
echo "ERROR: No matching distribution found" >&2
exit 1
END
chmod +x .venv/bin/pip
"""


HOSTS = {
    "fedora": ("ID=fedora\n", "sudo dnf install", {"qemu-img", "edk2-ovmf", "debian-keyring"}),
    "rocky": ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', "sudo dnf install", {"mmdebstrap"}),
    "arch": ("ID=arch\n", "sudo pacman -S", {"qemu-system-x86", "debian-archive-keyring"}),
    "opensuse": (
        'ID="opensuse-tumbleweed"\nID_LIKE="opensuse suse"\n', "sudo zypper install",
        {"qemu-x86", "qemu-ovmf-x86_64", "dpkg"},
    ),
}  # fmt: skip


def setup(top, verb, prefix=(), more=(), **environment):
    return subprocess.run(
        [*prefix, SH, top / "host/setup.sh", verb, *more],
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def fresh(tmp_path):
    """A tree with the files of a fresh clone that host/setup.sh reads."""
    (tmp_path / "host").mkdir()
    shutil.copy(TOP / "host/setup.sh", tmp_path / "host/setup.sh")
    shutil.copy(TOP / "pyproject.toml", tmp_path / "pyproject.toml")
    return tmp_path


def test_missing_programs_are_named_by_their_packages():
    done = setup(TOP, "programs", PATH="/nonexistent")
    assert done.returncode == 2
    command = done.stderr.splitlines()[-1]
    assert command.startswith("sudo apt install ")
    assert {"qemu-utils", "skopeo", "squashfs-tools-ng", "zstd"} <= set(command.split())


def test_programs_that_are_there_are_not_named(tmp_path):
    for name in ("skopeo", "zstd"):
        (tmp_path / name).touch(0o755)
    named = setup(TOP, "programs", PATH=str(tmp_path)).stderr.split()
    assert "qemu-utils" in named
    assert not {"skopeo", "zstd"} & set(named)


@pytest.fixture
def bare(fresh):
    """A tree whose table of packages names a key file and firmware that the host does not have."""
    place = fresh / "host/particle_os/system"
    place.mkdir(parents=True)
    shutil.copy(TOP / "host/particle_os/system/host_packages.txt", place)
    table = place / "host_packages.txt"
    table.write_text(table.read_text().replace("/usr/share/keyrings", "/nonexistent"))
    script = fresh / "host/setup.sh"
    script.write_text(script.read_text().replace("/usr/share/", "/nonexistent/"))
    return fresh


@pytest.mark.parametrize("host", HOSTS)
def test_other_distributions_get_their_own_names(bare, host):
    text, command, named = HOSTS[host]
    (bare / "os-release").write_text(text)
    done = setup(bare, "packages", PATH="/nonexistent", OS_RELEASE=str(bare / "os-release"))
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("sudo ")]
    assert line.startswith(command)
    assert named <= set(line.split())
    assert not {"-", "ovmf", "qemu-utils"} & set(line.replace(command, "").split())
    assert not any(":" in word for word in line.split())


def test_what_a_distribution_has_no_package_of_is_told(bare):
    (bare / "os-release").write_text("ID=arch\n")
    where = {"PATH": "/nonexistent", "OS_RELEASE": str(bare / "os-release")}
    assert "from the AUR: mmdebstrap squashfs-tools-ng" in setup(bare, "packages", **where).stderr
    (bare / "os-release").write_text("ID=opensuse-leap\n")
    assert "no package of apt, mmdebstrap" in setup(bare, "packages", **where).stderr
    (bare / "os-release").write_text("ID=other\n")
    unknown = setup(bare, "packages", **where).stderr
    assert "equivalents of Debian's: qemu-system-x86 qemu-utils ovmf" in unknown


def test_set_up_looks_for_programs_and_not_for_packages(bare, tmp_path):
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    for name in ("qemu-img", "tar2sqfs", "gensquashfs", "dpkg-query"):
        (bin_ / name).touch(0o755)
    (bare / "os-release").write_text("ID=fedora\n")
    done = setup(bare, "packages", PATH=str(bin_), OS_RELEASE=str(bare / "os-release"))
    assert not {"qemu-img", "squashfs-tools-ng"} & set(done.stderr.split())
    assert "qemu-system-x86-core" in done.stderr


def test_another_kernel_gets_one_line(tmp_path):
    uname = tmp_path / "uname"
    uname.write_text("#!/bin/sh\necho Darwin\n")
    uname.chmod(0o755)
    done = setup(TOP, "packages", PATH=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr == "setup: particle-os runs on Linux, not on Darwin: use a Linux VM\n"


def test_a_missing_python_is_reported(fresh):
    done = setup(fresh, "venv", PYTHON="/nonexistent/python3")
    assert done.returncode == 2
    assert "there is no /nonexistent/python3" in done.stderr
    assert not (fresh / ".venv").exists()


@pytest.mark.parametrize(
    ("word", "message"),
    [("version_info", "is older than 3.11"), ("ensurepip", "sudo apt install python3-venv")],
)
def test_a_python_that_cannot_make_virtual_environments_is_reported(fresh, word, message):
    python = fresh / "python"
    python.write_text(PYTHON.format(word))
    python.chmod(0o755)
    done = setup(fresh, "venv", PYTHON=str(python))
    assert done.returncode == 2
    assert message in done.stderr
    assert not (fresh / ".venv").exists()


@pytest.mark.parametrize("place", [".", ".venv"])
def test_a_clone_that_cannot_be_written_is_reported(fresh, place):
    (fresh / place).mkdir(exist_ok=True)
    (fresh / place).chmod(0o555)
    # Without its capabilities, root has only the rights of an owner.
    prefix = ["setpriv", "--bounding-set=-all"] if os.getuid() == 0 else []
    done = setup(fresh, "venv", prefix)
    (fresh / place).chmod(0o755)
    assert done.returncode == 2
    assert f"you may not write to {(fresh / place).resolve()}." in done.stderr
    assert f"git clone {fresh}" in done.stderr
    assert "Errno" not in done.stderr
    assert not (fresh / ".venv/bin").exists()


def test_a_pip_without_a_network_is_reported(fresh):
    python = fresh / "python"
    python.write_text(OFFLINE)
    python.chmod(0o755)
    done = setup(fresh, "venv", PYTHON=str(python))
    assert done.returncode == 2
    assert "ERROR: No matching distribution found\nsetup: pip cannot install" in done.stderr
    assert "https_proxy" in done.stderr
    assert "PIP_FIND_LINKS" in done.stderr
    assert "Retrying" not in done.stderr
    assert "Retrying" in (fresh / ".venv/pip.log").read_text()
    assert not (fresh / ".venv/.installed").exists()


def test_an_interrupted_installation_is_finished_first(bare, tmp_path):
    """apt refuses to install anything before dpkg has configured what an interruption left."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("apt-get", "dpkg"):
        (programs / name).write_text('#!/bin/sh\necho "${0##*/}" "$1" >>"$CALLS"\n')
        (programs / name).chmod(0o755)
    calls = tmp_path / "calls"
    path = f"{programs}:/usr/bin:/bin"
    done = setup(bare, "install", PATH=path, BACKPORTS="0", CALLS=str(calls))
    assert done.returncode == 0, done.stderr
    assert calls.read_text() == "dpkg --configure\napt-get update\napt-get install\n"


@pytest.mark.parametrize(
    ("machine", "recipe", "option"),
    [("x86_64", "minimal-test", ""), ("aarch64", "arm64", "--architecture arm64 ")],
)
def test_the_demo_builds_what_its_machine_runs(fresh, machine, recipe, option):
    shutil.copy(TOP / "Makefile", fresh)
    (fresh / "host/setup.sh").write_text("exit 0\n")
    texts = {
        ".venv/bin/particle-os": '#!/bin/sh\necho "called $*"\n',
        "bin/uname": f"#!/bin/sh\necho {machine}\n",
    }
    for name, text in texts.items():
        (fresh / name).parent.mkdir(parents=True)
        (fresh / name).write_text(text)
        (fresh / name).chmod(0o755)
    done = subprocess.run(
        ["make", "--no-print-directory", "demo"], cwd=fresh, capture_output=True, text=True,
        check=True, env={"PATH": f"{fresh}/bin:/usr/bin:/bin"},
    )  # fmt: skip
    built, boot, _ = done.stdout.splitlines()
    assert built == f"called build recipes/{recipe}.yml --output out"
    assert boot.endswith(f": .venv/bin/particle-os run {option}out/{recipe}.qcow2")


@pytest.mark.parametrize(("machine", "named"), [("x86_64", False), ("aarch64", True)])
def test_the_tests_of_a_machine_of_arm64_need_a_pc(bare, machine, named):
    bin_ = bare / "bin"
    bin_.mkdir()
    (bin_ / "uname").write_text(f'#!/bin/sh\n[ "$1" = -m ] && echo {machine} || echo Linux\n')
    (bin_ / "uname").chmod(0o755)
    (bare / "os-release").write_text("ID=fedora\n")
    where = {"PATH": str(bin_), "OS_RELEASE": str(bare / "os-release")}
    words = {*setup(bare, "test-packages", **where).stderr.split()}
    assert {"qemu-system-arm", "qemu-efi-aarch64"} <= words
    assert ({"qemu-system-x86", "ovmf"} <= words) is named


def test_after_the_demo_the_program_is_found_as_printed(fresh):
    shutil.copy(TOP / "Makefile", fresh)
    (fresh / "host/setup.sh").write_text("exit 0\n")
    program = fresh / ".venv/bin/particle-os"
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\necho "called $1"\n')
    program.chmod(0o755)
    done = subprocess.run(
        ["make", "--no-print-directory", "demo"],
        cwd=fresh,
        capture_output=True,
        text=True,
        check=True,
    )
    _, boot, path = done.stdout.splitlines()
    for line in (boot, f"{path}; particle-os run"):
        script = line.partition(": ")[2]
        shown = subprocess.run(["sh", "-c", script], cwd=fresh, capture_output=True, text=True)
        assert shown.stdout == "called run\n", shown.stderr


def test_a_machine_of_arm64_gets_its_own_emulator_and_firmware(bare, tmp_path):
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    uname = bin_ / "uname"
    uname.write_text('#!/bin/sh\n[ "$1" = -m ] && echo aarch64 || echo Linux\n')
    uname.chmod(0o755)
    (bare / "os-release").write_text("ID=fedora\n")
    where = {"PATH": str(bin_), "OS_RELEASE": str(bare / "os-release")}
    words = set(setup(bare, "packages", **where).stderr.split())
    assert {"qemu-system-aarch64-core", "edk2-aarch64", "qemu-img"} <= words
    assert not {"qemu-system-x86-core", "edk2-ovmf"} & words
    uname.write_text('#!/bin/sh\n[ "$1" = -m ] && echo x86_64 || echo Linux\n')
    words = set(setup(bare, "packages", **where).stderr.split())
    assert {"qemu-system-x86-core", "edk2-ovmf"} <= words
    assert not {"qemu-system-aarch64-core", "edk2-aarch64"} & words


@pytest.mark.parametrize(
    ("machine", "interface", "target", "named"),
    [
        ("x86_64", "uefi", "x86_64", False),
        ("x86_64", "uefi", "aarch64", True),
        ("x86_64", "bios", "x86_64", True),
        ("aarch64", "uefi", "aarch64", False),
        ("aarch64", "uefi", "x86_64", True),
    ],
)
def test_firmware_counts_only_with_uefi_and_for_the_machines(
    bare, machine, interface, target, named
):
    """Debian's firmware for arm64 is no firmware of a PC, and a BIOS is no UEFI."""
    uname = bare / "bin/uname"
    uname.parent.mkdir()
    uname.write_text(f'#!/bin/sh\n[ "$1" = -m ] && echo {machine} || echo Linux\n')
    uname.chmod(0o755)
    share = bare / "share"
    (share / "qemu/firmware").mkdir(parents=True)
    (share / "qemu/firmware/60-some.json").write_text(
        f'{{"interface-types": ["{interface}"], "targets": [{{"architecture": "{target}"}}]}}'
    )
    script = bare / "host/setup.sh"
    script.write_text(script.read_text().replace("/nonexistent/", f"{share}/"))
    (bare / "os-release").write_text("ID=fedora\n")
    where = {"PATH": f"{uname.parent}:/usr/bin:/bin", "OS_RELEASE": str(bare / "os-release")}
    words = setup(bare, "packages", **where).stderr.split()
    firmware = {"x86_64": "edk2-ovmf", "aarch64": "edk2-aarch64"}[machine]
    assert "debian-keyring" in words
    assert (firmware in words) is named


@pytest.mark.parametrize(
    ("machine", "more", "named"),
    [
        ("x86_64", [], {"x86"}),
        ("x86_64", ["amd64"], {"x86"}),
        ("x86_64", ["arm64"], {"x86", "arm"}),
        ("aarch64", [], {"arm"}),
        ("aarch64", ["arm64", "amd64"], {"x86", "arm"}),
    ],
)
def test_the_architectures_that_are_named_get_their_emulator_and_firmware(
    bare, machine, more, named
):
    bin_ = bare / "bin"
    bin_.mkdir()
    (bin_ / "uname").write_text(f'#!/bin/sh\n[ "$1" = -m ] && echo {machine} || echo Linux\n')
    (bin_ / "uname").chmod(0o755)
    (bare / "os-release").write_text("ID=fedora\n")
    where = {"PATH": str(bin_), "OS_RELEASE": str(bare / "os-release")}
    words = setup(bare, "packages", more=more, **where).stderr.split()
    pairs = {
        "x86": {"qemu-system-x86-core", "edk2-ovmf"},
        "arm": {"qemu-system-aarch64-core", "edk2-aarch64"},
    }
    for name, pair in pairs.items():
        assert pair & {*words} == (pair if name in named else set())


def test_an_unknown_architecture_is_refused(bare):
    done = setup(bare, "packages", more=["arm46"])
    assert done.returncode == 2
    assert done.stderr.startswith("setup: there is no architecture 'arm46'")


def test_root_installs_for_the_named_architectures(bare, tmp_path):
    programs = tmp_path / "programs"
    programs.mkdir()
    bodies = {"apt-get": 'echo "$@" >>"$CALLS"', "dpkg": "", "id": "echo 0"}
    for name, body in bodies.items():
        (programs / name).write_text(f"#!/bin/sh\n{body}\n")
        (programs / name).chmod(0o755)
    (bare / "os-release").write_text("ID=debian\n")
    calls = tmp_path / "calls"
    # Only the programs that the script itself calls.
    for name in ("sh", "uname", "grep"):
        (programs / name).symlink_to(shutil.which(name))
    more = {"OS_RELEASE": str(bare / "os-release"), "BACKPORTS": "0", "CALLS": str(calls)}
    done = setup(bare, "packages", more=["amd64", "arm64"], PATH=str(programs), **more)
    assert done.returncode == 0, done.stderr
    install = calls.read_text().splitlines()[-1].split()
    assert {"qemu-system-x86", "ovmf", "qemu-system-arm", "qemu-efi-aarch64"} <= {*install}
