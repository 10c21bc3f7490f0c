"""The options of the stage `ostree` that a running machine shows."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .conftest import Account, example

STAGES = """\
  - type: files
    files:
      - {path: /var/lib/edge/first, content: first}
      - path: /usr/lib/systemd/system/seen.service
        content: |
          [Unit]
          Description=A change of /etc in each boot
          [Service]
          Type=oneshot
          RemainAfterExit=yes
          ExecStart=/bin/sh -c 'if [ -e /etc/seen ]; then touch /etc/kept; fi; touch /etc/seen'
          [Install]
          WantedBy=multi-user.target

  - type: services
    enable: [seen.service]

"""
OPTIONS = """\
    metadata: {org.example.build: "42"}
    collection-id: org.example.Edge
    ref-binding: [debian/13/amd64/other]
    remote: {name: updates, url: "file:///var/repository", verify: false}
    var: initial
    users: merge
    etc: transient
    automatic-updates: stage
"""
# The next version lies on the machine itself, in place of a server.
SERVER = """\
ref=debian/13/amd64/edge
new=/var/repository
if [ ! -e $new ]; then
  old=$(ostree rev-parse updates:$ref)
  ostree init --repo=$new --mode=archive --collection-id=org.example.Edge
  ostree pull-local --repo=$new /ostree/repo $old
  ostree commit --repo=$new --branch=$ref --parent=$old --tree=ref=$old --bootable \\
    --add-metadata-string=version=2 --bind-ref=$ref
  ostree summary --repo=$new --update
fi
systemctl start particle-os-update.service
"""
UPDATE = f"{SERVER}ostree admin status\n"
CHECKS = f"""\
- ostree: {{ref: debian/13/amd64/edge}}
- unit: particle-os-update.timer
- file: /var/lib/edge/first
- command: [sh, -ec, "test -e /etc/seen && test ! -e /etc/kept"]
- reboot: true
- command: [sh, -ec, {json.dumps(UPDATE)}]
  contains: "Version: 2"
  timeout: 600
"""


# The machine changes its /etc after the update is staged. Then the second version gives the order
# to return, which is counted at once: the machine may never shut down.
CHANGE = f"""\
running=$(ostree admin status | sed -n '/^[*]/,$s/^ *Version: //p' | head -n 1)
echo "version $running runs"
case $running in
1)
  {SERVER}
  systemctl start particle-os-update.service
  ostree admin status
  test "$(ostree admin status | grep -c ' debian ')" = 2
  test "$(ostree admin status | grep -c '(staged)')" = 1
  echo mine >/etc/mine
  ;;
2)
  grep -x mine /etc/mine
  ostree admin set-default 1
  grub-editenv /boot/grub/grubenv list
  grub-editenv /boot/grub/grubenv list | grep -qx boot_counter=3
  ;;
*) false ;;
esac
"""
CHANGES = f"""\
- reboot: true
- command: [sh, -exc, {json.dumps(CHANGE)}]
  timeout: 600
"""


def booted(account: Account, options: str, checks: str) -> tuple[int, dict[str, Any]]:
    """The exit status and the checks, by their names, of a system with more options."""
    text = example(account, "edge").read_text().partition("boot-test:")[0]
    text = text.replace('    version: "1"\n', f'    version: "1"\n{options}')
    text = text.replace("  - type: ostree\n", f"{STAGES}  - type: ostree\n")
    recipe = account.write(account.directory / "options.yml", text)
    output = account.make_directory("options")
    built = account.run("build", recipe, "--output", output, "--no-boot-test")
    assert built.status == 0, built.stderr
    wanted = account.write(account.directory / "options-checks.yml", f"checks:\n{checks}")
    outcome = account.run("boot-test", output / "edge.qcow2", "--checks", wanted, "--json")
    return outcome.status, {check["name"]: check for check in outcome.json()["checks"]}


def failed(checks: dict[str, Any]) -> list[tuple[str, str]]:
    """The names and the details of the checks that do not hold."""
    return [(name, check["detail"]) for name, check in checks.items() if not check["passed"]]


@pytest.mark.weekly
def test_a_staged_update_keeps_a_later_change_of_etc_and_an_order_to_return_is_counted(
    account: Account,
) -> None:
    options = OPTIONS.replace("etc: transient", "etc: persistent")
    status, checks = booted(account, options, CHANGES)
    assert failed(checks) == []
    assert status == 0


@pytest.mark.weekly
def test_a_machine_updates_itself_and_forgets_the_changes_of_its_etc(account: Account) -> None:
    """The first boot takes the next version from its server, and the reboot starts it.

    The check `reboot` finds what `etc: transient` means: each boot has a new machine-id.
    """
    status, checks = booted(account, OPTIONS, CHECKS)
    assert status == 4
    assert failed(checks) == [("reboot", "machine-id changed")]
    assert checks["ostree debian/13/amd64/edge"]["detail"].startswith("2, commit ")
