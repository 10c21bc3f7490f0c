"""The boot test uses another way for a systemd that takes no units from credentials."""

from __future__ import annotations

import pytest

from .conftest import Account

RECIPE = """\
name: bookworm
base-image: mmdebstrap:bookworm
stages:
  - type: apt
    packages: [linux-image-cloud-amd64, systemd-sysv]
  - type: qemu
boot-test:
  checks:
    - command: [systemctl, --version]
      contains: systemd 252
    - command: [sh, -c, 'echo two; exit 3']
      exit: 3
      contains: two
    - unit: multi-user.target
"""


@pytest.mark.weekly
def test_debian_12_is_asked_although_its_systemd_takes_no_units(account: Account) -> None:
    recipe = account.write(account.directory / "bookworm.yml", RECIPE)
    outcome = account.run("build", recipe, "--output", account.make_directory("12"), "--json")
    assert outcome.status == 0, outcome.stderr
    (boot,) = outcome.json()["boot"]
    assert boot["status"] == "passed"
    assert "Debian GNU/Linux 12" in boot["facts"]["system"]
    assert [check["passed"] for check in boot["checks"]] == [True] * 3
