"""The verdicts of boot tests: a good image passes, and a failed check is named."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from . import breaking
from .conftest import Account, Outcome, leftovers, sha256

Built = tuple[Outcome, Path]


def test_a_good_image_passes_untouched_and_is_a_new_machine_each_time(
    account: Account, built: Built
) -> None:
    """The image boots in 512 MiB of memory, and keeps its machine-id over a reboot."""
    image = built[1] / "minimal-test.qcow2"
    before = sha256(image)
    evidence = account.make_directory("evidence")
    text = "checks: [reboot: true, memory: 512M, user: admin]\n"
    checks = account.write(account.directory / "reboot.yml", text)
    arguments = ["--unit", "multi-user.target", "--evidence", evidence, "--checks", checks]
    outcome = account.run("boot-test", image, "--json", *arguments)
    assert outcome.status == 0, outcome.stderr
    found = [(check["passed"], check["name"]) for check in outcome.json()["checks"]]
    names = ["unit multi-user.target", "reboot", "memory 512M", "user admin"]
    assert found == [(True, name) for name in names]
    assert outcome.json()["checks"][1]["detail"].startswith("the system booted again")
    assert ".service\n" in (evidence / "bios/blame.txt").read_text()
    plot = ET.parse(evidence / "bios/plot.svg").getroot()
    words = [element.text or "" for element in plot.iter("{http://www.w3.org/2000/svg}text")]
    assert any(word.startswith("multi-user.target") for word in words)
    verdict = outcome.json()
    assert verdict["status"] == "passed"
    assert sha256(image) == before
    first = built[0].json()["boot"][0]["facts"]["machine-id"]
    assert len(verdict["facts"]["machine-id"]) == 32
    assert verdict["facts"]["machine-id"] != first
    assert leftovers(account, built[1]) == []


# Every Debian has Perl; the script serves one page.
WEB = """\
[Unit]
Description=A page
[Service]
ExecStart=/usr/bin/perl -e 'use IO::Socket::INET; $s = IO::Socket::INET->new(LocalPort => 8080, Listen => 5, ReuseAddr => 1) or die; while ($c = $s->accept) { <$c>; print $c "HTTP/1.0 200 OK\\r\\n\\r\\nhello\\n"; close $c }'
"""  # noqa: E501
NETWORK = "[Match]\nType=ether\n[Network]\nDHCP=ipv4\n"
# Each check, and whether it must pass.
CHECKS = [
    ("unit: web.service", True),
    ("unit: no-such.service", False),
    ("{command: [sh, -c, 'echo out; exit 3'], exit: 3, matches: '^o.t$'}", True),
    ("{command: [id, -u], contains: '5'}", False),
    ("{command: [sleep, '60'], timeout: 1}", False),
    ("{file: /etc/passwd, mode: '0644', owner: root, group: root, contains: 'admin:'}", True),
    ("{file: /etc/shadow, mode: '0644'}", False),
    ("{file: /no/such, exists: false}", True),
    ("file: '/var/lib/dpkg/info/libc6:amd64.list'", True),
    ("unit: '-.mount'", True),
    ("user: Debian-exim", False),
    ("package: systemd", True),
    ("package: emacs", False),
    ("{user: admin, shell: /bin/bash}", True),
    ("{user: admin, groups: [sudo]}", False),
    ("{port: 8080, reachable: true}", True),
    ("port: 23", False),
    ("{http: /, port: 8080, contains: hello}", True),
    ("{http: /, port: 8080, status: 404}", False),
    ("{mount: /, type: ext4, options: [rw]}", True),
    ("mount: /srv", False),
    ("kernel-argument: ro", True),
    ("kernel-argument: quiet", False),
    ("timezone: Europe/Berlin", True),
    ("timezone: Asia/Tokyo", False),
    ("locale: en_US.UTF-8", True),
    ("locale: de_DE.UTF-8", False),
    ("systemd-analyze: 3600", True),
    ("systemd-analyze: 1", False),
]


@pytest.fixture
def served(copy: Path) -> Path:
    """The image with a web server and an address from DHCP."""
    breaking.unit("web.service", WEB)(copy)
    breaking.put(copy, "/etc/systemd/network/80-dhcp.network", NETWORK)
    service = "/usr/lib/systemd/system/systemd-networkd.service"
    wants = f"{breaking.UNITS}/multi-user.target.wants/systemd-networkd.service"
    breaking.debugfs(copy, f"symlink {wants} {service}")
    return copy


def test_each_check_holds_or_does_not(account: Account, served: Path) -> None:
    text = "checks:\n" + "".join(f"  - {check}\n" for check, _ in CHECKS)
    checks = account.write(account.directory / "checks.yml", text)
    report = account.directory / "junit.xml"
    outcome = account.run("boot-test", served, "--checks", checks, "--junit", report, "--json")
    assert outcome.status == 4, outcome.stderr
    verdict = outcome.json()
    assert verdict["status"] == "checks-failed", outcome.stdout
    found = [(check["passed"], check["name"], check["detail"]) for check in verdict["checks"]]
    assert [passed for passed, _, _ in found] == [holds for _, holds in CHECKS], found
    (suite,) = ET.parse(report).getroot()
    assert int(suite.get("tests", "0")) == 1 + len(CHECKS)
    assert int(suite.get("failures", "0")) == sum(not holds for _, holds in CHECKS)


# Stands for goss, a package of Debian 13: it finds /etc/passwd, and misses /no/such.
GOSS = """\
#!/bin/sh
[ "$1 $3 $4 $5" = "--gossfile validate --format json" ] && grep -q '^file:$' "$2" || exit 64
one='"resource-type": "File", "property": "exists", "resource-id"'
echo "{\\"results\\": [{$one: \\"/etc/passwd\\", \\"successful\\": true},"
echo "{$one: \\"/no/such\\", \\"successful\\": false, \\"summary-line\\": \\"it is not there\\"}],"
echo '"summary": {"test-count": 2}}'
exit 1
"""
TESTS = """\
def test_system(host):
    assert host.system_info.distribution == "debian"
    assert host.package("systemd").is_installed
    assert host.service("systemd-journald").is_running
    assert host.user("admin").exists

def test_writes(host):
    assert host.run("touch /etc/of-a-test").succeeded
    assert host.check_output("head -c 200000 /dev/zero | wc -c") == "200000"

def test_server(host):
    assert not host.exists("sshd")
    assert host.package("emacs").is_installed
"""


def test_tests_of_other_frameworks_are_checks_and_change_nothing(
    account: Account, copy: Path
) -> None:
    """The image has no SSH server and gets no address, and nothing of the tests is left."""
    breaking.put(copy, "/usr/local/bin/goss", GOSS, mode="0100755")
    before = sha256(copy)
    tests = account.make_directory("tests")
    account.write(tests / "test_image.py", TESTS)
    account.write(account.directory / "goss.yaml", "file:\n  /etc/passwd: {exists: true}\n")
    checks = account.write(
        account.directory / "goss.yml", "{goss: goss.yaml, checks: [user: admin]}"
    )
    junit, page = account.directory / "tests.xml", account.directory / "tests.html"
    files = ("--junit", junit, "--report", page, "--evidence", account.make_directory("tested"))
    asked = ("--checks", checks, "--testinfra", tests, "--timeout", "900")
    outcome = account.run("boot-test", copy, *asked, "--json", *files)
    assert outcome.status == 4, outcome.stderr
    verdict = outcome.json()
    assert verdict["status"] == "checks-failed"
    assert {check["name"]: check["passed"] for check in verdict["checks"]} == {
        "user admin": True,
        "goss File /etc/passwd exists": True,
        "goss File /no/such exists": False,
        "testinfra test_image.py::test_system": True,
        "testinfra test_image.py::test_writes": True,
        "testinfra test_image.py::test_server": False,
    }
    (suite,) = ET.parse(junit).getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("7", "2")
    assert "test_image.py::test_server" in page.read_text()
    assert "systemd" in (account.directory / "tested/bios/journal.txt").read_text()
    assert sha256(copy) == before
    assert [path.name for path in tests.iterdir()] == ["test_image.py"]
    assert leftovers(account) == []


WITH_GOSS = """\
name: with-goss
stages:
  - {type: apt, packages: [linux-image-cloud-amd64, systemd-sysv, goss]}
  - {type: qemu, formats: [qcow2]}
boot-test: {goss: goss.yaml}
"""


@pytest.mark.weekly
def test_the_goss_of_debian_tests_the_image_of_a_recipe(account: Account) -> None:
    output = account.make_directory("with-goss")
    recipe = account.write(output / "with-goss.yml", WITH_GOSS)
    goss = "file: {/etc/passwd: {exists: true, mode: '0644'}}\nuser: {root: {exists: true}}\n"
    account.write(output / "goss.yaml", goss)
    outcome = account.run("build", recipe, "--output", output, "--json")
    assert outcome.status == 0, outcome.stderr
    (verdict,) = outcome.json()["boot"]
    assert [(check["name"], check["passed"]) for check in verdict["checks"]] == [
        ("goss File /etc/passwd exists", True),
        ("goss File /etc/passwd mode", True),
        ("goss User root exists", True),
    ]


def test_a_prompt_on_the_console_is_a_weak_verdict(account: Account, built: Built) -> None:
    outcome = account.run("boot-test", built[1] / "minimal-test.raw", "--console-only", "--json")
    assert outcome.status == 0, outcome.stdout
    verdict = outcome.json()
    assert verdict["status"] == "console-only"
    assert verdict["facts"] == {}


def test_a_time_out_says_how_far_it_came(account: Account, built: Built) -> None:
    outcome = account.run("boot-test", built[1] / "minimal-test.raw", "--timeout", "3")
    assert outcome.status == 4
    assert "timed-out" in outcome.stdout
    assert "last seen: " in outcome.stdout


def test_a_file_that_is_no_image(account: Account) -> None:
    path = account.write(account.directory / "text.img", "not a disk\n" * 1000)
    outcome = account.run("boot-test", path)
    assert outcome.status == 4
    assert "no-bootable-device" in outcome.stdout
    assert "is the file an image of a disk?" in outcome.stdout


def test_an_image_that_refers_to_another_file_is_refused(account: Account, built: Built) -> None:
    overlay = account.make_directory("overlay") / "x.qcow2"
    create = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "/etc/passwd"]
    subprocess.run([*create, overlay, "1M"], check=True)
    os.chown(overlay, account.uid, account.gid)
    outcome = account.run("boot-test", overlay)
    assert outcome.status == 2
    assert "refers to another file" in outcome.stderr
    shutil.rmtree(overlay.parent)
