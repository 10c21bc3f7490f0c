"""GRUB's menu for deployments: OSTree's entries, and a count of the boots of an update.

OSTree switches the menu with one rename, of the link /boot/loader. GRUB's own menu, grub.cfg, never
changes: it reads OSTree's, and leaves an update that has not succeeded within the counted boots.
"""

from __future__ import annotations

import io

from particle_agent.disk.boot import Booting
from particle_agent.disk.grub import DIRECTORY, Grub, terminals
from particle_agent.target.target import Target

GENERATOR = "/usr/lib/particle-os/ostree-grub-generator"
# Sets GRUB's counter for the first entry of a directory (see `boot_counting`).
COUNTER = "/usr/lib/particle-os/boot-count"
# ostree(1) runs the program that this variable names in place of grub-mkconfig(8), whose menus have
# no deployments on Debian: GENERATOR -o FILE.
VARIABLE = "OSTREE_GRUB2_EXEC"
# OSTree writes its entries, runs this program, and only then switches to the new menu. So the
# counter is set when the machine loses its power after the switch. If it cannot be set, OSTree
# keeps the old menu. A build has no /run/ostree-booted.
# BLS: https://uapi-group.org/specifications/specs/boot_loader_specification/
GENERATOR_TEXT = r"""#!/bin/sh
# Writes GRUB's menu for the entries of OSTree's deployments, the default first.
set -eu
out=$2
entries=$(dirname "$out")/entries
# GRUB takes the character after a backslash as it is.
plain() {
	printf %s "$1" | LC_ALL=C sed 's|[^A-Za-z0-9 _@%+=:,./~^-]|\\&|g'
}
names=$(ls -v -r "$entries")
# GRUB goes on with the second entry, which must exist, when it cannot load the kernel of the first.
note='	set tried=1'
[ "$(ls "$entries" | wc -l)" -lt 2 ] || note="$note
	set fallback=1"
for name in ${names:?there are no entries}; do
	title= linux= initrd= options=
	while read -r key value || [ -n "$key" ]; do
		case $key in
		title) title=$value ;;
		linux) linux=$value ;;
		initrd) initrd=$value ;;
		options) options=$value ;;
		esac
	done <"$entries/$name"
	title=$(printf %s "$title" | tr -d "'[:cntrl:]")
	printf "menuentry '%s' --unrestricted {\n" "$title"
	printf '%s\n' "$note"
	note='	if [ "${tried}" = "1" ]; then set boot_fallback=1; save_env boot_fallback; fi'
	printf '\tlinux %s %s\n' "$(plain "$linux")" "$(plain "$options")"
	if [ -n "$initrd" ]; then printf '\tinitrd %s\n' "$(plain "$initrd")"; fi
	echo '}'
done >"$out"
[ ! -e /run/ostree-booted ] || [ ! -x COUNTER ] || COUNTER "$entries"
""".replace("COUNTER", COUNTER)
# The manager's variables reach ostree-finalize-staged.service, pam_env's those who log in.
MANAGER = "/usr/lib/systemd/system.conf.d/ostree-grub.conf"
MANAGER_TEXT = f"[Manager]\nDefaultEnvironment={VARIABLE}={GENERATOR}\n"
SESSIONS = "/etc/environment"
# GRUB's environment block: 1024 bytes (include/grub/lib/envblk.h).
BLOCK = f"{DIRECTORY}/grubenv"
BLOCK_HEAD, BLOCK_BYTES = "# GRUB Environment Block\n", 1024
MENU = """\
# Made with the image, and for all its updates: OSTree writes the entries.
{terminals}load_env
set timeout=1
set default=0
{counting}source /boot/loader/grub.cfg
"""
# The most boots that any update counts. The menu is that of the first version of a machine, so it
# counts whether this version counts or not.
MOST_BOOTS = 9
# GRUB has no arithmetic.
COUNTING = """\
if [ "${boot_success}" = "0" ]; then
	if [ "${boot_counter}" = "0" ]; then
		set default=1
		set fallback=0
		set boot_fallback=1
		save_env boot_fallback
		echo 'The update did not start: booting the version before it.'
"""
STEP = """\
	elif [ "${{boot_counter}}" = "{now}" ]; then
		set boot_counter={next}
		save_env boot_counter
"""
# A counter that is no such number ends the count, too.
LAST_STEP = """\
	else
		set boot_counter=0
		save_env boot_counter
"""


class DeploymentGrub(Grub):
    """GRUB with OSTree's entries, which counts the boots of updates."""

    def prepare(self, target: Target, booting: Booting) -> None:
        self.write_programs(target, booting)
        target.write(BLOCK, BLOCK_HEAD.ljust(BLOCK_BYTES, "#"))
        target.write(f"{DIRECTORY}/grub.cfg", menu(serial=self.has_serial))


def menu(*, serial: bool = True) -> str:
    """The text of grub.cfg."""
    steps = "".join(STEP.format(now=n, next=n - 1) for n in range(MOST_BOOTS, 0, -1))
    shown = terminals(serial=serial)
    return MENU.format(terminals=shown, counting=f"{COUNTING}{steps}{LAST_STEP}\tfi\nfi\n")


def install_generator(target: Target) -> None:
    """Lets the running system write the menu when OSTree changes the deployments."""
    target.write(GENERATOR, GENERATOR_TEXT, mode=0o755)
    target.write(MANAGER, MANAGER_TEXT)
    kept = target.read_bytes(SESSIONS).splitlines() if target.is_file(SESSIONS) else []
    kept = [line for line in kept if not line.startswith(f"{VARIABLE}=".encode())]
    lines = b"".join(line + b"\n" for line in (*kept, f"{VARIABLE}={GENERATOR}".encode()))
    target.write_from(io.BytesIO(lines), SESSIONS)
