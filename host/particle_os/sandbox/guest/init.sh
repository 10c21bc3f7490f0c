#!/usr/bin/busybox sh
# Init of the helper VM: network, the key handshake on the console, then sshd.
# The console is the trusted channel: over it the host hands in the keys of this build and the time.
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

# Lets go of the disks but the root, which are empty ones until the machine runs from its saved
# memory: then others are behind the same devices, and `bind` asks each what it is.
disks=
driver=/sys/bus/virtio/drivers/virtio_blk
for serial in $driver/virtio*/block/vd*/serial; do
	# No newline follows.
	read -r name <"$serial" || :
	disk=${serial#"$driver/"}
	disk=${disk%%/*}
	[ "$name" = helper-root ] || disks="$disks $disk"
done
for disk in $disks; do
	echo "$disk" >$driver/unbind
done

# All devices have their memory mapped (sandbox.py says why not before).
for processor in /sys/devices/system/cpu/cpu*/online; do
	echo 1 >"$processor"
done

# Packages ask for it, and keep it: nothing of this machine.
echo localhost >/proc/sys/kernel/hostname

# User networking of QEMU always has these addresses.
$bb ip link set lo up
$bb ifconfig eth0 10.0.2.15 netmask 255.255.255.0
$bb ip route add default via 10.0.2.2
echo "nameserver 10.0.2.3" >/etc/resolv.conf

# The state of this machine may be saved now and run many times: what every build starts with is
# read, and the agent waits for its orders (server.py). No secret exists yet.
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

# sshd starts as far as it comes without its key: it waits for someone who writes to the pipe. None of
# its random numbers go over the wire: a program that it starts for a connection speaks there.
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
# It reads the key twice, the second time from a file.
$bb mv $key $key.pipe

# Waits for the kernel's word; a program that starts only after a restore would take its time.
$bb grep -q -m 1 "due to virtual machine fork" /dev/kmsg &
notice=$!
$bb stty -echo </dev/console
echo "PARTICLE""-OS-READY"
while IFS= read -r line; do
	case $line in
	KEY\ *) break ;;
	esac
done </dev/console
# KEY booted|restored seconds-since-1970 ssh-ed25519 user-key host-key
set -f
# shellcheck disable=SC2086
set -- $line
set +f
if [ "$2" = restored ]; then
	# No secret before the kernel has noticed (vmgenid) that others may run from the same memory.
	wait "$notice" || fail "no new random seed"
fi
$bb date -u -s "@$3" >/dev/null &
clock=$!
umask 077
echo "$4 $5" >/run/particle-os/authorized_keys
private="-----BEGIN OPENSSH PRIVATE KEY-----
$6
-----END OPENSSH PRIVATE KEY-----"
echo "$private" >$key
wait $clock
echo "$private" >$key.pipe
umask 022
for disk in $disks; do
	echo "$disk" >$driver/bind || fail "no disk $disk"
done
wait $sshd
fail "sshd has ended"
