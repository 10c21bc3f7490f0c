"""Everyday recipes show in a booted image: trees, mounts, units, accounts, downloads."""

from __future__ import annotations

import functools
import hashlib
import http.server
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .conftest import Account, Outcome, example, leftovers
from .test_stages import on_disk

TREE = {
    "etc/app/secret": ("secret\n", 0o600),
    "usr/local/bin/tool": ("#!/bin/sh\necho tool\n", 0o4755),
    "usr/local/bin/sender": ("#!/bin/sh\necho sender\n", 0o2755),
    "usr/local/bin/plain": ("#!/bin/sh\n", 0o644),
    "home/admin/.config/app": ("mine\n", 0o640),
    "root/note": ("note\n", 0o644),
    "etc/skel.bob/.hello": ("hello\n", 0o644),
}
DIRECTORIES = {
    "home/admin/.config": 0o700,
    "root": 0o755,
    "var/tmp": 0o755,
    "home/admin": 0o755,
    "var/mail": 0o755,
}
GREETING = "Hello, ${who}, on port ${port}.\n"
OWN_TYPE = """\
description: A service of our own
variables:
  unit: {type: string}
  words: {type: list, default: [one]}
stages:
  - type: files
    files:
      - path: /etc/systemd/system/${unit}.service
        content: |
          [Service]
          Type=oneshot
          RemainAfterExit=yes
          ExecStart=/usr/bin/touch /run/${unit}
          [Install]
          WantedBy=multi-user.target
          Alias=chosen.service
"""
STAGES = """\
  - type: files
    files:
      - path: /
        source: tree
        modes: {"/usr/local/bin/pl*": "0755"}
        owners: {"/etc/app/*": "root:adm"}
      - {path: /etc/greeting, source: greeting.txt, template: true}
      - path: /srv/fetched
        download: {url: "@URL@/data", sha256: "@SHA256@"}
  - type: first-unit
    unit: first
  - type: own-unit
    when: {variable: flavour, is: desktop}
    unit: never
  - type: own-unit
    unit: second
  - type: run
    script-file: script.pl
  - type: services
    enable: [first]
  - type: services
    disable: [first]
    enable: [second]
    linger: [admin]
    mask: [apt-daily.timer]
    drop-ins: [{unit: second, content: "[Service]\\nEnvironment=SEEN=1\\n"}]
    timers: [{name: tick, on-calendar: daily, command: [/usr/bin/touch, "/run/a b%$"]}]
  - type: files
    files:
      - path: /etc/systemd/system/once.service
        content: |
          [Unit]
          ConditionFirstBoot=yes
          [Service]
          Type=oneshot
          RemainAfterExit=yes
          ExecStart=/usr/bin/touch /run/first-boot
          [Install]
          WantedBy=multi-user.target
      - {path: /etc/systemd/system/wished.service, content: "[Service]\\nType=oneshot\\nExecStart=/bin/true\\n[Install]\\nWantedBy=multi-user.target\\n"}
      - {path: /etc/systemd/system/unwished.service, content: "[Service]\\nType=oneshot\\nExecStart=/bin/true\\n[Install]\\nWantedBy=multi-user.target\\n"}
      - path: /etc/systemd/system-preset/20-own.preset
        content: |
          enable wished.service
          disable unwished.service
      - {path: /usr/lib/systemd/user/mine.service, content: "[Service]\\nType=oneshot\\nExecStart=/bin/true\\n[Install]\\nWantedBy=default.target\\n"}
      - {path: /usr/lib/systemd/user/quiet.service, content: "[Service]\\nType=oneshot\\nExecStart=/bin/true\\n[Install]\\nWantedBy=default.target\\n"}
  - type: services
    enable: [once]
    preset: [wished, unwished]
    user-enable: [mine]
    user-mask: [quiet]
  - type: users
    users:
      - {name: ann, gid: 4000, expires: "2031-01-01", subordinate-ids: {first: 300000}}
      - {name: bob, group: ann, skeleton: /etc/skel.bob}
  - type: qemu
    formats: [raw]
    size: minimal
    first-boot: true
    mounts:
      - {where: /, options: [noatime]}
      - {where: /srv/data, what: LABEL=absent, type: ext4, options: [nofail, x-systemd.device-timeout=1s]}
      - {where: /mnt/mem, what: tmpfs, type: tmpfs, options: [size=1M]}
boot-test:
  checks:
    - {unit: second.service}
    - {unit: once.service}
    - {unit: tick.timer}
    - {mount: /mnt/mem, type: tmpfs}
    - {mount: /, options: [noatime]}
    - {file: /run/first-boot}
    - {file: /etc/greeting, contains: "Hello, you and me, on port 8080"}
    - {command: [systemctl, is-enabled, chosen.service], contains: alias}
    - {command: [systemctl, is-enabled, first.service], contains: disabled, exit: 1}
    - {command: [systemctl, is-enabled, apt-daily.timer], contains: masked, exit: 1}
    - {command: [systemctl, is-enabled, wished.service], contains: enabled}
    - {command: [systemctl, is-enabled, unwished.service], contains: disabled, exit: 1}
    - {command: [systemctl, --global, is-enabled, mine.service], contains: enabled}
    - {command: [systemctl, --global, is-enabled, quiet.service], contains: masked, exit: 1}
    - {command: [systemctl, show, -P, Environment, second.service], contains: SEEN=1}
    - {command: [sh, -c, 'systemctl start tick.service && test -e "/run/a b%$"']}
    - {command: [/usr/local/bin/tool], contains: tool}
"""  # noqa: E501


@contextmanager
def serving(directory: Path) -> Iterator[str]:
    """Serves a directory on loopback; yields its URL."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def everyday(account: Account, built: tuple[Outcome, Path]) -> tuple[dict[str, Any], Path]:
    """The result and the image; the first stages come from the checkpoints of another recipe."""
    place = account.make_directory("everyday")
    for name, (content, _) in TREE.items():
        path = place / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        account.write(path, content)
    for name in DIRECTORIES:
        (place / "tree" / name).mkdir(parents=True, exist_ok=True)
    for path in (place / "tree", *(place / "tree").rglob("*")):
        os.chown(path, account.uid, account.gid)
    # chown(2) clears the bits that change the user or the group.
    for name, mode in [*DIRECTORIES.items(), *((name, mode) for name, (_, mode) in TREE.items())]:
        (place / "tree" / name).chmod(mode)
    (place / "stages").mkdir(exist_ok=True)
    account.write(place / "stages/own-unit.yml", OWN_TYPE)
    account.write(place / "stages/first-unit.yml", OWN_TYPE)
    account.write(place / "greeting.txt", GREETING)
    account.write(
        place / "script.pl", '#!/usr/bin/perl\nopen(F, ">/srv/by-file"); print F "perl";\n'
    )
    data = b"fetched\n" * 1000
    (place / "served").mkdir(exist_ok=True)
    (place / "served/data").write_bytes(data)
    minimal = example(account, "minimal-test").read_text()
    first = minimal[minimal.index("stages:\n") : minimal.index("  - type: qemu\n")]
    variables = "variables: {who: you and me, port: 8080, flavour: server}\n"
    with serving(place / "served") as url:
        stages = STAGES.replace("@URL@", url)
        stages = stages.replace("@SHA256@", hashlib.sha256(data).hexdigest())
        recipe = account.write(
            place / "everyday.yml", f"name: everyday\n{variables}{first}{stages}"
        )
        argv = ["build", recipe, "--output", place / "out", "--json", "--progress", "plain"]
        outcome = account.run(*argv)
    assert outcome.status == 0, outcome.stderr
    assert leftovers(account, place / "out") == []
    return outcome.json(), place / "out/everyday.raw"


def mode_of(image: Path, path: str) -> tuple[str, int, int]:
    """The mode, the owner and the group of a file in the image."""
    words = on_disk(image, f"stat {path}").split()
    mode, user, group = (words[words.index(key) + 1] for key in ("Mode:", "User:", "Group:"))
    return mode, int(user), int(group)


def test_every_check_holds_in_the_booted_image(everyday: tuple[dict[str, Any], Path]) -> None:
    (boot,) = everyday[0]["boot"]
    assert boot["status"] == "passed"
    assert len(boot["checks"]) == STAGES.count("    - {", STAGES.index("boot-test:"))
    assert [check["name"] for check in boot["checks"] if not check["passed"]] == []


@pytest.mark.parametrize(
    ("path", "mode", "user", "group"),
    [
        # What exists keeps owner and mode.
        ("/root", "0700", 0, 0),
        ("/var/tmp", "01777", 0, 0),
        ("/var/mail", "02775", 0, 8),
        ("/home/admin", "0700", 1000, 1000),
        # Files of the tree keep their modes, and those in a home belong to its user.
        ("/etc/app/secret", "0600", 0, 4),
        ("/usr/local/bin/tool", "04755", 0, 0),
        ("/usr/local/bin/sender", "02755", 0, 0),
        ("/usr/local/bin/plain", "0755", 0, 0),
        ("/home/admin/.config", "0700", 1000, 1000),
        ("/home/admin/.config/app", "0640", 1000, 1000),
    ],
)
def test_a_tree_over_the_root_directory_leaves_what_is_there(
    everyday: tuple[dict[str, Any], Path], path: str, mode: str, user: int, group: int
) -> None:
    assert mode_of(everyday[1], path) == (mode, user, group)


def test_accounts_downloads_and_scripts_are_on_the_disk(
    everyday: tuple[dict[str, Any], Path],
) -> None:
    image = everyday[1]
    assert on_disk(image, "cat /srv/fetched") == "fetched\n" * 1000
    assert on_disk(image, "cat /srv/by-file") == "perl"
    accounts = on_disk(image, "cat /etc/passwd")
    assert "ann:x:1001:4000:" in accounts
    assert "bob:x:1002:4000:" in accounts
    assert [
        line for line in on_disk(image, "cat /etc/subuid").splitlines() if line.startswith("ann:")
    ] == ["ann:300000:65536"]
    shadow = dict(line.split(":", 1) for line in on_disk(image, "cat /etc/shadow").splitlines())
    # Days since 1970 until 2031-01-01.
    assert shadow["ann"].split(":")[6] == "22280"
    assert on_disk(image, "cat /home/bob/.hello") == "hello\n"
    assert on_disk(image, "ls -p /home/bob").count(".bashrc") == 0
    assert "admin" in on_disk(image, "ls -p /var/lib/systemd/linger")
    assert on_disk(image, "cat /etc/machine-id") in ("", "uninitialized\n")
