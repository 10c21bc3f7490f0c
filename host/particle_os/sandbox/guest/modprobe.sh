#!/usr/bin/busybox sh
# The kernel of the helper VM calls this as modprobe(8) when it lacks a module: the last argument is
# the module's alias. Only modules in the index can be loaded (netfilter.py).
PATH=/usr/sbin:/usr/bin:/sbin
export PATH
for wanted; do :; done
wanted=$(echo "$wanted" | busybox tr - _)
export wanted
# The shell would read the index byte by byte.
# shellcheck disable=SC2016
files=$(busybox awk '$1 == ENVIRON["wanted"] { $1 = ""; print; exit }' /particle-os/netfilter)
for file in $files; do
	# Fails for a module that is there.
	insmod "/$file" 2>/dev/null
done
