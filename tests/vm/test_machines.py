"""Other machines than the usual one: devices, addresses, disks, ports, foreign bases, packages."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest

from .conftest import CONFINE, Account, Outcome, example, leftovers, user_qemus
from .test_run import BOOT_SECONDS, ESCAPE, Terminal

pytestmark = pytest.mark.weekly
Built = tuple[Outcome, Path]


def build(account: Account, name: str, text: str, *arguments: str) -> tuple[Outcome, Path]:
    """Builds a recipe in a directory of its own; returns the outcome and the directory."""
    place = account.make_directory(name)
    recipe = account.write(place / f"{name}.yml", text)
    output = place / "out"
    options = ("--output", output, "--json", "--progress", "plain")
    outcome = account.run("build", recipe, *options, *arguments)
    assert leftovers(account, output) == []
    return outcome, output


def failed(outcome: Outcome) -> list[dict[str, Any]]:
    """The boots that did not pass, and the checks that did not hold."""
    boots = outcome.json()["boot"]
    assert boots, outcome.stderr
    return [
        *(boot for boot in boots if boot["status"] != "passed"),
        *(check for boot in boots for check in boot["checks"] if not check["passed"]),
    ]


@pytest.mark.parametrize("options", [
    ["--devices", "nvme", "--devices", "ahci"],
    ["--devices", "scsi", "--network-card", "e1000e"],
    ["--memory", "768M", "--memory", "2G", "--cpus", "1"],
])  # fmt: skip
def test_an_image_boots_with_other_devices(
    account: Account, built: Built, options: list[str]
) -> None:
    argv = ["boot-test", built[1] / "minimal-test.qcow2", "--accel", "tcg", "--json", *options]
    outcome = account.run(*argv)
    assert outcome.status == 0, outcome.stderr
    found = outcome.json()
    boots = found if isinstance(found, list) else [found]
    assert [boot["status"] for boot in boots] == ["passed"] * max(
        options.count(option) for option in options if option.startswith("--")
    )


def test_an_image_boots_with_a_tpm(account: Account, built: Built) -> None:
    assert shutil.which("swtpm"), "see tests/README.md"
    check = account.write(
        account.directory / "tpm.yml", "checks: [{command: [test, -e, /dev/tpmrm0]}]\n"
    )
    image = built[1] / "minimal-test.qcow2"
    argv = ["boot-test", image, "--accel", "tcg", "--checks", check, "--json"]
    assert account.run(*argv, "--tpm").status == 0
    assert account.run(*argv).status == 4


def test_the_driver_that_an_image_lacks_is_named(account: Account, built: Built) -> None:
    """Debian's kernel for clouds has no drivers for USB."""
    image = built[1] / "minimal-test.qcow2"
    outcome = account.run("boot-test", image, "--accel", "tcg", "--json", "--devices", "usb")
    assert outcome.status == 4
    assert outcome.json()["status"] == "root-not-found"
    assert "usb" in outcome.json()["message"].lower()


STATIC = """\
name: static
base-image: mmdebstrap:trixie
stages:
  - type: sources
    components: [non-free-firmware]
  - type: apt
    packages: [linux-image-cloud-amd64, systemd-sysv, nginx-light, intel-microcode]
  - type: network
    interfaces:
      - match: ["en*"]
        addresses: [192.0.2.10/24]
        gateways: [192.0.2.1]
  - type: users
    users:
      - name: admin
        groups: [www-data, systemd-journal]
        ssh-authorized-keys: ['from="192.0.2.0/24",no-pty ssh-ed25519 @KEY@ me']
  - type: files
    files:
      - {path: /srv/shared, source: shared}
      - path: /etc/systemd/system/once.service
        content: |
          [Unit]
          ConditionFirstBoot=yes
          [Service]
          ExecStart=/usr/bin/touch /run/first-boot
          [Install]
          WantedBy=multi-user.target
  - type: services
    enable: [once, nginx]
  - type: qemu
    formats: [qcow2]
    first-boot: false
boot-test:
  checks:
    - {http: /, port: 80, contains: nginx}
    - {port: 80, reachable: true}
    - {command: [hostname, -I], contains: 192.0.2.10}
    - {command: [test, "!", -e, /run/first-boot]}
    - {command: [systemctl, show, -P, ConditionResult, once.service], contains: "no"}
    - {user: admin, groups: [www-data, systemd-journal]}
    - {file: /home/admin/.ssh/authorized_keys, contains: 'from="192.0.2.0/24",no-pty ssh-ed25519'}
    - {file: /srv/shared/common, mode: "2755", owner: root}
"""


def test_a_static_address_serves_and_what_else_a_recipe_asks_for(account: Account) -> None:
    """With a component, key options, a setgid file, and no first boot."""
    shared = account.make_directory("static") / "shared"
    shared.mkdir(exist_ok=True)
    account.write(shared / "common", "#!/bin/sh\n")
    # chown(2) clears the bit.
    (shared / "common").chmod(0o2755)
    key = "AAAAC3NzaC1lZDI1NTE5AAAA" + "IA" + "A" * 42
    outcome, _ = build(account, "static", STATIC.replace("@KEY@", key))
    assert outcome.stdout, outcome.stderr
    assert failed(outcome) == []
    assert outcome.status == 0


@pytest.fixture(scope="module")
def exported(account: Account, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A base as `docker export` leaves it: a mark, and empty files where others are mounted."""
    root = tmp_path_factory.mktemp("exported")
    plain, tar = root / "plain.tar", account.directory / "exported.tar"
    argv = ["mmdebstrap", "--variant=apt", "--quiet", "trixie", plain]
    subprocess.run(argv, check=True, timeout=900)
    empty = {"./etc/hostname", "./etc/hosts", "./etc/resolv.conf"}
    with tarfile.open(plain) as old, tarfile.open(tar, "w") as new:
        for member in old:
            if member.name not in empty:
                new.addfile(member, old.extractfile(member) if member.isreg() else None)
        for name in (*sorted(empty), "./.dockerenv"):
            new.addfile(tarfile.TarInfo(name))
    tar.chmod(0o644)
    yield tar
    tar.unlink()


EXPORTED = """\
name: exported
base-image: tar:@TAR@
stages:
  - type: apt
    packages: [linux-image-cloud-amd64, systemd-sysv]
  - {type: hostname, name: Name, hostname: real-machine}
  - type: qemu
    formats: [qcow2]
boot-test:
  checks:
    - {command: [hostname], contains: real-machine}
    - {command: [systemd-detect-virt, --container], contains: none, exit: 1}
    - {command: [test, "!", -e, /.dockerenv]}
"""


def test_an_exported_container_becomes_a_machine(account: Account, exported: Path) -> None:
    text = EXPORTED.replace("@TAR@", str(exported))
    outcome, _ = build(account, "exported", text, "--allow-outside")
    assert outcome.stdout, outcome.stderr
    assert failed(outcome) == []
    assert any("container runtime" in note for note in outcome.json()["notes"])


USER_DATA = """\
#cloud-config
hostname: given
users:
  - {name: guest, lock_passwd: false, plain_text_passwd: one-word, shell: /bin/bash}
"""


def test_a_machine_gets_disks_data_and_ports(account: Account) -> None:
    place = account.make_directory("given")
    recipe = example(account, "cloud")
    argv = ("build", recipe, "--output", place / "out", "--json", "--progress", "plain")
    outcome = account.run(*argv)
    assert outcome.stdout, outcome.stderr
    assert failed(outcome) == []
    data = account.write(place / "data.yml", USER_DATA)
    disk = account.write(place / "more.raw", "a disk of ours" + "\0" * (1 << 20))
    before = disk.read_bytes()
    terminal = Terminal(
        account, place, place / "out/cloud.qcow2", "--user-data", data,
        "--disk", disk, "--disk-format", "raw", "--forward", "0:22",
    )  # fmt: skip
    child = terminal.child
    child.expect(r"127\.0\.0\.1:(\d+)")
    port = int(child.match.group(1))
    child.expect("given login: ")
    child.send("guest\r")
    child.expect("Password: ")
    child.send("one-word\r")
    child.expect(r"guest@given:.*\$")
    child.send("lsblk --noheadings --nodeps --output NAME,SIZE | grep -w 1M; echo e''nd\r")
    child.expect(r"(vd\w) +1M.*end")
    scanned = subprocess.run(
        ["ssh-keyscan", "-T", "60", "-p", str(port), "127.0.0.1"],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert "ssh-ed25519" in scanned.stdout
    child.send(ESCAPE)
    child.expect(pexpect.EOF)
    assert terminal.qemu_is_gone()
    assert disk.read_bytes() == before


def test_a_shell_is_a_real_terminal_and_has_indexes_on_request(
    account: Account, built: Built
) -> None:
    argv = [CONFINE, account.uid, account.gid, account.venv / "bin/particle-os", "shell"]
    argv += [example(account, "minimal-test"), "--accel", "tcg", "--apt-indexes"]
    child: Any = pexpect.spawn(
        sys.executable, [str(word) for word in argv], env=account.environment,
        cwd=str(account.directory), timeout=BOOT_SECONDS, dimensions=(31, 107),
    )  # fmt: skip
    child.expect("# ")
    child.send("tty; stty size; apt-cache policy nginx; echo e''nd\r")
    child.expect(r"/dev/pts/\d+\r\n31 107\r\n")
    child.expect(r"Candidate: \d.*end")
    child.send("exit 7\r")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 7
    assert user_qemus(account) == []


# Packages with daemons, triggers, and scripts that ask much of the system under construction.
PACKAGES = """\
name: packages
base-image: mmdebstrap:trixie
stages:
  - type: apt
    packages:
      - linux-image-amd64
      - linux-headers-amd64
      - systemd-sysv
      - mariadb-server
      - postgresql
      - docker.io
      - default-jre-headless
      - ca-certificates-java
      - snapd
      - postfix
      - v4l2loopback-dkms
      - grub-pc
      - grub-efi-amd64-bin
    debconf:
      - {package: postfix, question: postfix/main_mailer_type, type: select, value: Local only}
      - {package: postfix, question: postfix/mailname, type: string, value: mail.example.org}
      - {package: grub-pc, question: grub-pc/install_devices_empty, type: boolean, value: "true"}
  - type: qemu
    formats: [qcow2]
    boot-loader: grub
boot-test:
  devices: {memory: 2G}
  checks:
    - {unit: mariadb.service}
    - {unit: postgresql@17-main.service}
    - {unit: docker.service}
    - {unit: postfix.service}
    - {unit: snapd.socket}
    - {command: [java, -version]}
    - {command: [sh, -c, "modinfo v4l2loopback"], contains: vermagic}
    - {command: [sh, -c, "keytool -list -cacerts -storepass changeit"], contains: entries}
    - {command: [mariadb, -e, "select 6 * 7"], contains: "42"}
    - {command: [su, postgres, -c, "psql -tc 'select 6 * 7'"], contains: "42"}
"""


def test_big_packages_install_and_run(account: Account) -> None:
    outcome, _ = build(account, "packages", PACKAGES)
    assert outcome.stdout, outcome.stderr
    assert failed(outcome) == []
    assert outcome.status == 0
