"""Recipes of several files, and their problems."""

import pytest
from particle_os.errors import InvalidDocument

DISK = "  - {type: qemu}\n"
BASE = """\
description: Packages and a zone
variables:
  packages: {type: list}
  zone: UTC
  port: 80
stages:
  - {type: apt, packages: [systemd-sysv, "${packages}"]}
  - {type: run, command: [echo, "${zone}", "p${port}", "${outer}"]}
"""


def problems(load, *arguments, **files):
    with pytest.raises(InvalidDocument) as raised:
        load(*arguments, **files)
    return [(p.path.rpartition("/")[2], p.line, p.code, p.message) for p in raised.value.problems]
