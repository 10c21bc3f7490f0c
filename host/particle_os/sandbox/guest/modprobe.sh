#!/usr/bin/busybox sh
# The kernel of the helper VM calls this as modprobe(8) when it lacks a module: the last argument is
# the module's alias. Only modules in the index can be loaded (netfilter.py).
PATH=/usr/sbin:/usr/bin:/sbin
export PATH
for wanted; do :; done
export wanted
# The shell would read the index byte by byte.
# shellcheck disable=SC2016,SC2046
set -- $(busybox awk '
	BEGIN { wanted = ENVIRON["wanted"]; gsub("-", "_", wanted) }
	$1 == wanted { $1 = ""; print; exit }' /particle-os/netfilter)
while [ $# -gt 1 ]; do
	# Another request may have loaded the module meanwhile.
	[ -e "/sys/module/$1" ] || insmod "/$2" 2>/dev/null
	shift 2
done
