"""Programs that stand in for slow ones while dpkg runs."""

import os
import subprocess
import threading
import time

import pytest
from particle_agent.errors import CommandFailed
from particle_agent.shortcuts import stand_ins
from particle_agent.stages.software.apt import Apt

from ....waiting import HANG_SECONDS, until
from .apt_calls import STAND_INS, ask_for, on_install, real

pytestmark = pytest.mark.usefixtures("known")


def test_modules_are_listed_beside_dpkg_and_before_the_initramfs(debian):
    def install():
        debian.write("/boot/vmlinuz-6.12-cloud-amd64", "")
        ask_for(debian, "depmod", "6.12-cloud-amd64")
        # dkms makes this call after it has added modules.
        ask_for(debian, "depmod", "-a", "6.12-cloud-amd64")
        order.append("all modules")
        ask_for(debian, "update-initramfs")

    def depmod(command):
        time.sleep(0.3)
        order.append(command.argv)

    order = []
    real(debian, "depmod", f"echo $* >{debian.root}/real/asked")
    on_install(debian, install)
    debian.when("depmod", depmod)
    debian.when("update-initramfs", lambda command: order.append(command.argv[0]))
    Apt(packages=("linux-image-cloud-amd64",)).run(debian)
    assert order == [("depmod", "6.12-cloud-amd64"), "all modules", "update-initramfs"]
    assert debian.read("/real/asked") == "-a 6.12-cloud-amd64\n"
    assert debian.list("/run") == []


def test_a_request_stays_until_it_is_done_and_one_that_comes_meanwhile_is_done_again(debian):
    """The name of a request must not vanish or change while another process reads it."""

    def install():
        ask_for(debian, "depmod", "6.12-amd64")
        until(lambda: debian.list("/run/particle-os-beside") == [] and len(seen) == 2)

    def depmod(command):
        seen.append(debian.list("/run/particle-os-beside"))
        if len(seen) == 1:
            ask_for(debian, "depmod", "6.12-amd64")
            seen[0] += debian.list("/run/particle-os-beside")

    seen = []
    on_install(debian, install)
    debian.when("depmod", depmod)
    Apt(packages=("linux-image-amd64",)).run(debian)
    first, second, third = seen[0]
    assert first in (second, third)
    assert seen[1] == [name for name in (second, third) if name != first]


@pytest.mark.parametrize("dracut", [False, True])
def test_a_system_with_dracut_lists_its_modules_at_once(debian, dracut):
    """dracut reads the lists as soon as the kernel's script continues."""

    def install():
        if dracut:
            debian.write("/usr/bin/dracut", "")
        ask_for(debian, "depmod", "6.12-amd64")

    real(debian, "depmod", f"echo $* >>{debian.root}/real/asked")
    on_install(debian, install)
    Apt(packages=("linux-image-amd64",)).run(debian)
    asked = [command.argv for command in debian.commands if command.argv[0] == "depmod"]
    assert asked == ([] if dracut else [("depmod", "6.12-amd64")])
    assert debian.exists("/real/asked") is dracut


def test_a_request_that_is_being_done_is_waited_for_under_any_name(debian):
    """The shell expands the names before `ls` looks at them; a rename in between hid a request."""
    place = f"{debian.root}/run/particle-os-beside"
    # The worker's next step runs at the worst moment: between the expansion and the look.
    step = f"for file in {place}/[!r]*; do mv $file {place}/running-${{file##*/}}; done"
    real(debian, "ls", f'{step}; exec /bin/ls "$@"')
    real(debian, "sleep", f"rm -f {place}/depmod-*; echo waited >{debian.root}/real/done")
    real(debian, "depmod", f"cat {debian.root}/real/done >{debian.root}/real/found || :")
    debian.write(f"{STAND_INS}/depmod", stand_ins._texts(())["depmod"])
    ask_for(debian, "depmod", "6.12-amd64")
    ask_for(debian, "depmod", "-a", "6.12-amd64")
    assert debian.read("/real/found") == "waited\n"


@pytest.mark.parametrize("kind", [CommandFailed, OSError])
def test_a_failure_of_depmod_is_reported_and_holds_nothing_up(debian, kind):
    def install():
        ask_for(debian, "depmod", "6.12-amd64")
        ask_for(debian, "depmod", "6.12-cloud-amd64")

    def depmod(command):
        if command.argv[1] == "6.12-amd64":
            raise kind(command.argv, 1, ["no such module"])

    on_install(debian, install)
    debian.when("depmod", depmod)
    with pytest.raises(kind, match="depmod"):
        Apt(packages=("linux-image-amd64",)).run(debian)
    assert debian.list("/run") == []


@pytest.mark.parametrize(
    ("method", "place"),
    [
        ("list", "/run/particle-os-beside"),
        ("list", "/var/lib/dpkg/info"),
        ("remove", "/run/particle-os-beside/depmod-"),
    ],
)
def test_any_failure_beside_dpkg_is_reported_and_holds_nothing_up(
    debian, monkeypatch, method, place
):
    """The second stand-in waits until there is no request of the first one."""
    works = getattr(debian, method)

    def fail(path):
        if path.startswith(place) and threading.current_thread() is not threading.main_thread():
            raise RuntimeError("the thread fails")
        return works(path)

    def install():
        monkeypatch.setattr(debian, method, fail)
        ask_for(debian, "depmod", "6.12-amd64")
        ask_for(debian, "depmod", "-a", "6.12-amd64")

    real(debian, "depmod", f"echo $* >>{debian.root}/real/asked")
    on_install(debian, install)
    with pytest.raises(RuntimeError, match="the thread fails"):
        Apt(packages=("linux-image-amd64",)).run(debian)
    # The thread may have seen the first request before its calls fail.
    assert debian.read("/real/asked").endswith("-a 6.12-amd64\n")
    assert debian.list("/run") == []


@pytest.mark.parametrize(
    ("change", "times"),
    [
        (lambda target: target.remove("/lib/modules/6.12-amd64/.fresh-install"), 1),
        (lambda target: target.write("/lib/modules/6.12-amd64/extra/y.ko.xz", ""), 2),
    ],
)
def test_modules_are_listed_as_soon_as_the_kernel_is_unpacked(debian, change, times):
    modules = "/lib/modules/6.12-amd64"
    listed = []

    def install():
        debian.write(f"{modules}/kernel/x.ko.xz", "")
        debian.write(f"{modules}/.fresh-install", "")
        debian.write("/var/lib/dpkg/info/linux-image-6.12-amd64.list", "")
        until(lambda: listed)
        change(debian)
        ask_for(debian, "depmod", "6.12-amd64")

    def depmod(command):
        debian.write(f"{modules}/modules.dep", "")
        listed.append(command.argv)

    debian.write("/sbin/depmod", "")
    # The kernel of the base has its lists of modules already.
    debian.write("/lib/modules/6.1-amd64/x.ko", "")
    debian.write("/var/lib/dpkg/info/linux-image-6.1-amd64.list", "")
    on_install(debian, install)
    debian.when("depmod", depmod)
    Apt(packages=("linux-image-amd64",)).run(debian)
    assert listed == [("depmod", "6.12-amd64")] * times


def test_lists_of_modules_that_came_too_early_are_made_again(debian):
    tries = []

    def install():
        debian.write("/lib/modules/6.12-amd64/x.ko", "")
        debian.write("/var/lib/dpkg/info/linux-image-6.12-amd64.list", "")
        until(lambda: tries)
        ask_for(debian, "depmod", "6.12-amd64")

    def depmod(command):
        tries.append(command)
        if len(tries) == 1:
            raise CommandFailed(command.argv, 127, ["libkmod.so.2: cannot open"])

    debian.write("/sbin/depmod", "")
    on_install(debian, install)
    debian.when("depmod", depmod)
    Apt(packages=("linux-image-amd64",)).run(debian)
    assert len(tries) == 2


# An extract of the package's script (locales.postinst of Debian 12 and 13).
POSTINST = r"""
SUPPORTED_LOCALES="$(sed -e '/^[a-zA-Z]/!d' -e 's/ *$//g' /usr/share/i18n/SUPPORTED | sort -u)"
echo "$SUPPORTED_LOCALES" | while read locale ; do
   if ! grep -q "^[# ]*$locale *\$" /etc/locale.gen; then
     echo "# $locale" >> /etc/locale.gen
   fi
done
"""
LISTED = "# This file lists locales\n#\n\n  de_DE.UTF-8 UTF-8  \n# # fr_FR.UTF-8 UTF-8\n"


@pytest.mark.parametrize("listed", ["", "# This file\n#\n\n", LISTED])
def test_locales_are_listed_at_once_as_the_package_does_it(debian, tmp_path, listed):
    def within(text):
        return text.replace("/etc/", f"{tmp_path}/").replace("/usr/share/i18n/", f"{tmp_path}/")

    def run(path):
        (tmp_path / "locale.gen").write_text(listed)
        argv = ["sh", "-e", "-c", within(POSTINST)]
        env = {"DPKG_MAINTSCRIPT_PACKAGE": "locales", "DPKG_MAINTSCRIPT_NAME": "postinst"}
        subprocess.run(argv, check=True, timeout=HANG_SECONDS, env={"PATH": path, **env})
        return (tmp_path / "locale.gen").read_text()

    def install():
        scripts = tmp_path / "run/particle-os-bin"
        scripts.mkdir(parents=True)
        # Without a working grep, the result shows whether the script called grep.
        (scripts / "grep").symlink_to("/bin/false")
        text = within(debian.read(f"{STAND_INS}/sed")).replace("/var/lib/", f"{tmp_path}/")
        (scripts / "sed").write_text(text)
        (scripts / "sed").chmod(0o755)

    (tmp_path / "dpkg/info").mkdir(parents=True)
    (tmp_path / "dpkg/info/locales.postinst").write_text("a script\n")
    (tmp_path / "SUPPORTED").write_text(
        "de_DE.UTF-8 UTF-8\n\naa_ET UTF-8 \n#fr_CA UTF-8\nsd_IN@devanagari UTF-8\n"
        "fr_FR.UTF-8 UTF-8\naa_ET UTF-8\nC.UTF-8 UTF-8\n"
    )
    on_install(debian, install)
    Apt(packages=("locales=2.41-12",)).run(debian)
    plain = run(os.environ["PATH"])
    assert "# aa_ET UTF-8\n" in plain
    found = run(f"{tmp_path}/run/particle-os-bin:{os.environ['PATH']}")
    assert [line for line in found.splitlines() if line != "# "] == plain.splitlines()
    assert debian.list("/run") == []


def test_the_hardware_database_and_locales_are_made_beside_dpkg(debian):
    """Each is requested twice: the second result must include files that came in between."""
    made, ahead = [], []

    def install():
        for number in (1, 2):
            ask_for(debian, "systemd-hwdb", "--usr", "update")
            ask_for(debian, "locale-gen")
            until(lambda number=number: len(made) == number and len(ahead) == number)

    debian.when("systemd-hwdb", lambda command: made.append(command.argv))
    debian.ahead = lambda: ahead.append(True)
    real(debian, "locale-gen", "exit 0")
    on_install(debian, install)
    Apt(packages=("locales", "udev")).run(debian)
    assert made == [("systemd-hwdb", "--usr", "update")] * 2
    assert debian.list("/run") == []


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("depmod", ["6.12-amd64"]),
        ("update-initramfs", ["-u"]),
        ("systemd-hwdb", ["--usr", "update"]),
        ("sed", ["-e", "/^[a-zA-Z]/!d", "-e", "s/ *$//g", "/usr/share/i18n/SUPPORTED"]),
    ],
)
def test_a_script_that_is_not_known_runs_as_it_is_and_a_note_says_so(debian, program, arguments):
    def install():
        # The stand-in runs sed on the script to compute its digest.
        reads = 'case "$*" in *.postinst) exec /bin/sed "$@" ;; esac; '
        asked = f'echo "$*" >{debian.root}/real/asked'
        real(debian, program, f"{reads if program == 'sed' else ''}{asked}")
        ask_for(debian, program, *arguments, script="another script\n")

    debian.write("/etc/locale.gen", "")
    on_install(debian, install)
    Apt(packages=("locales",)).run(debian)
    assert debian.read("/real/asked") == f"{' '.join(arguments)}\n"
    (note,) = debian.report.notes
    assert note.startswith(f"the real {program} ran")
    assert debian.list("/run") == []
