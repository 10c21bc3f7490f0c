"""The host chooses and fetches the packages, and the target installs them."""

import base64
from contextlib import contextmanager

import pytest
from particle_agent.apt import from_host
from particle_agent.errors import CommandFailed, StageError
from particle_agent.shortcuts import at_once
from particle_agent.stages.software.apt import Apt, Pin

from ....waiting import until
from .apt_calls import (
    STATUS,
    apt_commands,
    on_install,
    only_install,
)


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
