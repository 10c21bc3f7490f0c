"""The command line is an interface: scripts name its options and rely on their defaults."""

from collections import Counter
from pathlib import Path

import click
import pytest
from particle_os.cli import cli
from particle_os.cli.usage.commands import GROUPS, flag

# Each command that takes them: the options of any output.
OUTPUT = """
-v/--verbose flag
-q/--quiet flag
--json flag
--debug flag
--progress auto|plain|json|none =auto
--notify flag
"""
# The other options that several commands take alike.
SHARED = """
IMAGE path exists file required
RECIPE_PATH [RECIPE] path
--set NAME=VALUE text multiple
--allow-outside flag
--allow-env NAME text multiple
--base REF text
--accel auto|kvm|tcg =auto
--memory SIZE text
--cpus 1..64
--scratch-size SIZE text =32G
--mirror URL text $PARTICLE_OS_MIRROR
--apt-proxy auto|none|URL text $PARTICLE_OS_APT_PROXY
--source-date SECONDS 0..4294967295 $SOURCE_DATE_EPOCH
--plain flag $PARTICLE_OS_PLAIN
--network none
--farm-keys DIRECTORY path directory $PARTICLE_OS_FARM_KEYS
--junit FILE path file
--summary FILE path file
--format raw|qcow2|vmdk|vdi|vhd|vpc|vhdx|qcow|qed|parallels|bochs|cloop|dmg
--template text hidden
--architecture amd64|arm64
"""
COMMANDS = {
    "bench": ["--accel", "--architecture amd64|arm64", "--mirror", "--apt-proxy"],
    "boot-test": [
        "--architecture",
        "IMAGE",
        "--format",
        "--unit text multiple",
        "--firmware bios|uefi|uefi-secure",
        "--checks FILE path",
        "--testinfra DIRECTORY path exists directory",
        "--console-only flag",
        "--accel",
        "--devices virtio|nvme|ahci|usb|scsi multiple",
        "--network-card virtio|e1000e multiple",
        "--tpm flag",
        "--memory SIZE text multiple",
        "--cpus 1..64 multiple",
        "--timeout SECONDS 1..86400",
        "--junit",
        "--summary",
        "--report FILE path file",
        "--evidence DIRECTORY path directory",
        "--template",
    ],
    "export": [
        "IMAGE",
        "--for azure|ec2|gce|openstack|proxmox|vmware required",
        "--format",
        "-o/--output path directory =out",
    ],
    "push": [
        "--architecture",
        "NAME NAME|IMAGE text required",
        "TARGET docker://HOST/REPOSITORY[:TAG] text required",
        "--as containerdisk|artifact|both =containerdisk",
        "--untested flag",
        "--format",
        "-o/--output path directory =out",
    ],
    "pull": [
        "REFERENCE docker://HOST/REPOSITORY[:TAG|@DIGEST] text required",
        "-o/--output path directory =out",
        "--name NAME text",
        "--force flag",
    ],
    "build": [
        "--architecture",
        "RECIPES [RECIPE]... path several",
        "--cache-from URL text multiple",
        "--cache-keys FILE path file multiple",
        "--cache-to URL text",
        "--cache-sign FILE path file",
        "--jobs N 1..64",
        "--fail-fast flag",
        "--on FARM text",
        "--farm-keys",
        "--set",
        "--allow-outside",
        "--allow-env",
        "-o/--output path directory =out",
        "--base",
        "--accel",
        "--memory",
        "--cpus",
        "--scratch-size",
        "--mirror",
        "--apt-proxy",
        "--template text",
        "--no-cache flag",
        "--refresh STAGE text",
        "--max-age HOURS 0.. =24",
        "--source-date",
        "--no-save-memory flag",
        "--plain",
        "--network",
        "--no-boot-test flag",
        "--junit",
        "--summary",
        "--keep-on-failure flag",
        "--dry-run flag",
    ],
    "cache list": [],
    "cache prune": [
        "--size SIZE text =20G",
        "--max-age HOURS 0..",
        "--dry-run flag",
    ],
    "cache verify": [],
    "completion": ["SHELL bash|zsh|fish required"],
    "doctor": [],
    "farm keys": ["DIRECTORY path directory"],
    "farm scheduler": [
        "--listen URL text =tls://0.0.0.0:8786",
        "--farm-keys",
        "--dashboard HOST:PORT text",
    ],
    "farm worker": [
        "URL SCHEDULER text required",
        "--slots N 1..256",
        "--name text",
        "--farm-keys",
        "--cache-from URL text multiple",
        "--cache-keys FILE path file multiple",
        "--cache-to URL text",
        "--cache-sign FILE path file",
    ],
    "explain": [
        "PATH STAGE[.OPTION] text required",
    ],
    "help": [
        "WORDS [COMMAND]... text several",
    ],
    "init": [
        "TEMPLATE text =minimal",
        "--architecture amd64|arm64",
        "-o/--output FILE path",
    ],
    "inspect": [
        "--architecture",
        "WHAT IMAGE|REF|RECIPE text required",
        "--format",
        "--verify flag",
        "--resolved flag",
        "--mirror",
        "--source-date",
        "--plain",
        "--template",
        "--set",
        "--allow-outside",
        "--accel",
    ],
    "list": [
        "WHAT recipes|stages|checks|templates|images =recipes",
        "-o/--output path directory =out",
    ],
    "ostree diff": ["REPOSITORY path exists required", "BEFORE text", "AFTER text"],
    "ostree log": ["REPOSITORY path exists required", "REF text"],
    "ostree serve": ["REPOSITORY path exists required", "--port 0..65535 =8080"],
    "run": [
        "--architecture",
        "IMAGE",
        "--format",
        "--firmware bios|uefi|uefi-secure",
        "--ssh flag",
        "--keep flag",
        "--disk FILE path exists file multiple",
        "--disk-format raw|qcow2|vmdk|vdi|vhd|vpc|vhdx|qcow|qed|parallels|bochs|cloop|dmg",
        "--user-data FILE path exists file",
        "--forward HOST:GUEST text multiple",
        "--accel",
        "--memory",
        "--cpus",
        "--template",
    ],
    "schema": [
        "--included flag",
    ],
    "shell": [
        "--architecture",
        "RECIPE_PATH",
        "--set",
        "--allow-outside",
        "--allow-env",
        "--at STAGE text",
        "--failed flag",
        "--apt-indexes flag",
        "--base",
        "--mirror",
        "--scratch-size",
        "--source-date",
        "--plain",
        "--network",
        "--apt-proxy",
        "--accel",
        "--memory",
        "--cpus",
        "--template",
    ],
    "stage run": [
        "--architecture",
        "KIND TYPE text required",
        "--options FILE path required",
        "--base REF text required",
        "-o/--output FILE path",
        "--set",
        "--allow-outside",
        "--allow-env",
        "--accel",
        "--memory",
        "--cpus",
        "--mirror",
        "--apt-proxy",
        "--plain",
        "--network",
        "--template",
    ],
    "validate": [
        "--architecture",
        "RECIPES [RECIPE]... path several",
        "--set",
        "--allow-outside",
        "--format text|json|github =text",
    ],
    "version": [],
}


def declared_variables(parameter):
    """The environment variables of an option, without the one that every option has."""
    return parameter.envvar[1:] if isinstance(parameter, click.Option) else ()


def described(parameter):
    """An option or argument in words, without its help."""
    match parameter.type:
        case click.Choice(choices=choices):
            kind = "|".join(choices)
        case click.IntRange(min=least, max=most):
            kind = f"{least}..{'' if most is None else most}"
        case click.Path(exists=exists, file_okay=file, dir_okay=directory):
            kind = "path" + " exists" * exists + " file" * (not directory)
            kind += " directory" * (not file)
        case other:
            kind = "flag" if getattr(parameter, "is_flag", False) else other.name
    is_argument = isinstance(parameter, click.Argument)
    name = parameter.name.upper() if is_argument else "/".join(parameter.opts)
    # click has a value of its own for no default.
    default = parameter.default if isinstance(parameter.default, str | int | Path) else ""
    words = [
        name,
        parameter.metavar or "",
        kind,
        "" if default in ("", False) else f"={default}",
        *(word for word in ("required", "multiple", "hidden") if getattr(parameter, word, False)),
        "several" if parameter.nargs == -1 else "",
        *(f"${name}" for name in declared_variables(parameter)),
    ]
    return " ".join(filter(None, words))


@pytest.mark.parametrize("words", COMMANDS)
def test_the_options_of_each_command(words):
    command = cli
    for word in words.split():
        command = command.get_command(click.Context(command), word)
    shared = {line.partition(" ")[0]: line for line in SHARED.split("\n")}
    wanted = [shared.get(name, name) for name in COMMANDS[words]]
    wanted += OUTPUT.strip().split("\n")
    assert Counter(map(described, command.params)) == Counter(wanted)


def all_commands(group=cli, words=()):
    """Each command within a group, with its words."""
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        if isinstance(command, click.Group):
            yield from all_commands(command, (*words, name))
        else:
            yield " ".join((*words, name)), command


def test_every_command_is_known():
    assert sorted(words for words, _ in all_commands()) == sorted(COMMANDS)


def test_every_option_has_an_environment_variable_of_its_own():
    names = [
        option.envvar[0]
        for _, command in all_commands()
        for option in command.params
        if isinstance(option, click.Option)
    ]
    assert {"PARTICLE_OS_BUILD_OUTPUT", "PARTICLE_OS_STAGE_RUN_ALLOW_ENV"} <= set(names)
    assert {"PARTICLE_OS_BUILD_NO_CACHE", "PARTICLE_OS_CACHE_LIST_JSON"} <= set(names)
    assert max(Counter(names).values()) == 1


def test_no_short_option_has_two_meanings():
    for _, command in all_commands():
        options = [word for p in command.params if isinstance(p, click.Option) for word in p.opts]
        assert max(Counter(options).values(), default=1) == 1


def test_each_group_of_the_help_has_the_options_that_some_command_has():
    flags = {flag(p) for _, c in all_commands() for p in c.params if isinstance(p, click.Option)}
    flags |= {p.name for _, c in all_commands() for p in c.params}
    assert {name for names in GROUPS.values() for name in names} <= flags
