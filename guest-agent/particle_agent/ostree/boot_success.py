"""Counts the boots of an update: units of the running system, and GRUB's environment block.

An update is good when boot-complete.target is reached (systemd.special(7)): units of health checks
are required by this target. Otherwise GRUB returns to the version before it (see `boot_menu`).
"""

from __future__ import annotations

from particle_agent.contract import needs
from particle_agent.contract.needs import Need
from particle_agent.ostree.boot_menu import BLOCK, install_generator
from particle_agent.target.target import Target

EDITOR = "/usr/bin/grub-editenv"
UNITS = "/usr/lib/systemd/system"
STAGED = f"{UNITS}/ostree-finalize-staged.service.d/particle-os-count.conf"
# The service deploys the update when the system shuts down.
STAGED_TEXT = """\
[Service]
ExecStopPost={editor} {block} set boot_counter={boots} boot_success=0
ExecStopPost={editor} {block} unset boot_fallback
"""
SUCCESS = "particle-os-boot-success.service"
SUCCESS_TEXT = """\
[Unit]
Description=Keep the version that has booted
Documentation=man:ostree-admin-set-default(1)
Requires=boot-complete.target
After=boot-complete.target
ConditionPathExists=/run/ostree-booted

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={script}

[Install]
WantedBy=multi-user.target
"""
SCRIPT = "/usr/lib/particle-os/boot-success"
# After a return, the version that runs is the second entry of the menu.
SCRIPT_TEXT = """\
#!/bin/sh
set -eu
if {editor} {block} list | grep -qx boot_fallback=1; then
	ostree admin set-default 1
	echo 'The last update did not start; the version before it is the default again.'
fi
{editor} {block} set boot_success=1
{editor} {block} unset boot_counter boot_fallback
"""


def need() -> Need:
    """The need of counting: the editor of GRUB's environment block."""
    return needs.package("grub2-common", EDITOR, "boot-counting", "boot-counting")


def install(target: Target, boots: int) -> None:
    """Installs what writes the menu and counts. An update gets `boots` tries; 0 does not count."""
    install_generator(target)
    if not boots:
        return
    words = {"editor": EDITOR, "block": BLOCK, "boots": boots, "script": SCRIPT}
    target.write(STAGED, STAGED_TEXT.format(**words))
    target.write(f"{UNITS}/{SUCCESS}", SUCCESS_TEXT.format(**words))
    target.symlink(f"{UNITS}/multi-user.target.wants/{SUCCESS}", f"../{SUCCESS}")
    target.write(SCRIPT, SCRIPT_TEXT.format(**words), mode=0o755)
