"""The calls of apt-get and of stand-ins in tests of the apt stage."""

import os
import subprocess

from particle_agent.errors import CommandFailed
from particle_agent.shortcuts import stand_ins

from ....waiting import HANG_SECONDS

STAND_INS = "/run/particle-os-bin"
# dpkg's status file after the installation.
STATUS = """Package: curl
Status: install ok installed
Version: 1

Package: vim
Status: install ok installed
Provides: editor, vim-thing (= 1)

Package: gone
Status: deinstall ok config-files
"""


def apt_commands(target):
    """The arguments of each call of apt-get, without its -o options."""
    lines = [c.argv for c in target.commands if c.argv[0] == "apt-get"]
    return [[a for a in argv[1:] if not a.startswith("-o")] for argv in lines]


def on_install(target, action):
    target.when("apt-get", lambda c: action() if "install" in c.argv else None)


def fail_with(target, *lines):
    def fail(command):
        raise CommandFailed(command.argv, 100, lines)

    target.when("apt-get", fail)


# The packages whose scripts call the programs that have stand-ins.
CALLERS = {"depmod": "linux-image-", "systemd-hwdb": "udev", "sed": "locales"}
KERNEL_SCRIPT = "#!/bin/sh -e\nversion={}\ndepmod $version\n"


def ask_for(target, program, *arguments, script=None):
    """Runs the stand-in for `program`, as the call of a maintainer script does."""
    package = CALLERS.get(program, "other")
    package += arguments[-1] if package.endswith("-") else ""
    text = KERNEL_SCRIPT.format(arguments[-1]) if program == "depmod" else "a script\n"
    target.write(f"/var/lib/dpkg/info/{package}.postinst", script or text)
    target.write("/usr/sbin/update-initramfs", script or "a script\n")
    caller = {"DPKG_MAINTSCRIPT_PACKAGE": package, "DPKG_MAINTSCRIPT_NAME": "postinst"}
    run_stand_in(target, program, *arguments, env=caller)


def run_stand_in(target, program, *arguments, env):
    real = f"{target.root}/real:{os.environ['PATH']}"
    text = target.read(f"{STAND_INS}/{program}").replace(stand_ins.PATH, f"PATH={real}")
    for place in ("/run/", "/var/lib/", "/usr/bin/dracut", "/usr/sbin/update-initramfs"):
        text = text.replace(place, f"{target.root}{place}")
    argv = ["sh", "-c", text, program, *arguments]
    subprocess.run(argv, check=True, timeout=HANG_SECONDS, env={"PATH": real, **env})


def real(target, program, text):
    """Writes the real program, which its stand-in hides."""
    target.write(f"/real/{program}", f"#!/bin/sh\n{text}\n", mode=0o755)


def only_install(target):
    (found,) = [c.argv for c in target.commands if "--" in c.argv and c.argv[0] == "apt-get"]
    return found
