"""The enclosure of the target's programs, with real namespaces and programs of this machine.

tests/vm/test_confinement.py tries the same in the helper VM, with its disks and its kernel.
"""

import os
import subprocess
import sys
import textwrap

import pytest

from ...waiting import HANG_SECONDS

pytestmark = pytest.mark.slow

# An ordinary user needs a user namespace, in which these tests work the same way.
NAMESPACES = ["unshare", "--mount", "--net", "--propagation=private"]
if os.geteuid() != 0:
    NAMESPACES += ["--user", "--map-root-user"]
PRELUDE = """
    import os, sys, time
    from pathlib import Path
    from particle_agent.errors import CommandFailed
    from particle_agent.target import command, confinement
    from particle_agent.target.confinement import Enclosure
    from particle_agent.target.system_calls import (
        MS_BIND, MS_NODEV, MS_REC, MS_SHARED, mount, mounted
    )

    disk = Path(sys.argv[1])
    mount("tmpfs", disk, "tmpfs", MS_NODEV)
    mount("", disk, flags=MS_SHARED)
    root = disk / "target"
    root.mkdir()
    for name in ("usr", "bin", "sbin", "lib", "lib64"):
        if Path("/", name).is_symlink():
            (root / name).symlink_to(os.readlink(f"/{name}"))
        elif Path("/", name).exists():
            (root / name).mkdir()
            mount(Path("/", name), root / name, flags=MS_BIND | MS_REC)
    for name in ("proc", "sys", "dev", "run"):
        (root / name).mkdir()
    mount("/dev", root / "dev", flags=MS_BIND | MS_REC)
    mount("tmpfs", root / "run", "tmpfs")
    mount("sysfs", root / "sys", "sysfs")
    enclosure = Enclosure(root)

    def sh(text):
        lines = []
        try:
            command.run(["sh", "-c", text], emit=lines.append, timeout=60, start=enclosure.start)
        except CommandFailed as failed:
            lines.append(str(failed.status))
        print("|".join(lines))
"""


def may_mount():
    text = "mount -t sysfs x /sys && unshare --pid --fork mount -t proc x /proc"
    done = subprocess.run([*NAMESPACES, "sh", "-c", text], capture_output=True, check=False)
    return done.returncode == 0


needs_mounts = pytest.mark.skipif(not may_mount(), reason="tests/vm tries it in the VM")


def lines(disk, code):
    """The lines that the code prints in a new process, whose mounts no other process sees."""
    code = textwrap.dedent(PRELUDE) + textwrap.dedent(code)
    done = subprocess.run(
        [*NAMESPACES, sys.executable, "-c", code, str(disk)],
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@needs_mounts
def test_a_program_sees_no_process_and_no_file_system_of_the_vm(tmp_path):
    found = lines(
        tmp_path,
        """
        sh("set -- /proc/[0-9]*; echo $1 $#")
        sh(f"kill -0 {os.getpid()} 2>/dev/null")
        sh("ls /proc/1/root/")
        sh("test $(stat -L -c %d:%i /proc/1/root) = $(stat -c %d:%i /)")
        sh("touch /proc/1/root/x")
        (root / "run/later").mkdir()
        with mounted("tmpfs", root / "run/later", "tmpfs"):
            (root / "run/later/file").touch()
            sh("ls /run/later")
        """,
    )
    # The first process and the shell; the agent has no number; a chroot.
    assert found[:4] == ["/proc/1 2", "1", "target", "1"]
    assert "Read-only file system" in found[4]
    assert found[5] == "file"


@needs_mounts
def test_a_program_changes_no_setting_of_the_kernel(tmp_path):
    found = lines(
        tmp_path,
        """
        sh("echo x >/proc/sys/kernel/core_pattern")
        sh("echo x >/sys/kernel/uevent_helper")
        sh("mount -o remount,rw,bind /proc/sys")
        sh("umount /proc/sys")
        sh("mount -t tmpfs tmpfs /run")
        sh("unshare --mount true")
        sh("unshare --user true")
        sh("hostname elsewhere")
        sh("grep CapBnd /proc/self/status")
        sh("wc -c </proc/kmsg")
        """,
    )
    assert [line.rpartition("|")[2] for line in found[:8]] == ["2", "2", "32", "32", "32", *"111"]
    allowed = int(found[8].split()[1], 16)
    # linux/capability.h: SYS_MODULE, SYS_RAWIO, SYS_PTRACE, SYS_ADMIN, SYS_BOOT, SYSLOG, BPF.
    assert not any(allowed >> number & 1 for number in (16, 17, 19, 21, 22, 34, 39))
    # CHOWN, SETUID, MKNOD and SETFCAP, which packages need.
    assert all(allowed >> number & 1 for number in (0, 7, 27, 31))
    assert found[9] == "0"


@needs_mounts
def test_no_writable_sys_is_mounted_anywhere(tmp_path):
    """In a user namespace, the kernel permits a new /sys, or /proc, that is like an older one."""
    found = lines(
        tmp_path,
        """
        sh("grep ' - sysfs ' /proc/self/mountinfo | cut -d ' ' -f 5,6")
        sh("grep ' - proc ' /proc/self/mountinfo | cut -d ' ' -f 4,5 | grep '^/ '")
        """,
    )
    assert found == ["/sys ro,nosuid,nodev,noexec,relatime", "/ /proc"]


@needs_mounts
def test_an_installer_may_mount_and_no_other_program(tmp_path):
    found = lines(
        tmp_path,
        """
        (root / "run/place").mkdir()
        sh("mount -t tmpfs tmpfs /run/place 2>/dev/null")
        enclosure = Enclosure(root, (confinement.ADDITIONAL["SYS_ADMIN"],))
        sh("mount -t tmpfs tmpfs /run/place && touch /run/place/x && ls /run/place")
        print(os.listdir(root / "run/place"))
        """,
    )
    assert found[0] in ("1", "32")
    assert found[1:] == ["x", "[]"], "no mount leaves"


@needs_mounts
def test_nothing_outlives_the_enclosure(tmp_path):
    found = lines(
        tmp_path,
        """
        # No other process of the machine sleeps as long as these.
        seconds = f"3600.{os.getpid()}"
        def strays():
            texts = [p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline")]
            return sum(text.split(bytes(1))[:2] == [b"sleep", seconds.encode()] for text in texts)
        sh(f"setsid sleep {seconds} & setsid chroot /usr/.. setsid sleep {seconds} &")
        while strays() < 2:
            time.sleep(0.05)
        waiting = enclosure.start(["sleep", seconds])
        enclosure.close()
        print(strays(), waiting.returncode)
        sh("echo again")
        enclosure.close()
        """,
    )
    assert found == ["", "0 -9", "again"]


@needs_mounts
def test_a_program_that_the_target_lacks_is_its_failure(tmp_path):
    found = lines(
        tmp_path,
        """
        for argv in (["no-such-program"], ["/usr"]):
            try:
                enclosure.start(argv)
            except CommandFailed as failed:
                print(failed.status, *failed.tail)
        enclosure.close()
        """,
    )
    assert found == ["127 no-such-program: No such file or directory",
                     "126 /usr: Permission denied"]  # fmt: skip


@needs_mounts
def test_links_of_the_target_lead_no_mount_out_of_it(tmp_path):
    found = lines(
        tmp_path,
        """
        (root / "proc").rmdir()
        (root / "proc").symlink_to("/usr/../elsewhere")
        (root / "elsewhere").mkdir()
        sh("test -d /elsewhere/1 && test -d /proc/1 && echo inside")
        enclosure.close()
        """,
    )
    assert found == ["inside"]


@needs_mounts
def test_an_enclosure_that_cannot_be_made_runs_nothing(tmp_path):
    found = lines(
        tmp_path,
        """
        confinement.NEW_ROOT = Path("/no/such/place")
        for attempt in range(2):
            try:
                sh("touch /run/it-ran")
            except OSError as error:
                print("refused")
        print(os.path.exists(root / "run/it-ran"), os.path.exists("/run/it-ran"))
        """,
    )
    assert found == ["refused", "refused", "False False"]
