"""The scripts of the tests of updates, which run as root in an OSTree system (ostree(1))."""

from __future__ import annotations

import re

from particle_agent.contract.inspection import COUNTED_BOOTS, STAGE_UPDATE

# The serial number of the disk with the update, which udev makes a link of.
UPDATE = "update"
DEPLOYMENT = re.compile(r"[0-9a-f]{64}\.[0-9]+")

PRELUDE = """\
set -eu
# Prints the deployment that runs, which OSTree marks. After a change of the deployments, the link
# that the kernel's command line names may be gone.
deployment() {
	ostree admin status | sed -n 's/^[*] [^ ]* \\([0-9a-f]*[.][0-9]*\\).*/\\1/p'
}
"""
# Prints the deployment that runs: CHECKSUM.NUMBER.
RUNNING = f"{PRELUDE}deployment\n"
# A file of the machine in /var, and one of its own in /etc.
MARK = """\
set -eu
echo kept >/var/lib/particle-os-update-test
echo kept >/etc/particle-os-update-test
"""
MARKED = """\
set -eu
for file in /var/lib/particle-os-update-test /etc/particle-os-update-test; do
	grep -qx kept "$file" || { echo "$file is lost" >&2; exit 1; }
done
"""
# Takes the newest commit of the branch that the machine follows, from the disk in place of the
# server. The signature is verified as it would be for the server. Prints the new commit.
TAKE = f"""\
{PRELUDE}
disk=/run/particle-os-update
mkdir -p $disk
mount -o ro /dev/disk/by-id/virtio-{UPDATE} $disk
origin=$(sed -n 's/^refspec=//p' /sysroot/ostree/deploy/*/deploy/"$(deployment)".origin)
ostree pull --url=file://$disk "${{origin%%:*}}" "${{origin#*:}}" >&2
new=$(ostree rev-parse "$origin")
case $(deployment) in
"$new".*)
	echo 'the repository has no newer commit of the branch' >&2
	exit 1
	;;
esac
{STAGE_UPDATE} >&2
umount $disk
echo "$new"
"""
# The version before the one that runs becomes the default.
RETURN = "ostree admin set-default 1\n"
# The number of boots that an update gets, of this version and of one that is made from it.
COUNTED = f"cat {COUNTED_BOOTS}\n"
# An update that boots and never succeeds: a health check of it fails. In it the probe does not
# start, so that only a good version answers. A drop-in holds for units from credentials, too, which
# no file can mask.
BREAK = f"""\
{PRELUDE}
running=$(deployment)
changes=$(mktemp -d)
units=$changes/usr/lib/systemd/system
mkdir -p $units/boot-complete.target.requires $units/particle-os-probe.service.d
chmod 0755 $changes
cat >$units/particle-os-broken.service <<end
[Unit]
Description=The health check of a broken update
Before=boot-complete.target
[Service]
Type=oneshot
ExecStart=/bin/false
end
ln -s ../particle-os-broken.service $units/boot-complete.target.requires/
cat >$units/particle-os-probe.service.d/broken.conf <<end
[Unit]
ConditionPathExists=/nonexistent
end
# /sysroot is read-only for all others.
unshare --mount sh -ec '
	mount -o remount,rw /sysroot
	ostree commit --repo=/ostree/repo --branch=particle-os/broken --bootable \\
		--tree=ref="$1" --tree=dir="$2"
' sh "${{running%.*}}" "$changes" >&2
rm -r "$changes"
ostree admin deploy --stage particle-os/broken >&2
"""
# Prints whether the version that runs is the default, and what GRUB knows about its success.
STATE = f"""\
{PRELUDE}
first=$(ls -v -r /boot/loader/entries | head -n 1)
for word in $(cat "/boot/loader/entries/$first"); do
	case $word in
	ostree=*)
		next=$(basename "$(readlink -f "/sysroot${{word#ostree=}}")")
		[ "$next" = "$(deployment)" ] || {{
			echo 'the next boot starts the bad version again' >&2
			exit 1
		}}
		;;
	esac
done
grub-editenv /boot/grub/grubenv list | grep -qx boot_success=1 || {{
	echo 'GRUB has no note that the boot succeeded' >&2
	exit 1
}}
"""
