#!/bin/busybox sh
# First program of the helper VM: loads the few modules that the kernel lacks, mounts a tmpfs over
# the read-only root, and switches to it. For an acceleration probe, it answers without any disk.
# The shell does what it can itself, because the start of a program takes longer.
/bin/busybox mkdir -p /proc /sys /dev /lower /upper /root
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev

fail() {
	echo "PARTICLE""-OS-FAILED: $*"
	/bin/busybox poweroff -f
}

read -r line </proc/cmdline
case $line in
*particle_os.probe*)
	# The guest must compute a value: a successful start alone proves too little.
	sum=$(/bin/busybox seq 1 2000 | /bin/busybox sha256sum)
	echo "PARTICLE""-OS-PROBE ${sum%% *}"
	/bin/busybox poweroff -f
	;;
esac

for module in failover net_failover virtio_net virtio_blk squashfs overlay; do
	/bin/busybox insmod "/modules/$module.ko" || fail "module $module"
done

tries=0
until root=$(/bin/busybox grep -lsx helper-root /sys/block/vd*/serial); do
	tries=$((tries + 1))
	[ "$tries" -lt 200 ] || fail "the root disk did not appear"
	/bin/busybox usleep 50000
done
disk=${root#/sys/block/}
disk=${disk%/serial}

/bin/busybox mount -t squashfs -o ro "/dev/$disk" /lower || fail "root squashfs"
/bin/busybox mount -t tmpfs -o mode=0755,size=75% tmpfs /upper || fail "tmpfs"
/bin/busybox mkdir /upper/data /upper/work
/bin/busybox mount -t overlay -o lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work \
	overlay /root || fail "overlay"
# The agent, if this initramfs contains one.
for agent in /agent-*.pyz; do
	[ ! -e "$agent" ] || /bin/busybox cp "$agent" /root/particle-os/
done
for place in proc sys dev; do
	/bin/busybox mount --move "/$place" "/root/$place"
done
exec /bin/busybox switch_root /root /particle-os/init.sh
fail "switch_root"
