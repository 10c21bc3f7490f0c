"""Runs the command line in this process, and reads the commands of other texts."""

import re
import shlex

import click
from click.testing import CliRunner
from particle_os.cli import cli

KERNEL = "{type: apt, packages: [linux-image-cloud-amd64, systemd-sysv]}"
MINIMAL = f"name: test\nstages:\n  - {KERNEL}\n  - type: qemu\n    formats: [raw, qcow2]\n"


def run(*arguments, **options):
    return CliRunner().invoke(cli, [str(a) for a in arguments], **options)


def commands(text):
    """The words of each call of particle-os in a text with shell commands."""
    joined = re.sub(r"\\?\n\s+(?=--|tls:)", " ", text)
    for call in re.findall(r"particle-os ((?:build|farm|doctor)\b[^|\n`;]*)", joined):
        yield shlex.split(re.split(r" \|\| |'$| …", call)[0].strip())


def unknown_options(words):
    """The options among the words of a call that its command does not have."""
    context = click.Context(cli)
    while isinstance(context.command, click.Group):
        found = context.command.get_command(context, words[0])
        assert found is not None, words
        context, words = click.Context(found, parent=context), words[1:]
    known = {name for option in context.command.params for name in option.opts}
    return {word.partition("=")[0] for word in words if word.startswith("--")} - known
