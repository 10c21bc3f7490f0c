#!/usr/bin/busybox sh
# Init of the helper VM: network, the key handshake on the console, then sshd as process 1.
# The console is the trusted channel: the host hands in this build's public key and the time,
# and learns the VM's fresh host key.
PATH=/usr/sbin:/usr/bin
export PATH
bb=/usr/bin/busybox

$bb mkdir -p /dev/pts /run /tmp /root /run/sshd /run/particle-os
$bb mount -t devpts devpts /dev/pts
$bb mount -t tmpfs -o mode=0755 tmpfs /run
$bb mount -t tmpfs -o mode=1777,size=75% tmpfs /tmp
$bb mkdir -m 0755 /run/sshd
$bb mkdir -m 0700 /run/particle-os
$bb ln -sf /proc/self/fd /dev/fd

# User networking of QEMU always has these addresses.
$bb ip link set lo up
$bb ip link set eth0 up
$bb ip addr add 10.0.2.15/24 dev eth0
$bb ip route add default via 10.0.2.2
echo "nameserver 10.0.2.3" >/etc/resolv.conf

# The state of this machine may be saved now and run many times: what every build starts with is
# read, and the agent waits for its orders (server.py). No secret exists yet.
if $bb grep -q particle_os.preheat /proc/cmdline; then
	for packed in /particle-os/agent-*.pyz; do
		agent=${packed%.pyz}
		/usr/bin/python3 -I -S -m zipfile -e "$packed" "$agent"
		/usr/bin/python3 -I -S "$agent" serve &
		until [ -p "/run/particle-os/${agent##*/}" ]; do
			kill -0 $! || { echo "PARTICLE""-OS-FAILED: no agent"; $bb poweroff -f; }
			$bb usleep 100000
		done
	done
	cd /usr/bin && $bb cat ssh-keygen tar zstd mount sha256sum ../sbin/chroot ../sbin/sshd \
		../sbin/mke2fs ../sbin/sfdisk ../lib/openssh/sshd-* ../lib/*/libcrypto.so.3 >/dev/null
	cd /
fi

$bb stty -echo </dev/console
echo "PARTICLE""-OS-READY"
while IFS= read -r line; do
	case $line in
	KEY\ *) break ;;
	esac
done </dev/console
# KEY booted|restored seconds-since-1970 ssh-ed25519 base64
rest=${line#KEY }
if [ "${rest%% *}" = restored ]; then
	# No key before the kernel has noticed (vmgenid) that others may run from the same memory.
	tries=0
	until $bb dmesg | $bb grep -q "due to virtual machine fork"; do
		tries=$((tries + 1))
		[ "$tries" -lt 100 ] || { echo "PARTICLE""-OS-FAILED: no new random seed"; $bb poweroff -f; }
		$bb usleep 50000
	done
fi
rest=${rest#* }
$bb date -u -s "@${rest%% *}" >/dev/null
echo "${rest#* }" >/run/particle-os/authorized_keys
ssh-keygen -q -t ed25519 -N '' -C '' -f /run/particle-os/host_key
echo "PARTICLE""-OS-HOST-KEY $($bb cut -d' ' -f1,2 /run/particle-os/host_key.pub) END"

exec /usr/sbin/sshd -D -e -f /particle-os/sshd_config
