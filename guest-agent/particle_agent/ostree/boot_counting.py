"""Counts the boots of an update: units of the running system, and GRUB's environment block.

An update is good when boot-complete.target is reached (systemd.special(7)): units of health checks
are required by this target. If it cannot be reached, the machine restarts until the counted boots
are used up; GRUB then returns to the version before the update (see `boot_menu`).

The counting belongs to the update, which names its number of boots. The version that runs sets the
counter before OSTree switches to another menu (see `boot_menu`), and again when it shuts down: an
older version may have written the menu, and a success that comes later ends a count.
"""

from __future__ import annotations

from particle_agent.contract import needs
from particle_agent.contract.inspection import COUNTED_BOOTS
from particle_agent.contract.needs import Need
from particle_agent.ostree.boot_menu import BLOCK, BLOCK_BYTES, COUNTER, install_generator
from particle_agent.ostree.image.automatic_updates import REJECTED
from particle_agent.target.target import Target

EDITOR = "/usr/bin/grub-editenv"
UNITS = "/usr/lib/systemd/system"
PROGRAMS = "/usr/lib/particle-os"
# Reads and changes GRUB's environment block.
STATE = f"{PROGRAMS}/boot-state"
# A job that waits for a health check which never ends fails after so many seconds.
LIMIT_SECONDS = 900
# After so many seconds, a kernel that panics, and an initramfs that finds no root, restart.
PANIC_ARGUMENT = "panic=10"
SUCCESS, COUNT, FAILURE = (
    f"particle-os-boot-{name}.service" for name in ("success", "count", "failure")
)
UNIT_TEXTS = {
    f"{UNITS}/{SUCCESS}": f"""\
[Unit]
Description=Keep the version that has booted
Documentation=man:ostree-admin-set-default(1)
Requires=boot-complete.target
After=boot-complete.target
OnFailure={FAILURE}
JobTimeoutSec={LIMIT_SECONDS}
ConditionPathExists=/run/ostree-booted
ConditionFileIsExecutable={EDITOR}

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={PROGRAMS}/boot-success

[Install]
WantedBy=multi-user.target
""",
    # A service that stops after ostree-finalize-staged.service, which deploys a staged update.
    f"{UNITS}/{COUNT}": f"""\
[Unit]
Description=Count the boots of an update
DefaultDependencies=no
ConditionPathExists=/run/ostree-booted
RequiresMountsFor=/sysroot /boot
After=local-fs.target
Before=basic.target ostree-finalize-staged.service final.target
Conflicts=final.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=true
ExecStop={COUNTER}

[Install]
WantedBy=multi-user.target
""",
    f"{UNITS}/{FAILURE}": f"""\
[Unit]
Description=Restart the machine when an update does not succeed
DefaultDependencies=no
ConditionPathExists=/run/ostree-booted

[Service]
Type=oneshot
ExecStart={PROGRAMS}/boot-failure
""",
    # No health check runs in emergency mode.
    f"{UNITS}/emergency.target.d/particle-os-boot-failure.conf": f"[Unit]\nWants={FAILURE}\n",
}
# grub-editenv empties the file before it writes. A machine that loses its power then would keep an
# empty block, which neither GRUB nor the program reads. Also, GRUB replays no journal of the file
# system: it would find the blocks that the file had before. So the block is written as GRUB writes
# it: in its place, in one write. The variables fit into one sector.
STATE_SCRIPT = f"""\
#!/bin/sh
# Prints GRUB's environment block ('list'), or changes it at once: NAME=VALUE sets, NAME removes.
set -eu
block={BLOCK}
# A block that is damaged counts as an empty one.
if [ "$1" = list ]; then
	{EDITOR} "$block" list 2>/dev/null || :
	exit 0
fi
new=$(mktemp /run/particle-os-boot-state.XXXXXX)
trap 'rm -f "$new"' EXIT
{EDITOR} "$new" create
{EDITOR} "$block" list 2>/dev/null | while read -r line; do
	{EDITOR} "$new" set "$line"
done
for change; do
	case $change in
	*=*) {EDITOR} "$new" set "$change" ;;
	*) {EDITOR} "$new" unset "$change" ;;
	esac
done
keep=
[ "$(stat -c %s "$block" 2>/dev/null)" != {BLOCK_BYTES} ] || keep=notrunc,
dd if="$new" of="$block" bs={BLOCK_BYTES} conv="${{keep}}fsync" status=none
[ "$keep" ] || sync -f "$block"
"""
# After a return, the version that runs is the second entry of the menu.
SUCCESS_SCRIPT = f"""\
#!/bin/sh
set -eu
first=$(ostree admin status | head -n 1)
if {STATE} list | grep -qx boot_fallback=1 && [ "${{first#[*]}}" = "$first" ]; then
	mkdir -p {REJECTED.rpartition("/")[0]}
	echo "$first" | sed -n 's/^ *[^ ]* \\([0-9a-f]*\\)[.].*/\\1/p' >{REJECTED}
	ostree admin set-default 1
	echo 'The new version did not start; the version before it is the default again.'
fi
{STATE} boot_success=1 boot_counter boot_fallback
# The success is that of the version that runs. Another one may be the next already.
exec {COUNTER}
"""
# After a return there is no other version, and the machine stays for its administrator.
FAILURE_SCRIPT = f"""\
#!/bin/sh
set -eu
[ -x {EDITOR} ] || exit 0
state=$({STATE} list)
if echo "$state" | grep -qx boot_success=0 && ! echo "$state" | grep -qx boot_fallback=1; then
	echo 'The update has not succeeded; restarting.'
	systemctl --no-block reboot
fi
"""
COUNT_SCRIPT = f"""\
#!/bin/sh
# Sets the counter when the next boot starts another version than the one that runs: that of the
# first entry in a directory, which is /boot/loader/entries if none is named.
set -eu
[ -x {EDITOR} ] || exit 0
entries=${{1:-/boot/loader/entries}}
first=$(ls -v -r "$entries" | head -n 1)
next=
for word in $(sed -n 's/^options //p' "$entries/$first"); do
	case $word in
	ostree=*) next=$(readlink -f "/sysroot${{word#ostree=}}") ;;
	esac
done
# OSTree marks the deployment that runs. The kernel's command line may name a link that is gone.
if ostree admin status | grep -q "^[*] [^ ]* ${{next##*/}}"; then exit 0; fi
boots=0
[ ! -s "$next{COUNTED_BOOTS}" ] || read -r boots <"$next{COUNTED_BOOTS}" || :
case $boots in
[1-9]) {STATE} boot_counter="$boots" boot_success=0 boot_fallback ;;
*) {STATE} boot_counter boot_success boot_fallback ;;
esac
"""
SCRIPTS = {
    f"{PROGRAMS}/boot-success": SUCCESS_SCRIPT,
    f"{PROGRAMS}/boot-failure": FAILURE_SCRIPT,
    COUNTER: COUNT_SCRIPT,
    STATE: STATE_SCRIPT,
}


def need() -> Need:
    """The need of counting: the editor of GRUB's environment block."""
    return needs.package("grub2-common", EDITOR, "boot-counting", "boot-counting")


def install(target: Target, boots: int) -> None:
    """Installs what writes the menu and counts. This version gets `boots` tries; 0: no count.

    A version without a count still counts the boots of the next one.
    """
    install_generator(target)
    target.write(COUNTED_BOOTS, f"{boots}\n")
    for place, text in UNIT_TEXTS.items():
        target.write(place, text)
    for place, text in SCRIPTS.items():
        target.write(place, text, mode=0o755)
    for unit in (SUCCESS, COUNT):
        target.symlink(f"{UNITS}/multi-user.target.wants/{unit}", f"../{unit}")


def arguments(line: str) -> str:
    """The kernel's command line, with what lets a kernel that panics count as a failed boot."""
    if any(word.startswith("panic=") for word in line.split()):
        return line
    return f"{line} {PANIC_ARGUMENT}"
