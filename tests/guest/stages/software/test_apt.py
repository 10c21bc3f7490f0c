import base64
import os
import subprocess
import threading
import time
from contextlib import contextmanager
from hashlib import sha256

import pytest
from particle_agent.apt import from_host
from particle_agent.errors import CommandFailed, EnvironmentFailed, StageError
from particle_agent.shortcuts import at_once, stand_ins
from particle_agent.stages.software.apt import Answer, Apt, Pin

from ....waiting import HANG_SECONDS, until

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


@pytest.fixture
def debian(target):
    """A target with apt."""
    target.write("/usr/bin/apt-get", "")
    return target


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


def test_packages_come_after_the_end_of_options(debian):
    Apt(packages=("openssh-server", "curl")).run(debian)
    update, install = apt_commands(debian)
    assert update[-1] == "update"
    assert install[-4:] == ["install", "--", "openssh-server", "curl"]
    assert debian.networked == 1


def test_recommends_are_off_unless_asked_for(debian):
    Apt(packages=("curl",)).run(debian)
    Apt(packages=("curl",), recommends=True).run(debian)
    installs = [c.argv for c in debian.commands if "install" in c.argv]
    assert "-oAPT::Install-Recommends=false" in installs[0]
    assert "-oAPT::Install-Recommends=true" in installs[1]


def test_update_can_be_left_out(debian):
    Apt(packages=("curl",), update=False).run(debian)
    assert all("update" not in argv for argv in apt_commands(debian))


def test_a_base_without_apt_is_reported(target):
    with pytest.raises(StageError, match="no apt-get") as raised:
        Apt(packages=("curl",)).run(target)
    assert "contains the 'apt' package" in raised.value.hint


def test_services_stay_off_during_the_installation_only(debian):
    seen = []
    on_install(debian, lambda: seen.append(debian.read("/usr/sbin/policy-rc.d")))
    Apt(packages=("curl",)).run(debian)
    assert seen == ["#!/bin/sh\nexit 101\n"]
    assert not debian.exists("/usr/sbin/policy-rc.d")


def test_a_policy_of_the_base_stays(debian):
    debian.write("/usr/sbin/policy-rc.d", "the base's own")
    Apt(packages=("curl",)).run(debian)
    assert debian.read("/usr/sbin/policy-rc.d") == "the base's own"


def test_nothing_is_left_behind_by_a_failure(debian):
    fail_with(debian, "E: Unable to locate package nonsense")
    with pytest.raises(StageError):
        Apt(packages=("nonsense",)).run(debian)
    assert not debian.exists("/usr/sbin/policy-rc.d")
    assert debian.list("/etc/ssh") == []
    assert debian.list("/run") == []


def test_no_ssh_host_keys_are_made(debian):
    seen = []
    on_install(debian, lambda: seen.append(debian.list("/etc/ssh")))
    Apt(packages=("openssh-server",)).run(debian)
    assert "ssh_host_ed25519_key" in seen[0]
    assert debian.list("/etc/ssh") == []


def test_host_keys_that_were_there_stay(debian):
    debian.write("/etc/ssh/ssh_host_rsa_key", "a key")
    Apt(packages=("openssh-server",)).run(debian)
    assert debian.list("/etc/ssh") == ["ssh_host_rsa_key"]
    assert debian.read("/etc/ssh/ssh_host_rsa_key") == "a key"


# The packages whose scripts call the programs that have stand-ins.
CALLERS = {"depmod": "linux-image-", "systemd-hwdb": "udev", "sed": "locales"}
KERNEL_SCRIPT = "#!/bin/sh -e\nversion={}\ndepmod $version\n"


@pytest.fixture(autouse=True)
def known(monkeypatch):
    """Makes the scripts of these tests known to the stand-ins."""
    scripts = dict.fromkeys(stand_ins.SCRIPTS, (sha256(b"a script\n").hexdigest(),))
    scripts["linux"] = (sha256(KERNEL_SCRIPT.format("@").encode()).hexdigest(),)
    monkeypatch.setattr(stand_ins, "SCRIPTS", scripts)


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
    assert debian.read("/real/asked") == "-a 6.12-amd64\n"
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


def test_the_initramfs_of_a_kernel_that_goes_is_removed_at_once(debian):
    def install():
        real(debian, "update-initramfs", f'echo "$*" >{debian.root}/real/asked')
        ask_for(debian, "update-initramfs", "-d", "-k", "6.12-amd64")

    debian.write("/boot/vmlinuz-6.13-amd64", "")
    on_install(debian, install)
    Apt(remove=("linux-image-6.12-amd64",), packages=("curl",)).run(debian)
    assert debian.read("/real/asked") == "-d -k 6.12-amd64\n"
    assert "update-initramfs" not in debian.programs()


def test_the_plain_way_has_no_stand_ins_and_the_same_initramfs(debian):
    def install():
        seen.extend(debian.list(STAND_INS))
        debian.write("/boot/vmlinuz-6.12-cloud-amd64", "")
        debian.write("/boot/initrd.img-6.12-cloud-amd64", "as Debian makes it")

    seen = []
    debian.plain = True
    debian.ahead = lambda: seen.append("ahead")
    on_install(debian, install)
    debian.when(
        "update-initramfs",
        lambda c: seen.append(debian.read("/etc/initramfs-tools/conf.d/particle-os")),
    )
    Apt(packages=("linux-image-cloud-amd64",)).run(debian)
    assert seen == ["COMPRESS=gzip\nCOMPRESSLEVEL=1\nMODULES=list\n"]
    (install,) = [c.argv for c in debian.commands if "install" in c.argv]
    assert not any(option.startswith("-oDPkg::Path=") for option in install)


def test_stages_to_come_do_ahead_what_they_can(debian):
    seen = []
    debian.ahead = lambda: seen.append("install" in apt_commands(debian)[-1])
    Apt(packages=("curl",)).run(debian)
    assert seen == [True]


def test_the_initramfs_is_made_once_for_each_kernel(debian):
    def install():
        debian.write("/boot/vmlinuz-6.12-cloud-amd64", "")
        debian.write("/boot/vmlinuz-6.12-amd64", "")
        for _ in range(3):
            ask_for(debian, "update-initramfs")

    settings, hooks = {}, {}

    def update_initramfs(command):
        settings[command.argv[-1]] = debian.read("/etc/initramfs-tools/conf.d/particle-os")
        place = "/usr/share/initramfs-tools/hooks"
        modes = {name: debian.mode(f"{place}/{name}") for name in debian.list(place)}
        hooks[command.argv[-1]] = modes

    on_install(debian, install)
    debian.when("update-initramfs", update_initramfs)
    Apt(packages=("linux-image-amd64",)).run(debian)
    made = [c.argv for c in debian.commands if c.argv[0] == "update-initramfs"]
    assert made == [
        ("update-initramfs", "-c", "-k", "6.12-amd64"),
        ("update-initramfs", "-c", "-k", "6.12-cloud-amd64"),
    ]
    assert "MODULES=list" in settings["6.12-cloud-amd64"]
    assert "MODULES=list" not in settings["6.12-amd64"]
    assert hooks == {"6.12-amd64": {}, "6.12-cloud-amd64": {"zz-particle-os": 0o755}}
    assert debian.list("/etc/initramfs-tools/conf.d") == []
    assert debian.list("/usr/share/initramfs-tools/hooks") == []
    assert debian.list("/run") == []


def test_dpkg_finds_the_stand_ins_first(debian):
    Apt(packages=("curl",)).run(debian)
    (install,) = [c.argv for c in debian.commands if "install" in c.argv]
    (path,) = [option for option in install if option.startswith("-oDPkg::Path=")]
    assert path.removeprefix("-oDPkg::Path=").split(":")[0] == STAND_INS
    assert path.endswith(":/usr/sbin:/usr/bin:/sbin:/bin")


def test_the_hardware_database_is_there_before_an_initramfs_that_holds_it(debian):
    def install():
        debian.write("/boot/vmlinuz-6.12-amd64", "")
        ask_for(debian, "update-initramfs")
        ask_for(debian, "systemd-hwdb", "--usr", "update")

    on_install(debian, install)
    made = []
    debian.when("systemd-hwdb", lambda c: (time.sleep(0.2), made.append("database")))
    debian.when("update-initramfs", lambda c: made.append("initramfs"))
    Apt(packages=("linux-image-amd64",)).run(debian)
    assert made == ["database", "initramfs"]


def test_a_hardware_database_that_fails_is_reported(debian):
    def fail(command):
        raise CommandFailed(command.argv, 1, ["no room"])

    on_install(debian, lambda: ask_for(debian, "systemd-hwdb", "--usr", "update"))
    debian.when("systemd-hwdb", fail)
    with pytest.raises(CommandFailed, match="systemd-hwdb"):
        Apt(packages=("udev",)).run(debian)


def test_no_initramfs_is_made_when_nothing_asks_for_it(debian):
    debian.write("/boot/vmlinuz-6.12-amd64", "")
    Apt(packages=("curl",)).run(debian)
    assert "update-initramfs" not in debian.programs()


def test_a_missing_package_is_reported_in_apts_words(debian):
    fail_with(debian, "Reading package lists...", "E: Unable to locate package nonsense")
    with pytest.raises(StageError) as raised:
        Apt(packages=("nonsense",)).run(debian)
    assert not isinstance(raised.value, EnvironmentFailed)
    assert raised.value.message == "apt-get: Unable to locate package nonsense"
    assert raised.value.hint
    assert raised.value.tail[-1] == "E: Unable to locate package nonsense"


@pytest.mark.parametrize(
    "line",
    [
        "Err:1 http://mirror.example/debian trixie InRelease",
        "E: Failed to fetch http://mirror.example/debian/x.deb  Connection failed",
        "W: Failed to fetch http://mirror.example/debian/dists/  "
        "Temporary failure resolving 'mirror.example'",
    ],
)
def test_an_unreachable_mirror_is_named(debian, line):
    fail_with(debian, line, "  Could not connect to mirror.example:80 (192.0.2.1)")
    with pytest.raises(EnvironmentFailed, match=r"mirror\.example cannot be reached") as raised:
        Apt(packages=("curl",)).run(debian)
    assert "Check the network" in raised.value.hint


@pytest.fixture
def helped(debian, monkeypatch):
    """A target whose host fetches packages; the host's disk is mounted already."""
    debian.write("/var/lib/dpkg/status", STATUS)
    debian.write("/etc/apt/sources.list", "deb [signed-by=/k/x.gpg] http://m.example s main\n")
    debian.write("/k/x.gpg", "key")
    debian.write("/etc/apt/trusted.gpg.d/y.asc", "other key")
    debian.write("/etc/apt/preferences.d/pin", "Package: *\n")
    debian.captured["apt-config"] = 'APT::Default-Release "s";\nDPkg::Post-Invoke "evil";\n'

    @contextmanager
    def disk(target):
        target.write("/run/particle-os-packages/Packages", "Package: curl\n")
        yield "/run/particle-os-packages"

    monkeypatch.setattr(from_host, "disk", disk)
    return debian


def test_the_host_gets_everything_that_decides_the_choice(helped):
    Apt(packages=("curl/s",), recommends=True, update=False).run(helped)
    (request,) = helped.report.requests
    assert base64.b64decode(request.status.content) == STATUS.encode()
    assert [file.path for file in request.sources] == ["/etc/apt/sources.list"]
    assert [f.path for f in request.keyrings] == ["/k/x.gpg", "/etc/apt/trusted.gpg.d/y.asc"]
    assert [file.path for file in request.preferences] == ["/etc/apt/preferences.d/pin"]
    assert [(s.key, s.value) for s in request.settings] == [("APT::Default-Release", "s")]


def test_what_the_host_fetched_is_installed_without_network(helped):
    Apt(packages=("curl/s", "vim=2:9.0")).run(helped)
    (install,) = [c.argv for c in helped.commands if c.argv[0] == "apt-get"]
    assert install[-4:] == ("install", "--", "curl", "vim=2:9.0")
    assert "--no-download" in install
    assert helped.networked == 0
    assert not helped.exists("/run/particle-os-lists")
    assert not helped.exists("/run/particle-os-packages.list")


def test_what_can_be_unpacked_at_once_is_and_stages_to_come_begin(helped, monkeypatch):
    @contextmanager
    def unpacked(target, disk, wanted):
        assert (disk, wanted) == (from_host.MOUNT, ["curl"])
        order.append("unpacked")
        yield ["curl:amd64=1", "libcurl:amd64=1"]
        order.append("noted")

    order = []
    monkeypatch.setattr(at_once, "unpacked", unpacked)
    helped.captured["apt-config"] = ""
    helped.ahead = lambda: order.append("ahead")
    on_install(helped, lambda: (until(lambda: "ahead" in order), order.append("installed")))
    # apt-get dist-upgrade would not configure packages that are only unpacked.
    Apt(packages=("curl",), upgrade=True).run(helped)
    assert only_install(helped)[-4:] == ("install", "--", "curl:amd64=1", "libcurl:amd64=1")
    assert order[:4] == ["unpacked", "ahead", "installed", "noted"]


def test_when_the_host_refuses_the_targets_apt_does_it(helped):
    helped.report.refusal = "a source has the option 'odd'"
    Apt(packages=("curl/s",)).run(helped)
    assert [argv[-1] for argv in apt_commands(helped)] == ["update", "curl/s"]
    assert helped.networked == 1
    assert "odd" in helped.report.notes[0]


@pytest.mark.parametrize("place", ["/etc/apt/auth.conf", "/etc/apt/auth.conf.d/mirror.conf"])
def test_passwords_stay_in_the_vm(helped, place):
    helped.write(place, "machine m.example login x password y")
    Apt(packages=("curl",)).run(helped)
    assert helped.report.requests == []
    assert helped.networked == 1


@pytest.mark.parametrize("name", ["nonesuch", "gone", "cur.", "curl+"])
def test_a_name_that_apt_took_for_something_else_is_an_error(helped, name):
    with pytest.raises(StageError, match="there is no package") as raised:
        Apt(packages=(name,)).run(helped)
    assert "suite of the base image" in raised.value.hint


def test_a_name_that_an_installed_package_provides_will_do(helped):
    names = ("editor", "vim-thing", "curl:amd64", "vim=1")
    Apt(packages=names).run(helped)
    assert set(names) <= set(only_install(helped))


def only_install(target):
    (found,) = [c.argv for c in target.commands if "--" in c.argv and c.argv[0] == "apt-get"]
    return found


def test_removals_are_part_of_the_same_transaction(helped):
    helped.when("apt-get", lambda c: helped.write("/var/lib/dpkg/status", ""))
    Apt(remove=("curl", "nonesuch"), purge=True, autoremove=True).run(helped)
    install = only_install(helped)
    assert install[-3:] == ("install", "--", "curl-")
    assert {"-oAPT::Get::Purge=true", "-oAPT::Get::AutomaticRemove=true"} <= set(install)
    assert helped.networked == 0, "a removal fetches nothing"
    assert helped.report.requests == []


def test_a_removal_alone_keeps_configuration_and_dependencies(helped):
    helped.when("apt-get", lambda c: helped.write("/var/lib/dpkg/status", ""))
    Apt(remove=("curl",)).run(helped)
    assert not [word for word in only_install(helped) if word.startswith("-oAPT::Get::")]


def test_a_package_that_was_not_removed_is_an_error(helped):
    with pytest.raises(StageError, match="'curl' was not removed") as raised:
        Apt(remove=("curl",)).run(helped)
    assert "package that needs it" in raised.value.hint


MULTIARCH = """\
Package: dpkg
Status: install ok installed
Architecture: amd64

Package: libfoo
Status: install ok installed
Architecture: {}

Package: libdoc
Status: install ok installed
Architecture: all
"""


def test_a_package_of_a_foreign_architecture_is_another_package(helped):
    helped.write("/var/lib/dpkg/status", MULTIARCH.format("i386"))
    with pytest.raises(StageError, match="'libfoo:i386' was not removed"):
        Apt(remove=("libfoo:i386", "libfoo:arm64")).run(helped)
    assert only_install(helped)[-1] == "libfoo:i386-"
    with pytest.raises(StageError, match="there is no package 'libfoo:amd64'"):
        Apt(packages=("libfoo:amd64",)).run(helped)
    Apt(packages=("libfoo:i386", "libdoc:amd64"), hold=("libfoo:i386", "libfoo")).run(helped)


@pytest.mark.parametrize(("left", "is_removed"), [("i386", True), ("amd64", False)])
def test_a_name_without_architecture_is_removed_when_the_native_one_is(helped, left, is_removed):
    helped.write("/var/lib/dpkg/status", MULTIARCH.format(left))
    if is_removed:
        Apt(remove=("libfoo",)).run(helped)
        assert only_install(helped)[-1] == "libfoo-"
    else:
        with pytest.raises(StageError, match="'libfoo' was not removed"):
            Apt(remove=("libfoo",)).run(helped)


def test_a_stage_may_only_declare_an_architecture(debian):
    Apt(architectures=("i386",), update=False).run(debian)
    assert debian.programs() == ["dpkg"]


def test_an_upgrade_and_new_packages_are_one_transaction(helped):
    Apt(packages=("vim",), upgrade=True).run(helped)
    assert only_install(helped)[-3:] == ("dist-upgrade", "--", "vim")
    assert len(helped.report.requests) == 1


def test_the_side_that_chooses_prefers_the_release(helped):
    Apt(packages=("vim",), target_release="s-backports").run(helped)
    assert not [a for a in only_install(helped) if "target-release" in a], "the host has chosen"
    helped.report.refusal = "no"
    helped.commands.clear()
    Apt(packages=("vim",), target_release="s-backports").run(helped)
    assert "--target-release=s-backports" in only_install(helped)


def test_pins_are_there_before_anything_is_chosen_and_stay(helped):
    helped.write("/etc/apt/preferences.d/pin", "")
    pins = (Pin(package="linux-* src:x", pin="release a=s", priority=-10),)
    Apt(packages=("vim",), pins=pins).run(helped)
    Apt(packages=("vim",), pins=pins).run(helped)
    text = "Package: linux-* src:x\nPin: release a=s\nPin-Priority: -10\n\n"
    assert helped.read("/etc/apt/preferences.d/recipe.pref") == text
    sent = {f.path: base64.b64decode(f.content) for f in helped.report.requests[0].preferences}
    assert sent["/etc/apt/preferences.d/recipe.pref"] == text.encode()


def test_priority_0_is_none():
    with pytest.raises(ValueError, match="no priority 0"):
        Pin(package="*", pin="release a=s", priority=0)


def test_answers_are_given_before_the_packages_come(helped):
    helped.write("/usr/bin/debconf-set-selections", "")
    answer = Answer(package="vim", question="vim/x", type="string", value="a b; $(id)")
    Apt(packages=("vim",), debconf=(answer,)).run(helped)
    assert helped.only("debconf-set-selections").stdin == "vim vim/x string a b; $(id)\n"
    programs = helped.programs()
    assert programs.index("debconf-set-selections") < programs.index("apt-get")


def test_a_base_without_debconf_is_an_error(helped):
    answer = Answer(package="vim", question="vim/x", type="string", value="")
    with pytest.raises(StageError, match="no debconf-set-selections") as raised:
        Apt(debconf=(answer,)).run(helped)
    assert "'debconf'" in raised.value.hint


def test_what_is_held_must_be_there(helped):
    Apt(hold=("vim",)).run(helped)
    assert helped.only("apt-mark").argv == ("apt-mark", "hold", "--", "vim")
    with pytest.raises(StageError, match="no package 'nonesuch'"):
        Apt(hold=("nonesuch",)).run(helped)


@pytest.fixture
def with_deb(helped, tmp_path):
    helped.attachments = tmp_path
    (tmp_path / "0123").write_bytes(b"a package")
    helped.captured["dpkg-deb"] = "vim 2:9.0-1\n"
    return helped


def test_package_files_come_by_name_when_the_host_has_put_them_on_the_disk(with_deb):
    Apt(debs=("sha256:0123",)).run(with_deb)
    assert only_install(with_deb)[-2:] == ("--", "vim=2:9.0-1")
    assert not with_deb.exists("/run/particle-os-debs")


def test_package_files_are_given_to_the_apt_of_the_target_else(with_deb):
    with_deb.report.refusal = "no"
    seen = []
    on_install(with_deb, lambda: seen.append(with_deb.read("/run/particle-os-debs/0.deb")))
    Apt(debs=("sha256:0123",)).run(with_deb)
    assert only_install(with_deb)[-1] == "/run/particle-os-debs/0.deb"
    assert seen == ["a package"]
    assert not with_deb.exists("/run/particle-os-debs")


def test_a_file_that_is_no_package_is_an_error(with_deb, monkeypatch):
    def fail(argv, **options):
        raise CommandFailed(argv, 2, ["not a Debian format archive"])

    monkeypatch.setattr(with_deb, "capture", fail)
    with pytest.raises(StageError, match=r"package file 1 is no Debian package"):
        Apt(debs=("sha256:0123",)).run(with_deb)


def test_a_stage_with_only_packages_from_the_host_does_not_fetch_by_itself(debian, monkeypatch):
    monkeypatch.setattr(from_host, "make_request", lambda target: object())
    debian.report.refusal = "the host has no apt"
    with pytest.raises(
        StageError, match="cannot fetch the packages: the host has no apt"
    ) as raised:
        Apt(packages=("curl",), network="packages").run(debian)
    assert "Give the stage a network" in raised.value.hint
    monkeypatch.setattr(from_host, "make_request", lambda target: None)
    with pytest.raises(StageError, match="cannot fetch the packages: the system has passwords"):
        Apt(packages=("curl",), network="packages").run(debian)
    assert apt_commands(debian) == []


def test_a_stage_that_only_removes_needs_no_packages_of_the_host(debian):
    debian.write("/var/lib/dpkg/status", "")
    Apt(remove=("curl",), network="packages").run(debian)
    assert debian.report.requests == []
