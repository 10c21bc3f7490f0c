"""What stages say they did shows in the booted image, and on its disk."""

from __future__ import annotations

import subprocess
from pathlib import Path

from .conftest import Account, Outcome

Built = tuple[Outcome, Path]
OFFSET = 1 << 20
STAGES = """\
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
      - path: /etc/secret
        content: "x"
        mode: "0600"
    links:
      - path: /srv/current
        to: www
  - type: services
    enable: [hello.service]
    mask: [apt-daily.timer]
  - type: run
    command: [NAME=said, sh, -eu, -c, 'echo "$0" > "$NAME"', "a b; $(id)"]
    working-directory: /srv/www
  - type: run
    name: Nothing but a loopback
    network: none
    command: [sh, -eu, -c, 'test "$(grep -c : /proc/net/dev)" = 1; grep -q " lo:" /proc/net/dev']
"""


def on_disk(image: Path, command: str) -> str:
    """What debugfs says of the image's file system."""
    argv = ["/sbin/debugfs", "-R", command, f"{image}?offset={OFFSET}"]
    return subprocess.run(argv, check=True, capture_output=True, timeout=60).stdout.decode()


def test_host_name_files_services_and_commands(account: Account, built: Built) -> None:
    """The stages before them come from the checkpoints of another recipe."""
    minimal = Path(account.run("list", "recipes", "--json").json()[0]["name"]).read_text()
    text = minimal.replace("  - type: qemu\n", f"{STAGES}  - type: qemu\n")
    text = text.replace("name: minimal-test", "name: more").replace("[raw, qcow2]", "[raw]")
    text = text.replace("- unit: multi-user.target", "- unit: hello.service")
    recipe = account.write(account.directory / "more.yml", text)
    output = account.make_directory("more")
    outcome = account.run("build", recipe, "--output", output, "--json", "--progress", "plain")
    assert outcome.status == 0, outcome.stderr
    result = outcome.json()
    assert [stage["cached"] for stage in result["stages"]] == [True] * 4 + [False] * 6
    facts = result["boot"][0]["facts"]
    assert facts["hostname"] == "web1.example.org"
    assert facts["unit:hello.service"] == "active"
    image = output / "more.raw"
    assert on_disk(image, "cat /etc/hosts").startswith("127.0.1.1 web1.example.org web1\n")
    assert on_disk(image, "cat /srv/www/said") == "a b; $(id)\n"
    directory = on_disk(image, "stat /srv/www").split()
    assert directory[directory.index("Mode:") + 1] == "02775"
    assert directory[directory.index("User:") + 1] == "1000"
    assert directory[directory.index("Group:") + 1] == "33"
    assert "Mode:  0600" in on_disk(image, "stat /etc/secret")
    assert '"/dev/null"' in on_disk(image, "stat /etc/systemd/system/apt-daily.timer")
