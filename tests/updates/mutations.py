"""Ways to break an update, each with the verdict that it must get."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.updates.good import REF, Update, make_key
from tests.vm.breaking import debugfs, put, read

UNITS = "usr/lib/systemd/system"
WANTS = f"{UNITS}/multi-user.target.wants"


@dataclass(frozen=True)
class Mutation:
    """A change of an update, and the step and the verdict at which its test must end."""

    step: str
    status: str
    change: Callable[[Update], object]
    # The message must contain this text.
    says: str = ""
    test: Literal["upgrade", "fallback"] = "upgrade"
    # Seconds for each boot, when the verdict is that of a wait.
    timeout: int | None = None


def unsigned(update: Update) -> None:
    update.object(update.commit, "commitmeta").unlink()


def signed_by_another(update: Update) -> None:
    unsigned(update)
    update.sign(make_key(update.repository.with_name("other")))


def new_object(update: Update) -> Path:
    """A large file that only the new version has."""
    update.add({"usr/share/new-in-this-version": "x y z " * 9999})
    listed = update.ostree("ls", "--checksum", REF, "/usr/share/new-in-this-version")
    return update.object(next(word for word in listed.split() if len(word) == 64), "filez")


def corrupt(update: Update) -> None:
    place = new_object(update)
    data = bytearray(place.read_bytes())
    data[-8] ^= 0xFF
    place.write_bytes(data)


def truncated(update: Update) -> None:
    place = new_object(update)
    place.write_bytes(place.read_bytes()[:40])


def missing(update: Update) -> None:
    new_object(update).unlink()


def no_space(update: Update) -> None:
    """Leaves the parent's disk without a free block but few."""
    free = int(debugfs(update.parent, "stats", write=False).split("Free blocks:")[1].split()[0])
    name = "/ostree/deploy/debian/var/full"
    put(update.parent, name, "")
    debugfs(update.parent, f"fallocate {name} 0 {free - 2000}")


def without_kernel(update: Update) -> None:
    kernel = update.ostree("ls", "--nul-filenames-only", REF, "/usr/lib/modules").split("\0")[1]
    update.add({}, {f"{kernel}/vmlinuz": "/nonexistent"})


def no_kernel_at_all(update: Update) -> None:
    """The file is there, and is no kernel."""
    kernel = update.ostree("ls", "--nul-filenames-only", REF, "/usr/lib/modules").split("\0")[1]
    update.add({f"{kernel}/vmlinuz": "no kernel\n" * 999})


def unit(name: str, text: str) -> Callable[[Update], None]:
    """A unit of the new version that multi-user.target starts."""

    def change(update: Update) -> None:
        update.add({f"{UNITS}/{name}": text}, {f"{WANTS}/{name}": f"../{name}"})

    return change


def script(text: str) -> Callable[[Update], None]:
    """A program of the new version that runs in its boot."""
    return unit("bad.service", f"[Service]\nType=oneshot\nExecStart=/bin/sh -c '{text}'\n")


def when_it_ends(command: str) -> Callable[[Update], None]:
    """A command of the new version that runs when it shuts down."""
    service = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=true\n"
    return unit("bad.service", f"{service}ExecStop={command}\n")


def older(update: Update) -> None:
    """The repository has nothing newer than the machine."""
    parent = update.ostree("rev-parse", f"{REF}^")
    (update.repository / "refs/heads" / REF).write_text(f"{parent}\n")
    update.ostree("summary", "--update")


def another_branch(update: Update) -> None:
    place = update.repository / "refs/heads" / REF
    place.rename(place.with_name("other"))
    update.ostree("summary", "--update")


def menu(old: str, new: str) -> Callable[[Update], None]:
    """Changes the menu of the disk."""

    def change(update: Update) -> None:
        text = read(update.parent, "/boot/grub/grub.cfg")
        assert old in text
        put(update.parent, "/boot/grub/grub.cfg", text.replace(old, new))

    return change


def read_only_block(update: Update) -> None:
    """The environment block is immutable: the flag of chattr(1), beside that of its extents."""
    debugfs(update.parent, "set_inode_field /boot/grub/grubenv flags 0x80010")


# In place of the disk, ostree(1) on the machine asks a server. It ends the connection in the middle
# of each large file.
SERVER = """\
#!/usr/bin/perl
use strict;
use IO::Socket::INET;
my $server = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 8099, Listen => 50,
	ReuseAddr => 1) or die;
$SIG{CHLD} = 'IGNORE';
while (my $client = $server->accept) {
	next if fork;
	my ($path) = <$client> =~ m{^GET (/\\S*)} or exit;
	while (<$client>) { last if /^\\s*$/ }
	my $place = "$ARGV[0]$path";
	if (-f $place and open my $file, '<:raw', $place) {
		local $/;
		my $data = <$file>;
		my $size = length $data;
		print $client "HTTP/1.0 200 OK\\r\\nContent-Length: $size\\r\\n\\r\\n";
		print $client $size > 9999 && $path =~ /filez$/ ? substr($data, 0, $size / 2) : $data;
	} else {
		print $client "HTTP/1.0 404 Not Found\\r\\nContent-Length: 0\\r\\n\\r\\n";
	}
	exit;
}
"""
CALLER = """\
#!/bin/sh
case $1 in
pull)
	perl -- "$0-server" "${2#--url=file://}" >/dev/null 2>&1 &
	sleep 2
	exec /usr/bin/ostree pull --url=http://127.0.0.1:8099 "$3" "$4"
	;;
esac
exec /usr/bin/ostree "$@"
"""


def interrupted(update: Update) -> None:
    update.add({"usr/share/new-in-this-version": random.Random(1).randbytes(40_000).hex()})
    # /usr/local is a link there.
    local = "/ostree/deploy/debian/var/usrlocal"
    debugfs(update.parent, f"mkdir {local}", f"mkdir {local}/bin")
    place = f"{local}/bin/ostree"
    put(update.parent, place, CALLER, mode="0100755")
    put(update.parent, f"{place}-server", SERVER)


GOOD = Mutation("rollback", "passed", lambda update: None)
MUTATIONS = {
    "good": GOOD,
    "unsigned-commit": Mutation("parent", "upgrade-failed", unsigned, "taking the update"),
    "wrong-key": Mutation("parent", "upgrade-failed", signed_by_another, "taking the update"),
    "corrupt-object": Mutation("parent", "upgrade-failed", corrupt, "taking the update"),
    "truncated-object": Mutation("parent", "upgrade-failed", truncated, "taking the update"),
    "missing-object": Mutation("parent", "upgrade-failed", missing, "taking the update"),
    "interrupted-download": Mutation("parent", "upgrade-failed", interrupted, "partial file"),
    "no-space": Mutation("parent", "upgrade-failed", no_space, "taking the update"),
    "nothing-newer": Mutation("parent", "upgrade-failed", older, "no newer commit"),
    "another-branch": Mutation("parent", "upgrade-failed", another_branch, "taking the update"),
    "kernel-link-to-nothing": Mutation("parent", "upgrade-failed", without_kernel, "taking"),
    "no-kernel": Mutation("upgrade", "upgrade-failed", no_kernel_at_all, "the new version: "),
    "unit-hangs": Mutation(
        "upgrade", "upgrade-failed", script("sleep infinity"), "timed-out", timeout=150
    ),
    "unit-fails": Mutation("upgrade", "upgrade-failed", script("false"), "units-failed"),
    "etc-lost": Mutation(
        "upgrade", "upgrade-failed", script("rm /etc/particle-os-update-test"), "is lost"
    ),
    "undeployed": Mutation(
        "upgrade", "upgrade-failed", script("ostree admin undeploy 1"), "the order to return"
    ),
    # OSTree copies a kernel that is gone when it writes the menu, so they go after that.
    "old-kernel-gone": Mutation(
        "rollback",
        "rollback-failed",
        when_it_ends("sh -c 'mount -o remount,rw /boot; rm /boot/ostree/*/vmlinuz*'"),
        "the return to the parent: ",
    ),
    "var-lost-later": Mutation(
        "rollback",
        "rollback-failed",
        when_it_ends("rm /var/lib/particle-os-update-test"),
        "is lost",
    ),
    "menu-without-a-second-entry": Mutation(
        "fallback", "fallback-failed", menu("set default=1", "set default=7"),
        test="fallback", timeout=150,
    ),
    "menu-that-does-not-count": Mutation(
        "fallback", "fallback-failed", menu("save_env boot_counter", "true"),
        test="fallback", timeout=150,
    ),
    "read-only-environment-block": Mutation(
        "bad-update", "fallback-failed", read_only_block, "units-failed", test="fallback"
    ),
}  # fmt: skip
