import pytest
from particle_agent.errors import EnvironmentFailed, StageError
from particle_agent.stages.software.apt import Answer, Apt, Pin

from .apt_calls import apt_commands, fail_with, on_install, only_install


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


def test_stages_to_come_do_ahead_what_they_can(debian):
    seen = []
    debian.ahead = lambda: seen.append("install" in apt_commands(debian)[-1])
    Apt(packages=("curl",)).run(debian)
    assert seen == [True]


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
