"""The service that updates a running system, and its timer."""

from __future__ import annotations

from particle_agent.contract.inspection import STAGE_UPDATE
from particle_agent.ostree.image.choices import AutomaticUpdates
from particle_agent.target.target import Target

UNITS = "/usr/lib/systemd/system"
NAME = "particle-os-update"
SCRIPT = "/usr/lib/particle-os/update"
# The version that the counted boots have rejected (see `boot_counting`).
REJECTED = "/var/lib/particle-os/rejected-version"
SCRIPT_TEXT = """\
#!/bin/sh
# Fetches the newest version, and prepares it for the next boot. A version that did not start here
# is not tried again.
set -eu
ostree admin upgrade --pull-only
origin=$(ostree admin status | sed -n 's/^ *origin refspec: //p' | head -n 1)
newest=$(ostree rev-parse "$origin")
if [ -e {rejected} ] && [ "$(cat {rejected})" = "$newest" ]; then
	echo "The newest version, $newest, did not start on this machine; waiting for the next one."
	exit 0
fi
# The first deployment is that of the next boot; a star marks the one that runs.
next=$(ostree admin status | sed -n '1s/^\\([* ]\\) [^ ]* \\([0-9a-f]*\\)[.].*/\\1\\2/p')
case $next in
"*$newest") echo "The newest version, $newest, runs." ;;
" $newest")
	echo "The newest version, $newest, is ready for the next boot."
	{pending}
	;;
*) exec {stage}{reboot} ;;
esac
"""
# ostree-finalize-staged.service(8) merges /etc and writes the menu when the system shuts down. An
# update that is not staged would lose all changes of /etc between now and the next boot.
SERVICE_TEXT = """\
[Unit]
Description=Fetch the newest version of the system
Documentation=man:ostree-admin-upgrade(1)
Wants=network-online.target
After=network-online.target particle-os-boot-success.service
ConditionPathExists=/run/ostree-booted

[Service]
Type=oneshot
ExecStart={script}
"""
TIMER_TEXT = """\
[Unit]
Description=Fetch the newest version of the system every day

[Timer]
OnCalendar=daily
RandomizedDelaySec=1h
Persistent=true

[Install]
WantedBy=timers.target
"""


def install(target: Target, how: AutomaticUpdates) -> None:
    """Lets machines update themselves. With `apply` they also reboot into the new version."""
    if how == "none":
        return
    reboot, pending = (" --reboot", "exec systemctl reboot") if how == "apply" else ("", "exit 0")
    text = SCRIPT_TEXT.format(rejected=REJECTED, stage=STAGE_UPDATE, reboot=reboot, pending=pending)
    target.write(SCRIPT, text, mode=0o755)
    target.write(f"{UNITS}/{NAME}.service", SERVICE_TEXT.format(script=SCRIPT))
    target.write(f"{UNITS}/{NAME}.timer", TIMER_TEXT)
    target.symlink(f"{UNITS}/timers.target.wants/{NAME}.timer", f"../{NAME}.timer")
