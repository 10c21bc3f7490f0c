# Runs inside the image under test, as a transient unit that systemd took from SMBIOS.
# $1 is this run's nonce. The answer goes to the second serial port, one "NAME base64" a line. Under
# emulation each program takes a quarter of a second to start, so the shell does most of the work.
exec >/dev/ttyS1 2>/dev/null

# Runs a program for at most $seconds, and writes its status, or "late", to the file $status.
limited() {
	# A program that never ends leaves this status.
	echo late >"$status"
	read -r begun _ </proc/uptime
	timeout -k 2 -- "$seconds" "$@" </dev/null
	ended=$?
	read -r now _ </proc/uptime
	# A program may itself end with 124 or 137: time decides. The 1 keeps 08 from being octal.
	took=$(((${now%.*} - ${begun%.*}) * 100 + 1${now#*.} - 1${begun#*.}))
	case $ended in
	124 | 137) [ "$took" -lt "$((seconds * 100))" ] || ended=late ;;
	esac
	echo "$ended" >"$status"
}

# Passes on at most $1 bytes of the output of such a program, and reads the rest.
bounded() {
	# A daemon that the program left behind may hold the pipe open.
	timeout "$((seconds + 2))" cat | {
		head -c "$1"
		cat >/dev/null
	}
}

# Runs a program for a check; answers with up to 64 KiB of its output and its status, or "late".
# $1: the check's number, $2: the time limit in seconds, then the program and its arguments.
try() {
	number=$1 seconds=$2 status=$RUNTIME_DIRECTORY/status
	shift 2
	printf 'reply:%s ' "$number"
	limited "$@" 2>&1 | bounded 65536 | base64 -w0
	read -r status <"$status"
	echo " $status"
}

# Runs the command in the file $2 for a test of the host; answers with up to 1 MiB of its output, up
# to 64 KiB of its errors, and its status. $1: the number of the order, $3: the limit in seconds.
run() {
	seconds=$3 status=$RUNTIME_DIRECTORY/status errors=$RUNTIME_DIRECTORY/errors
	export HOME=/root
	printf 'ran:%s ' "$1"
	# The errors go into the inner pipe, the output into the outer one.
	{
		limited sh "$2" 2>&1 >&3 3>&- | bounded 65536 >"$errors" 3>&-
	} 3>&1 | bounded 1048576 | base64 -w0
	printf ' '
	base64 -w0 <"$errors"
	read -r status <"$status"
	echo " $status"
}

# Answers with the first MiB of a program's output.
file() {
	printf 'file:%s ' "$1"
	shift
	timeout -k 5 60 "$@" </dev/null | head -c 1048576 | base64 -w0
	echo
}

# Hands over the files for people, including a plot if $2 is set; see files.py.
files() {
	echo "PARTICLE-OS-FILES $1"
	file packages.txt dpkg-query -W -f '${Package} ${Version} ${Architecture} ${Installed-Size}\n'
	file journal.txt journalctl --boot --output short-monotonic --lines 10000 --no-pager --quiet
	# A plot queries systemd for each unit, which takes long under emulation. sed removes the
	# tooltips, which name all dependencies of all units, and the lines of tenths of seconds.
	if [ "$2" ]; then
		file plot.svg sh -c "systemd-analyze plot | sed '/<title>/,/<\\/title>/d; /sec01/d'"
	fi
	echo "PARTICLE-OS-FILES-END $1"
}

# A fact begins with a record separator and its name; the following lines are its value.
fact() {
	printf '\036%s\n' "$1"
	shift
	[ $# = 0 ] || printf '%s\n' "$1"
}
# Prints the failed units and the crash-looping units, a line each, with the sub state. systemd
# counts a unit that crashes and restarts for ever as running.
bad_units() {
	systemctl list-units --state=failed,auto-restart --plain --no-legend --no-pager |
		while read -r unit _ _ state _; do
			# The restart of a unit that exits with success may be intended.
			[ "$state" != auto-restart ] ||
				[ "$(systemctl show --value --property=Result -- "$unit" </dev/null)" != success ] ||
				continue
			printf '%s %s\n' "$unit" "$state"
		done
}
# Waits for what systemd has no job for, and has limits of its own: drivers of devices, and, when
# there are checks, the addresses that systemd-networkd gives to network cards.
settle() {
	timeout -k 2 70 udevadm settle --timeout=60
	if [ -s "$CREDENTIALS_DIRECTORY/particle-os.questions.000" ] && [ -e /run/systemd/netif/state ]; then
		timeout -k 2 40 /usr/lib/systemd/systemd-networkd-wait-online --quiet --timeout=30
	fi
} >/dev/null </dev/null
# Prints the units that systemd has restarted (sd-messages(3), UNIT_RESTART_SCHEDULED).
restarts() {
	journalctl --boot --quiet --no-pager --output cat --output-fields UNIT \
		MESSAGE_ID=5eb03494b6584870a536b337290809b2
}
# Prints the facts that are no judgement.
other_facts() {
	# The subshell contains the error when the file is missing or is no shell script.
	fact system "$(. /etc/os-release && printf '%s\n' "$PRETTY_NAME")"
	for name in kernel:/proc/sys/kernel/osrelease hostname:/proc/sys/kernel/hostname \
		machine-id:/etc/machine-id; do
		line=
		# The newline at the end may be missing.
		read -r line <"${name#*:}"
		[ -z "$line" ] || fact "${name%%:*}" "$line"
	done
	while read -r source place type options _; do
		[ "$place" != / ] || root="$source $type $options"
	done </proc/self/mounts
	fact root-device "$root"
	# The script inherits the manager's environment.
	fact language "$LANG"
	fact timezone
	readlink /etc/localtime
	fact ssh-host-keys
	cat /etc/ssh/ssh_host_*_key.pub
	fact boot-times
	systemd-analyze time
}
facts() {
	settle
	# --wait returns when no job is left; our own unit's job ended when this script started.
	state=$(systemctl is-system-running --wait)
	# systemd calls a service started before its program runs. The last services get the time of
	# the other facts and a second to crash.
	others=$(other_facts)
	sleep 1
	bad=$(bad_units)
	# Between two restarts a crashing unit runs for a moment, at which systemd has no job left.
	[ -n "$bad" ] || [ -z "$(restarts)" ] || for _ in 1 2 3 4 5; do
		sleep 1
		bad=$(bad_units)
		[ -z "$bad" ] || break
	done
	fact state "$state"
	fact failed
	printf '%s\n' "$bad" | while read -r unit how; do
		[ "$how" = auto-restart ] || printf '%s\n' "$unit"
	done
	fact crash-looping
	printf '%s\n' "$bad" | while read -r unit how; do
		[ "$how" != auto-restart ] || printf '%s\n' "$unit"
	done
	[ -z "$bad" ] || printf '%s\n' "$bad" | {
		count=0
		while read -r unit _; do
			count=$((count + 1))
			[ "$count" -le 20 ] || continue
			fact "journal:$unit"
			journalctl --boot --unit "$unit" --lines 10 --output cat --no-pager
		done
		more=$((count - 20))
		[ "$more" -le 0 ] ||
			fact "journal:$more more" "$more more units failed; their journals are left out."
	}
	printf '%s\n' "$others"
}

echo "PARTICLE-OS-PROBE $1"
printf 'facts '
facts | base64 -w0
echo
# Each line: the check's number, the seconds, and the arguments. An argument is a dot and the text,
# with octal escapes for special characters.
cat "$CREDENTIALS_DIRECTORY"/particle-os.questions.* | while read -r number seconds words; do
	set --
	for word in $words; do
		# The second dot keeps newlines at the end of an argument.
		argument=$(printf '%b.' "${word#.}")
		set -- "$@" "${argument%.}"
	done
	try "$number" "$seconds" "$@"
done
echo "PARTICLE-OS-PROBE-END $1"
# The host looks at the running system from outside first. Then it may order commands for its tests,
# files, or a shutdown. A command comes in pieces, with octal escapes for special characters.
command=$RUNTIME_DIRECTORY/command
while read -r order number rest; do
	case $order in
	put)
		printf '%b' "$rest" >>"$command"
		echo "taken:$number"
		;;
	run)
		run "$number" "$command" "$rest"
		rm -f "$command"
		;;
	files) files "$1" "$number" ;;
	poweroff) systemctl poweroff --no-block ;;
	esac
done </dev/ttyS1
