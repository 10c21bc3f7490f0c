#!/usr/bin/busybox sh
# Init of the helper VM: network, the key handshake on the console, then sshd.
# The console is the trusted channel: the host sends the keys of this build and the time over it.
PATH=/usr/sbin:/usr/bin
export PATH
bb=/usr/bin/busybox

$bb mkdir /dev/pts
$bb mount -t devpts devpts /dev/pts
$bb mount -t tmpfs -o mode=0755 tmpfs /run
$bb mount -t tmpfs -o mode=1777,size=75% tmpfs /tmp
$bb mkdir -m 0755 /run/sshd
$bb mkdir -m 0700 /run/particle-os
$bb ln -sf /proc/self/fd /dev/fd

fail() {
	echo "PARTICLE""-OS-FAILED: $*"
	$bb poweroff -f
}

# Unbinds the driver from all disks except the root. A machine that is saved has empty placeholder
# disks. A machine that runs from the saved memory has the real disks behind these devices, and
# `bind` makes the driver read each disk's properties.
disks=
driver=/sys/bus/virtio/drivers/virtio_blk
for serial in $driver/virtio*/block/vd*/serial; do
	# The serial ends without a newline, so read fails.
	read -r name <"$serial" || :
	disk=${serial#"$driver/"}
	disk=${disk%%/*}
	[ "$name" = helper-root ] || disks="$disks $disk"
done
for disk in $disks; do
	echo "$disk" >$driver/unbind
done

# Starts the other processors after the devices have mapped their memory (running.py says why).
for processor in /sys/devices/system/cpu/cpu*/online; do
	echo 1 >"$processor"
done

# The kernel loads the modules that a firewall's rules need when a stage checks them.
echo /particle-os/modprobe.sh >/proc/sys/kernel/modprobe

# Maintainer scripts read and store the hostname, so set a neutral one.
echo localhost >/proc/sys/kernel/hostname

# QEMU's user networking has these addresses. The host reaches sshd through eth0, and nothing else is
# behind that card. The host takes the cable of eth1 out while no stage may use the network.
$bb ip link set lo up
$bb ifconfig eth0 192.0.2.15 netmask 255.255.255.0
$bb ifconfig eth1 10.0.2.15 netmask 255.255.255.0
$bb ip route add default via 10.0.2.2
echo "nameserver 10.0.2.3" >/etc/resolv.conf

# The state of this machine may be saved and run many times, so load the files and the agent that
# every build needs; the agent waits for orders (waiting.py). No secret exists yet.
agent=none
seeded=/run/particle-os/seeded
$bb mkfifo $seeded
read -r line </proc/cmdline
case $line in
*particle_os.preheat*)
	for packed in /particle-os/agent-*.pyz; do
		agent=${packed%.pyz}
		$bb unzip -q "$packed" -d "$agent"
		/usr/bin/python3 -I -S "$agent" serve &
		until [ -p "/run/particle-os/${agent##*/}" ]; do
			kill -0 $! || fail "no agent"
			$bb usleep 100000
		done
	done
	cd /usr/bin && $bb cat tar zstd mount sha256sum ../sbin/chroot ../sbin/sshd \
		../sbin/mke2fs ../sbin/sfdisk ../lib/openssh/sshd-* ../lib/*/libcrypto.so.3 >/dev/null
	cd /
	;;
esac

# Starts sshd until it needs its key: it blocks on the pipe without a writer. None of this process's
# random numbers go over the wire, because a new program serves each connection.
key=/run/particle-os/host_key
$bb mkfifo -m 0600 $key
/usr/sbin/sshd -D -e -f /particle-os/sshd_config &
sshd=$!
tries=0 place=
until [ "$place" = wait_for_partner ] || [ $tries -ge 250 ]; do
	tries=$((tries + 1))
	$bb usleep 20000
	read -r place </proc/$sshd/wchan || :
done
# sshd reads the key twice, and the second time it must find a file.
$bb mv $key $key.pipe

# Waits for the kernel's message, from now on: a program started after a restore would be slow.
$bb grep -q -m 1 "due to virtual machine fork" /dev/kmsg &
notice=$!
$bb stty -echo </dev/console
echo "PARTICLE""-OS-READY"
while IFS= read -r line; do
	case $line in
	KEY\ *) break ;;
	esac
done </dev/console
# KEY booted|restored|noticed seconds-since-1970 random-bytes ssh-ed25519 user-key host-key
set -f
# shellcheck disable=SC2086
set -- $line
set +f
# Other machines may run from the same memory, so accept no secret until the kernel uses the random
# bytes of the host. Where QEMU has vmgenid, the kernel must also have noticed the restore. The end of
# the program that waits for that would interrupt the shell when it opens a pipe, so it comes first.
case $2 in
noticed) wait "$notice" || fail "the restore was not noticed" ;;
esac
if [ -p "/run/particle-os/${agent##*/}" ]; then
	echo "seed $4 $3 $seeded" >"/run/particle-os/${agent##*/}"
	read -r answer <$seeded && [ "$answer" = seeded ] || fail "no new random seed"
else
	for packed in /particle-os/agent-*.pyz; do
		/usr/bin/python3 -I -S "$packed" seed "$4" "$3" || fail "no new random seed"
	done
fi
umask 077
echo "$5 $6" >/run/particle-os/authorized_keys
private="-----BEGIN OPENSSH PRIVATE KEY-----
$7
-----END OPENSSH PRIVATE KEY-----"
echo "$private" >$key
echo "$private" >$key.pipe
umask 022
for disk in $disks; do
	echo "$disk" >$driver/bind || fail "no disk $disk"
done
wait $sshd
fail "sshd has ended"
