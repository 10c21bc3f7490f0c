"""Runs the command line in this process."""

from click.testing import CliRunner
from particle_os.cli import cli

KERNEL = "{type: apt, packages: [linux-image-cloud-amd64, systemd-sysv]}"
MINIMAL = f"name: test\nstages:\n  - {KERNEL}\n  - type: qemu\n    formats: [raw, qcow2]\n"


def run(*arguments, **options):
    return CliRunner().invoke(cli, [str(a) for a in arguments], **options)
