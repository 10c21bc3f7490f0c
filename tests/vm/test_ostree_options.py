"""The options of the stage `ostree` that a running machine shows."""

from __future__ import annotations

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
UPDATE = """\
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
ostree admin status
"""
CHECKS = f"""\
- ostree: {{ref: debian/13/amd64/edge}}
- unit: particle-os-update.timer
- file: /var/lib/edge/first
- command: [sh, -ec, "test -e /etc/seen && test ! -e /etc/kept"]
- reboot: true
- command: [sh, -ec, {UPDATE!r}]
  contains: "Version: 2"
  timeout: 240
"""


@pytest.mark.weekly
def test_a_machine_updates_itself_and_forgets_the_changes_of_its_etc(account: Account) -> None:
    """The first boot takes the next version from its server, and the reboot starts it.

    The check `reboot` finds what `etc: transient` means: each boot has a new machine-id.
    """
    text = example(account, "edge").read_text().partition("boot-test:")[0]
    text = text.replace('    version: "1"\n', f'    version: "1"\n{OPTIONS}')
    text = text.replace("  - type: ostree\n", f"{STAGES}  - type: ostree\n")
    recipe = account.write(account.directory / "options.yml", text)
    output = account.make_directory("options")
    built = account.run("build", recipe, "--output", output, "--no-boot-test")
    assert built.status == 0, built.stderr
    checks = account.write(account.directory / "options-checks.yml", f"checks:\n{CHECKS}")
    outcome = account.run("boot-test", output / "edge.qcow2", "--checks", checks, "--json")
    assert outcome.status == 4, outcome.stderr
    found = {check["name"]: check for check in outcome.json()["checks"]}
    bad = [(name, check["detail"]) for name, check in found.items() if not check["passed"]]
    assert bad == [("reboot", "machine-id changed")]
    assert found["ostree debian/13/amd64/edge"]["detail"].startswith("2, commit ")
