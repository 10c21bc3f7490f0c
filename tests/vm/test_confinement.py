"""Root in a stage reaches nothing of the VM: neither its kernel's settings nor its disks.

One script makes all attempts. In the helper VM itself each must succeed: so the script notices what
succeeds. In the target each must fail.
"""

from __future__ import annotations

import re
from pathlib import Path

from .conftest import Account

ATTEMPTS = r"""
import ctypes, os, socket, struct, sys, tempfile, time, fcntl
libc = ctypes.CDLL(None, use_errno=True)
place = tempfile.mkdtemp(dir="/run")

def call(name, *arguments):
    arguments = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

def mount(kind, options=b"", flags=0, where=None):
    call("mount", b"none", (where or place).encode(), kind, flags, options)

def rewrite(path):
    with open(path) as file:
        before = file.read()
    with open(path, "w") as file:
        file.write(before or "\n")

def in_a_child(attempt):
    child = os.fork()
    if child == 0:
        try:
            attempt()
        except OSError as error:
            os._exit(error.errno or 1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        raise OSError(status, os.strerror(status))

def nodes(kind, numbers):
    for directory in ("/dev", "/dev/shm", "/run", "/tmp", "/"):
        for number in numbers:
            path = f"{directory}/particle-node"
            if os.path.isdir(directory):
                os.mknod(path, kind | 0o600, number)
                try:
                    yield os.open(path, os.O_RDWR if kind == 0o020000 else os.O_RDONLY)
                except OSError:
                    pass
                finally:
                    os.unlink(path)

def any_of(opened):
    for descriptor in opened:
        return os.close(descriptor)
    raise PermissionError(1, "none opens")

def disk_numbers():
    for name in os.listdir("/sys/class/block"):
        with open(f"/sys/class/block/{name}/dev") as file:
            yield os.makedev(*map(int, file.read().split(":")))

def disk_by_name():
    any_of(os.open(f"/dev/{name}", os.O_RDONLY) for name in os.listdir("/dev") if name[:2] == "vd")

def may(name, *arguments):
    # The kernel looks at the rights first, and at the arguments after that.
    try:
        call(name, *arguments)
    except OSError as error:
        if error.errno == 1:
            raise

def release_agent():
    mount(b"cgroup", b"none,name=particle")
    rewrite(f"{place}/release_agent")

def binfmt():
    mount(b"binfmt_misc")
    with open(f"{place}/register", "w") as file:
        file.write(":particle:E::particle::/bin/true:")

def fresh_proc():
    mount(b"proc")
    rewrite(f"{place}/sys/kernel/core_pattern")

def writable_again():
    mount(b"", flags=32 | 4096, where="/proc/sys")
    rewrite("/proc/sys/kernel/core_pattern")

def leave_root():
    # chroot(2): "This call does not change the current working directory".
    top = os.open("/", os.O_RDONLY)
    os.chroot(place)
    os.fchdir(top)
    for _ in range(20):
        os.chdir("..")
    os.chroot(".")

def whole_proc():
    # In a user namespace, all capabilities are back.
    leave_root()
    call("unshare", 0x10000000 | 0x20000 | 0x20000000)
    inside = "/target" if os.path.isdir("/target/proc/self") else ""
    for name, text in (("setgroups", "deny"), ("uid_map", "0 0 1"), ("gid_map", "0 0 1")):
        with open(f"{inside}/proc/self/{name}", "w") as file:
            file.write(text)
    def attempt():
        call("mount", b"none", f"{inside}{place}".encode(), b"proc", 0, b"")
        rewrite(f"{inside}{place}/sys/kernel/core_pattern")
    in_a_child(attempt)

def outer_files():
    leave_root()
    if not os.path.exists("/particle-os/init.sh") and os.access("/target", os.W_OK):
        os.rename("/target", "/moved")

def set_clock():
    now = time.clock_gettime(time.CLOCK_REALTIME)
    time.clock_settime(time.CLOCK_REALTIME, now)

def interface():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sH14x", b"lo", 1))

attempts = {
    "core-pattern": lambda: rewrite("/proc/sys/kernel/core_pattern"),
    "modprobe-path": lambda: rewrite("/proc/sys/kernel/modprobe"),
    "uevent-helper": lambda: rewrite("/sys/kernel/uevent_helper"),
    "sysrq": lambda: os.write(os.open("/proc/sysrq-trigger", os.O_WRONLY), b"h"),
    "module": lambda: may("init_module", b"garbage", 7, b""),
    "disk-by-name": disk_by_name,
    "disk-by-number": lambda: any_of(nodes(0o060000, disk_numbers())),
    "memory": lambda: any_of(nodes(0o020000, [os.makedev(1, 1)])),
    "console": lambda: os.close(os.open("/dev/console", os.O_WRONLY)),
    "console-by-number": lambda: any_of(nodes(0o020000, [os.makedev(5, 1), os.makedev(4, 64)])),
    "kernel-log": lambda: os.close(os.open("/dev/kmsg", os.O_WRONLY)),
    "kernel-log-by-number": lambda: any_of(nodes(0o020000, [os.makedev(1, 11)])),
    "kernel-messages": lambda: call("klogctl", 3, ctypes.create_string_buffer(99), 99),
    "release-agent": release_agent,
    "binfmt-misc": binfmt,
    "fresh-proc": fresh_proc,
    "writable-again": writable_again,
    "whole-proc": whole_proc,
    "outer-files": outer_files,
    "mount": lambda: mount(b"tmpfs"),
    "ports": lambda: call("ioperm", 0x80, 1, 1),
    "reboot": lambda: may("reboot", 0),
    "host-name": lambda: socket.sethostname(socket.gethostname()),
    "clock": set_clock,
    "interface": interface,
}
for name, attempt in attempts.items():
    try:
        in_a_child(attempt)
        print(f"attempt {name}: succeeds")
    except OSError as error:
        print(f"attempt {name}: {error.strerror}")
"""
# The helper VM lacks the module of the first and the setting of the second. Its /proc/sys is no
# mount point.
NO_CONTROL = {"binfmt-misc", "uevent-helper", "writable-again"}
STRAY = r"""
import fcntl, os, signal, sys
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        lock = open("/srv/lock", "w")
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.makedirs("/srv/elsewhere", exist_ok=True)
        os.chroot("/srv/elsewhere")
        open("/ready", "w").close()
        os.closerange(0, 3)
        while True:
            signal.pause()
    os._exit(0)
while not os.path.exists("/srv/elsewhere/ready"):
    pass
try:
    fcntl.flock(open("/srv/lock", "w"), fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("stray: it holds its lock")
"""
SURROUNDINGS = r"""
import fcntl, multiprocessing, os, pty, stat, subprocess
fcntl.flock(open("/srv/lock", "w"), fcntl.LOCK_EX | fcntl.LOCK_NB)
print("stray: its lock is free")
processes = [name for name in os.listdir("/proc") if name.isdigit()]
print("processes:", *sorted({open(f"/proc/{name}/comm").read().strip() for name in processes}))
with multiprocessing.Pool(2) as pool:
    print("pool:", *pool.map(abs, [-1, 2]))
multiprocessing.Semaphore().acquire()
print("terminal:", os.ttyname(os.openpty()[1]))
print("shm: %o" % os.stat("/dev/shm").st_mode)
subprocess.run("echo standard output >/dev/stdout; cat /dev/fd/3 3<<E\nby its number\nE",
               shell=True, check=True)
print("chroot:", os.stat("/").st_ino != os.stat("/proc/1/root").st_ino)
os.mknod("/srv/null", 0o020666, os.makedev(1, 3))
print("node:", stat.S_ISCHR(os.stat("/srv/null").st_mode))
with open("/dev/null", "w") as file:
    file.write("x")
# The name of the disk is there for grub-probe(8).
print("devices:", *sorted(name for name in os.listdir("/dev") if name[:2] != "vd"))
"""


def stage(script: str, *options: str) -> str:
    text = "".join(f"      {line}\n" for line in script.strip().splitlines())
    first = "".join(f"    {option}\n" for option in options)
    return f"  - type: run\n{first}    interpreter: [python3]\n    script: |\n{text}"


def recipe() -> str:
    kernel = "".join(
        f"      - {{path: /boot/{name}-0, content: no kernel}}\n"
        for name in ("vmlinuz", "initrd.img")
    )
    return (
        "name: confined\nbase-image: mmdebstrap:trixie\nstages:\n"
        "  - type: apt\n    packages: [python3]\n"
        + stage(ATTEMPTS, "in: helper")
        + stage(ATTEMPTS)
        + stage(ATTEMPTS, "network: none")
        + stage(STRAY)
        + stage(SURROUNDINGS)
        + f"  - type: files\n    files:\n{kernel}"
        + "    links: [{path: /usr/sbin/init, to: ../bin/sh}]\n"
        + "  - type: qemu\n"
    )


def test_root_in_a_stage_reaches_nothing_of_the_vm(account: Account) -> None:
    place = account.write(account.directory / "confined.yml", recipe())
    output: Path = account.make_directory("confined")
    argv = ("build", place, "--output", output, "--no-boot-test", "-v", "--progress", "plain")
    built = account.run(*argv, "--accel", "tcg")
    assert built.status == 0, built.stderr
    results = re.findall(r"attempt ([a-z-]+): (.*)", built.stderr)
    number = len(results) // 3
    outside, inside, alone = (dict(results[i * number :][:number]) for i in range(3))
    assert outside.keys() == inside.keys() == alone.keys() and number > 20
    assert {n for n, told in outside.items() if told != "succeeds"} <= NO_CONTROL
    assert [name for name, told in inside.items() if told == "succeeds"] == []
    # The stage may change the network that is its own.
    assert [name for name, told in alone.items() if told == "succeeds"] == ["interface"]
    for line in (
        "stray: it holds its lock",
        "stray: its lock is free",
        "processes: cat python3",
        "pool: 1 2",
        "terminal: /dev/pts/0",
        "shm: 41777",
        "standard output",
        "by its number",
        "chroot: True",
        "node: True",
        "devices: fd full null ptmx pts random shm stderr stdin stdout tty urandom zero",
    ):
        assert line in built.stderr
