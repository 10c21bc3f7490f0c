# Runs inside the image under test, as a transient unit that systemd took from SMBIOS.
# $1 is this run's nonce. It answers on the second serial port, one "NAME base64" a line.
exec >/dev/ttyS1 2>/dev/null
say() { echo "$1 $(printf %s "$2" | base64 -w0)"; }

echo "PARTICLE-OS-PROBE $1"
# Waits until no job is left; our own unit's job ended when this script started.
say state "$(systemctl is-system-running --wait)"
say failed "$(systemctl list-units --state=failed --plain --no-legend --no-pager | cut -d' ' -f1)"
for unit in $(systemctl list-units --state=failed --plain --no-legend --no-pager | cut -d' ' -f1); do
	say "journal:$unit" "$(journalctl --boot --unit "$unit" --lines 10 --output cat --no-pager)"
done
while IFS= read -r unit; do
	[ -z "$unit" ] || say "unit:$unit" "$(systemctl is-active -- "$unit")"
done <"$CREDENTIALS_DIRECTORY/particle-os.units"
. /etc/os-release
say system "$PRETTY_NAME"
say kernel "$(uname -r)"
say hostname "$(uname -n)"
say machine-id "$(cat /etc/machine-id)"
say timezone "$(readlink /etc/localtime)"
say local-time "$(date +%Z)"
say locale "$(cat /etc/locale.conf /etc/default/locale | sort -u)"
say locales "$(locale -a)"
say manager-environment "$(systemctl show-environment)"
say users "$(grep -E ':[0-9]{4,}:' /etc/passwd)"
say groups "$(cat /etc/group)"
say ssh-host-keys "$(cat /etc/ssh/ssh_host_*_key.pub)"
say root-device "$(findmnt -n -o SOURCE,FSTYPE,OPTIONS /)"
say boot-times "$(systemd-analyze time)"
echo "PARTICLE-OS-PROBE-END $1"
