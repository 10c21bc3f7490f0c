"""What stages say they did shows in the booted image, and on its disk."""

from __future__ import annotations

import hashlib
import subprocess
import tarfile
from pathlib import Path

from .conftest import Account, Outcome, example, leftovers

Built = tuple[Outcome, Path]
OFFSET = 1 << 20
STAGES = """\
  - type: kernel
    command-line: [particle.seen=1]
    modules: [loop]
  - type: keyboard
    layout: de
    variant: nodeadkeys
  - type: groups
    groups: [{name: deployers, gid: 3000, members: [admin]}]
  - type: network
    interfaces: [{match: [en*], dhcp: yes}]
  - type: hostname
    hostname: web1.example.org
  - type: files
    directories:
      - path: /srv/www
        mode: "2775"
        owner: admin
        group: www-data
    files:
      - path: /etc/systemd/system/hello.service
        content: |
          [Service]
          Type=oneshot
          RemainAfterExit=yes
          ExecStart=/usr/bin/grep -q "a b; $(id)" /srv/current/said
          [Install]
          WantedBy=multi-user.target
      - path: /etc/systemd/system/seen.service
        content: |
          [Unit]
          Wants=network-online.target
          After=network-online.target
          [Service]
          Type=oneshot
          RemainAfterExit=yes
          ExecStart=/usr/bin/grep -q particle.seen=1 /proc/cmdline
          ExecStart=/usr/bin/grep -q '^loop ' /proc/modules
          ExecStart=/usr/bin/grep -q ADDRESS_STATE=routable /run/systemd/netif/state
          [Install]
          WantedBy=multi-user.target
      - path: /etc/secret
        content: "x"
        mode: "0600"
    links:
      - path: /srv/current
        to: www
  - type: services
    enable: [hello.service, seen.service]
    mask: [apt-daily.timer]
  - type: run
    command: [NAME=said, sh, -eu, -c, 'echo "$0" > "$NAME"', "a b; $(id)"]
    working-directory: /srv/www
  - type: run
    name: Nothing but a loopback
    network: none
    command: [sh, -eu, -c, 'test "$(grep -c : /proc/net/dev)" = 1; grep -q " lo:" /proc/net/dev']
  - type: cleanup
    keep-languages: [de]
"""


def on_disk(image: Path, command: str) -> str:
    """What debugfs says of the image's file system."""
    argv = ["/sbin/debugfs", "-R", command, f"{image}?offset={OFFSET}"]
    return subprocess.run(argv, check=True, capture_output=True, timeout=60).stdout.decode()


def test_host_name_files_services_and_commands(account: Account, built: Built) -> None:
    """The stages before them come from the checkpoints of another recipe."""
    minimal = example(account, "minimal-test").read_text()
    text = minimal.replace("  - type: qemu\n", f"{STAGES}  - type: qemu\n")
    text = text.replace("name: minimal-test", "name: more")
    disk = "formats: [raw]\n    partition-table: msdos\n    size: minimal"
    text = text.replace("formats: [raw, qcow2]\n    size: auto", disk)
    units = "- unit: hello.service\n    - unit: seen.service"
    text = text.replace("- unit: multi-user.target", units)
    recipe = account.write(account.directory / "more.yml", text)
    output = account.make_directory("more")
    outcome = account.run("build", recipe, "--output", output, "--json", "--progress", "plain")
    assert outcome.status == 0, outcome.stderr
    result = outcome.json()
    assert [stage["cached"] for stage in result["stages"]] == [True] * 4 + [False] * 11
    facts = result["boot"][0]["facts"]
    assert facts["hostname"] == "web1.example.org"
    checks = {check["name"]: check["passed"] for check in result["boot"][0]["checks"]}
    # The second one says that kernel and network are as the stages say.
    assert {"unit hello.service", "unit seen.service"} <= checks.keys()
    assert all(checks.values())
    image = output / "more.raw"
    assert on_disk(image, "cat /etc/hosts").startswith("127.0.1.1 web1.example.org web1\n")
    assert on_disk(image, "cat /srv/www/said") == "a b; $(id)\n"
    directory = on_disk(image, "stat /srv/www").split()
    assert directory[directory.index("Mode:") + 1] == "02775"
    assert directory[directory.index("User:") + 1] == "1000"
    assert directory[directory.index("Group:") + 1] == "33"
    assert "Mode:  0600" in on_disk(image, "stat /etc/secret")
    assert '"/dev/null"' in on_disk(image, "stat /etc/systemd/system/apt-daily.timer")
    assert "deployers:x:3000:admin\n" in on_disk(image, "cat /etc/group")
    assert 'XKBVARIANT="nodeadkeys"' in on_disk(image, "cat /etc/default/keyboard")
    assert "DHCP=yes" in on_disk(image, "cat /etc/systemd/network/10-en.network")
    documents = on_disk(image, "ls -p /usr/share/doc/apt")
    assert "/copyright/" in documents
    assert "/changelog" not in documents
    assert on_disk(image, "ls -p /usr/share/locale/fr") == ""
    assert "LC_MESSAGES" in on_disk(image, "ls -p /usr/share/locale/de")


def test_a_stage_runs_alone_and_gives_a_root_file_system(
    account: Account, tiny_base: Path, built: Built
) -> None:
    output = account.make_directory("alone")
    options = account.write(
        output / "files.yml",
        "variables: {who: you}\n"
        "directories: [{path: /srv/www, mode: '2775'}]\n"
        "files: [{path: /srv/www/hello, content: 'To ${who}', mode: '0600'}]\n"
        "links: [{path: /srv/current, to: www}]\n",
    )
    argv = ["stage", "run", "files", "--options", options, "--base", f"tar:{tiny_base}"]
    argv += ["--set", "who=me", "--json"]
    outcome = account.run(*argv, "--output", output / "root.tar")
    assert outcome.status == 0, outcome.stderr
    told = outcome.json()
    assert (told["stage"]["type"], told["stage"]["status"]) == ("files", "done")
    data = (output / "root.tar").read_bytes()
    assert told["archive"]["sha256"] == hashlib.sha256(data).hexdigest()
    with tarfile.open(output / "root.tar") as archive:
        members = {member.name: member for member in archive}
        content = archive.extractfile("./srv/www/hello")
        assert content is not None
        assert content.read() == b"To me"
    assert members["./srv/www"].mode == 0o2775
    assert (members["./srv/www/hello"].mode, members["./srv/www/hello"].uid) == (0o600, 0)
    assert members["./srv/current"].linkname == "www"
    assert "./usr/bin/busybox" in members, "what was there before is there"
    assert leftovers(account, output) == []
    # It fails in its own words, and what was written before stays.
    account.write(options, "files: [{path: /usr, content: ''}]\n")
    failed = account.run(*argv[:-3], "--output", output / "root.tar")
    assert failed.status == 3
    assert f"stage 1 (files), {options}:1" in failed.stderr
    assert "/usr is a directory in the image already" in failed.stderr
    assert (output / "root.tar").read_bytes() == data
