"""An imitation of ostree(1), for tests of the stage `ostree`."""

import os
from pathlib import Path

from particle_agent.errors import CommandFailed
from particle_agent.ostree import boot_menu

CHECKSUM = "0123456789abcdef" * 4
PARENT = "fedcba9876543210" * 4
REF = "debian/13/amd64/edge"
GRUB_FILES = {
    "/usr/sbin/update-grub": "#!/bin/sh\n",
    "/usr/lib/grub/i386-pc/normal.mod": "module",
    "/usr/lib/grub/i386-pc/boot.img": "\x01" * 512,
    "/usr/lib/grub/x86_64-efi/moddep.lst": "normal:\n",
}


class Fake:
    """An imitation of ostree(1). It notes the state of the tree at the commit."""

    def __init__(self, target):
        self.target = target
        self.committed = None
        self.failing = ""

    def __call__(self, command):
        words = [word for word in command.argv[1:] if not word.startswith("-")]
        if self.failing in command.argv:
            raise CommandFailed(command.argv, 1, tail=("error: no space",))
        if words[0] == "commit":
            self.committed = {
                path: self.target.list(path) for path in ("/", "/boot", "/usr/etc", "/var")
            }
        elif words[:2] == ["admin", "deploy"]:
            self.deploy(command)

    def deploy(self, command):
        (option,) = [word for word in command.argv if word.startswith("--sysroot=")]
        place = Path(option.removeprefix("--sysroot="))
        checksum = PARENT if place.parent.name == "disk-parent" else CHECKSUM
        deployed = place / f"ostree/deploy/debian/deploy/{checksum}.0"
        (deployed / "etc").mkdir(parents=True)
        (deployed / "etc/fstab").write_text("")
        (place / "boot/loader").mkdir(parents=True)
        # OSTree runs the generator that the variable names.
        assert os.access(command.env[boot_menu.VARIABLE], os.X_OK)


def write_image(target, command):
    target.write(command.argv[command.argv.index("-o") + 1], "core".ljust(1500))


def verbs(target):
    """The verbs of ostree(1) in their order."""
    return [
        " ".join(word for word in command.argv[1:3] if not word.startswith("-"))
        for command in target.commands
        if command.argv[0] == "ostree"
    ]


def commit_words(target):
    (found,) = [c.argv for c in target.commands if c.argv[:2] == ("ostree", "commit")]
    return found
