import os
from pathlib import Path

import particle_agent.target.target
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st
from particle_agent.errors import CommandFailed, EnvironmentFailed, StageError
from particle_agent.target.disks import wait_for_disk
from particle_agent.target.target import Target


@pytest.fixture
def outside(target):
    """A directory next to the root, which no path in the root may reach."""
    place = target.directory / "outside"
    place.mkdir()
    (place / "secret").write_text("secret")
    return place


def link(target, path, to):
    place = target.root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(to)


def test_absolute_links_start_at_the_targets_root(target):
    target.write("/real/file", "inside")
    link(target, "etc/file", "/real/file")
    link(target, "etc/directory", "/real")
    assert target.read("/etc/file") == "inside"
    assert target.read("/etc/directory/file") == "inside"


def test_absolute_links_to_real_files_outside_are_not_followed(target, outside):
    link(target, "leak", outside)
    assert not target.exists("/leak/secret")
    target.write("/leak/new", "x")
    assert sorted(os.listdir(outside)) == ["secret"]


@pytest.mark.parametrize("chain", ["..", "../../../..", "a/../../../outside", "./../."])
def test_dots_never_climb_out(target, outside, chain):
    (target.root / "a").mkdir()
    assert target.path(f"/a/{chain}").is_relative_to(target.root)
    link(target, "a/link", f"{chain}/outside")
    assert target.path("/a/link/secret").is_relative_to(target.root)
    assert not target.exists("/a/link/secret")
    assert not target.exists("/../outside/secret")


def test_relative_links_resolve_where_they_stand(target):
    target.write("/usr/share/zone", "zone")
    link(target, "etc/localtime", "../usr/share/zone")
    assert target.read("/etc/localtime") == "zone"


@pytest.mark.parametrize("to", ["loop", "/a/loop", "../a/./loop"])
def test_loops_are_reported(target, to):
    link(target, "a/loop", to)
    with pytest.raises(StageError, match="symbolic links"):
        target.read("/a/loop/file")


def test_a_loop_can_be_removed_and_replaced(target):
    link(target, "loop", "loop")
    target.write("/loop", "file")
    assert target.read("/loop") == "file"


def test_writing_replaces_a_link_instead_of_following_it(target):
    target.write("/shadow", "precious")
    link(target, "etc/file", "/shadow")
    target.write("/etc/file", "new", mode=0o600)
    assert target.read("/shadow") == "precious"
    assert not target.is_link("/etc/file")
    assert target.mode("/etc/file") == 0o600


def test_what_is_made_belongs_to_root(target):
    target.make_directory("/srv")
    target.write("/srv/file", "text")
    assert (target.owner("/srv"), target.owner("/srv/file")) == ((0, 0), (0, 0))
    assert (target.mode("/srv"), target.mode("/srv/file")) == (0o755, 0o644)


def test_writing_leaves_nothing_else_behind(target):
    target.write("/etc/file", "text")
    assert target.list("/etc") == ["file"]


def test_removing_a_link_keeps_what_it_points_at(target):
    target.write("/data/file", "x")
    link(target, "link", "/data")
    target.remove("/link")
    assert target.exists("/data/file")
    assert not target.is_link("/link")


def test_removing_takes_files_trees_and_nothing(target):
    target.write("/tree/a/b", "x")
    target.remove("/tree")
    target.remove("/tree")
    assert not target.exists("/tree")


def test_a_symlink_replaces_what_was_there(target):
    target.write("/etc/localtime", "x")
    target.symlink("/etc/localtime", "/usr/share/zoneinfo/UTC")
    assert os.readlink(target.root / "etc/localtime") == "/usr/share/zoneinfo/UTC"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda place: place.symlink_to("/x")])
@pytest.mark.timeout(60)
def test_only_a_regular_file_is_read(target, make):
    make(target.root / "file")
    for read in (target.read, target.read_bytes, target.open):
        with pytest.raises(StageError, match=r"/file of the image (is no regular|cannot be read)"):
            read("/file")
    target.write("/real", "x")
    target.symlink("/link", "/real")
    assert target.read("/link") == "x"
    with target.open("/link") as file:
        assert file.read() == b"x"


def test_what_is_no_regular_file_does_not_stay_open(target):
    target.make_directory("/srv")
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        with pytest.raises(StageError):
            target.open("/srv")
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_a_file_that_is_too_large_for_the_memory_is_not_read(target):
    with (target.root / "file").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(StageError, match="/file of the image has more than 128 MiB"):
        target.read("/file")


def test_a_place_that_takes_no_file_is_reported(target):
    target.make_directory("/etc/fstab/x")
    target.write("/file", "")
    writes = (
        lambda: target.write("/etc/fstab", ""),
        lambda: target.write("/file/below", ""),
        lambda: target.make_directory("/file"),
        lambda: target.symlink("/file/below/link", "x"),
        lambda: target.write(f"/{'x' * 300}", ""),
    )
    for write in writes:
        with pytest.raises(StageError, match="of the image cannot be written: "):
            write()


def test_the_target_holds_its_own_disk_and_no_mounts(target):
    target.make_directory("/home")
    target.symlink("/link", "/proc")
    assert target.holds(target.path("/home"))
    assert target.holds(target.root / "link")
    assert not target.holds(target.root / "missing")
    assert not target.holds(Path("/proc"))


def test_a_directory_that_is_missing_is_empty(target):
    assert target.list("/nowhere") == []


NAMES = st.sampled_from(["a", "b", "l", "m", "..", ".", "", "etc"])
TEXTS = st.builds(lambda lead, parts: lead + "/".join(parts), st.sampled_from(["", "/"]),
                  st.lists(NAMES, min_size=1, max_size=6))  # fmt: skip


@pytest.mark.slow
@given(path=TEXTS, first=TEXTS, second=TEXTS)
def test_no_path_through_any_links_leaves_the_root(make_target, path, first, second):
    target = make_target()
    (target.root / "a/b").mkdir(parents=True)
    (target.root / "a/l").symlink_to(first or ".")
    (target.root / "m").symlink_to(second or ".")
    try:
        place = target.path(path)
    except StageError:
        reject()  # The links are a loop.
    assert place == target.root or target.root in place.parents
    assert ".." not in place.parts
    # All links are resolved, so that the kernel follows none.
    assert not any(parent.is_symlink() for parent in (place, *place.parents))


def test_a_command_runs_with_a_plain_environment_and_its_output_is_reported(tmp_path):
    class Lines:
        def __init__(self):
            self.lines = []

        def output(self, text):
            self.lines.append(text)

    report = Lines()
    target = Target(tmp_path, report, hostname="x")
    target.run(["sh", "-c", 'echo "$DEBIAN_FRONTEND $LC_ALL $EXTRA"; cat'], stdin="in", env={"EXTRA": "e"})  # fmt: skip # noqa: E501
    assert report.lines[1:] == ["noninteractive C.UTF-8 e", "in"]
    with pytest.raises(CommandFailed):
        target.run(["false"])


@pytest.fixture
def resolver(target, tmp_path, monkeypatch):
    """A target with a substitute for the helper VM's resolv.conf."""
    ours = tmp_path / "resolv.conf"
    ours.write_text("nameserver 192.0.2.53\n")
    monkeypatch.setattr(
        particle_agent.target.target, "Path", lambda p: ours if p == "/etc/resolv.conf" else Path(p)
    )
    return target


def test_the_network_leaves_no_resolv_conf_of_the_helper(resolver):
    with Target.network(resolver):
        assert resolver.read("/etc/resolv.conf") == "nameserver 192.0.2.53\n"
    assert resolver.list("/etc") == []


@pytest.mark.parametrize("as_link", [True, False])
def test_the_resolv_conf_of_the_base_comes_back(resolver, as_link):
    if as_link:
        link(resolver, "etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf")
    else:
        resolver.write("/etc/resolv.conf", "the base's own")
    with pytest.raises(StageError), Target.network(resolver):
        assert resolver.read("/etc/resolv.conf") == "nameserver 192.0.2.53\n"
        raise StageError("a failing installation")
    assert resolver.list("/etc") == ["resolv.conf"]
    assert resolver.is_link("/etc/resolv.conf") == as_link
    if not as_link:
        assert resolver.read("/etc/resolv.conf") == "the base's own"


def test_the_resolv_conf_of_the_base_is_kept_in_no_file_that_a_link_names(resolver):
    resolver.write("/etc/passwd", "root:x:0:0\n")
    resolver.write("/etc/resolv.conf", "the base's own")
    link(resolver, "etc/.particle-os-resolv.conf", "passwd")
    with Target.network(resolver):
        assert resolver.read("/etc/passwd") == "root:x:0:0\n"
    assert resolver.list("/etc") == ["passwd", "resolv.conf"]
    assert resolver.read("/etc/resolv.conf") == "the base's own"
    assert resolver.read("/etc/passwd") == "root:x:0:0\n"


def test_a_copy_that_a_package_made_of_the_helpers_goes_with_it(resolver):
    backup = "/etc/.resolv.conf.systemd-resolved.bak"
    with Target.network(resolver):
        resolver.path("/etc/resolv.conf").rename(resolver.root / backup.strip("/"))
        resolver.symlink("/etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf")
    assert resolver.list("/etc") == ["resolv.conf"]
    with Target.network(resolver):
        resolver.write(backup, "the base's own")
        resolver.symlink("/etc/resolv.conf", "/run/resolvconf/resolv.conf")
    assert resolver.read(backup) == "the base's own"


def test_the_resolv_conf_of_a_new_package_stays(resolver):
    resolver.write("/etc/resolv.conf", "the base's own")
    with Target.network(resolver):
        resolver.symlink("/etc/resolv.conf", "/run/resolvconf/resolv.conf")
    assert resolver.list("/etc") == ["resolv.conf"]
    assert resolver.is_link("/etc/resolv.conf")


def test_a_disk_that_never_appears_is_reported():
    with pytest.raises(EnvironmentFailed, match="'no-such-serial'"):
        wait_for_disk("no-such-serial", 512, 0.1)


def test_secrets_are_there_for_as_long_as_the_context_lasts(target):
    with target.secrets({"token": b"\xffvalue"}):
        assert target.read_bytes("/run/secrets/token") == b"\xffvalue"
        assert target.mode("/run/secrets/token") == 0o400
        assert target.mode("/run/secrets") == 0o700
    assert not target.exists("/run/secrets")
    with pytest.raises(ZeroDivisionError), target.secrets({"token": b"value"}):
        raise ZeroDivisionError
    assert not target.exists("/run/secrets")
    with target.secrets({}):
        assert not target.exists("/run/secrets")


def test_a_command_in_the_target_gets_its_input_and_its_variables(target):
    target.chroot(["chpasswd"], stdin="name:word", env={"A": "b"})
    command = target.only("chpasswd")
    assert (command.inside, command.stdin, command.env) == (True, "name:word", {"A": "b"})
