"""The stage `ostree`, and the disk that boots its commit."""

import json
import os
from fnmatch import fnmatch

import pytest
from particle_agent.agent.missing import missing
from particle_agent.contract.decode import DecodeError, decode
from particle_agent.contract.options import Faults
from particle_agent.contract.values import Download
from particle_agent.errors import CommandFailed, StageError
from particle_agent.ostree import account_rules, boot_counting, history, machine_files, tree
from particle_agent.ostree.image import automatic_updates, initramfs
from particle_agent.ostree.image.layout import LINKS, MOVED
from particle_agent.ostree.remote import Remote
from particle_agent.ostree.repositories.commit_record import CommitRecord, workshop
from particle_agent.stages.output.ostree import Ostree
from particle_agent.stages.output.qemu import Qemu

from .commits import CHECKSUM, REF, commit_words, verbs


def test_the_commit_is_made_last_and_recorded(debian):
    Ostree(ref=REF).run(debian)
    assert verbs(debian) == ["init", "commit", "rev-parse"]
    assert debian.programs()[-1] == "ostree"
    found = debian.ostree.committed
    assert found["/boot"] == []
    assert "passwd" in found["/usr/etc"]
    assert "etc" not in found["/"]
    assert found["/var"] == [], "/var is no part of a commit"
    record = CommitRecord.read(debian)
    assert (record.ref, record.checksum, record.kernel) == (REF, CHECKSUM, "6.12")
    assert f"the commit of {REF} is {CHECKSUM}" in debian.report.notes


def test_the_initramfs_is_made_with_the_hook_before_the_kernel_moves(debian):
    seen = []

    def update(command):
        seen.append(debian.read(f"{initramfs.TOOLS}/hooks/ostree"))
        seen.append(debian.mode(f"{initramfs.TOOLS}/scripts/init-bottom/ostree"))
        seen.append(debian.read(initramfs.CONFIGURATION))
        debian.write("/boot/initrd.img-6.12", "initramfs with ostree")

    debian.when("update-initramfs", update)
    Ostree(ref=REF).run(debian)
    assert seen[1:] == [0o755, "[sysroot]\nreadonly = true\n"]
    assert debian.read("/usr/lib/modules/6.12/initramfs.img") == "initramfs with ostree"
    assert debian.programs().index("update-initramfs") < debian.programs().index("ostree")


def test_an_image_for_many_machines_has_no_identity(debian):
    debian.write("/etc/machine-id", "0123\n")
    debian.write("/etc/ssh/ssh_host_rsa_key", "secret")
    debian.write("/tmp/left", "")
    debian.write("/dev/left", "")
    debian.write("/root/.bash_history", "secret")
    Ostree(ref=REF).run(debian)
    assert debian.read("/usr/etc/machine-id") == ""
    assert debian.list("/usr/etc/ssh") == []
    assert debian.list("/tmp") == debian.list("/dev") == []


def test_the_commit_has_what_the_recipe_says(debian):
    debian.source_date = 1_000_000_000
    Ostree(ref=REF, version="13.1 'x' -y", subject="--tree=ref=x").run(debian)
    words = commit_words(debian)
    repository = workshop(debian) / "repository"
    assert words[2:] == (
        f"--repo={repository}",
        f"--branch={REF}",
        "--timestamp=@1000000000",
        "--bootable",
        "--add-metadata-string=particle-os.stateroot=debian",
        "--add-metadata-string=version=13.1 'x' -y",
        "--subject=--tree=ref=x",
        str(debian.root),
    )


def test_the_commit_is_bound_to_its_names(debian):
    stage = Ostree(
        ref=REF,
        metadata={"org.example.build": "42 --x", "key": "ä"},
        collection_id="org.example.Edge",
        ref_binding=("debian/13/amd64/stable",),
        remote=Remote(url="https://u.example.org", name="fleet", verify=False),
    )
    stage.run(debian)
    (init,) = [c.argv for c in debian.commands if c.argv[:2] == ("ostree", "init")]
    assert init[-1] == "--collection-id=org.example.Edge"
    words = commit_words(debian)
    for word in (
        "--add-metadata-string=org.example.build=42 --x",
        "--add-metadata-string=key=ä",
        "--bind-ref=debian/13/amd64/stable",
    ):
        assert word in words
    record = CommitRecord.read(debian)
    assert (record.remote, record.collection) == ("fleet", "org.example.Edge")
    assert "collection-id=org.example.Edge" in debian.read("/usr/etc/ostree/remotes.d/fleet.conf")


def test_the_server_of_the_disk_has_the_name_of_the_recipe(disk, debian):
    disk(Ostree(ref=REF, remote=Remote(url="https://u.example.org", name="fleet", verify=False)))
    (deploy,) = [c.argv for c in debian.commands if c.argv[:3] == ("ostree", "admin", "deploy")]
    assert deploy[-1] == f"fleet:{REF}"
    pulls = [c.argv for c in debian.commands if c.argv[:2] == ("ostree", "pull-local")]
    assert [p for p in pulls if "--remote=fleet" in p] == [p for p in pulls if "sysroot" in p[2]]


@pytest.mark.parametrize("key", ["version", "ostree.bootable", "ostree.linux", "rpmostree.x"])
def test_the_keys_of_ostree_itself_are_refused(key):
    with pytest.raises(Faults, match=f"OSTree itself uses the key '{key}'") as raised:
        Ostree(ref=REF, metadata={key: "x"})
    assert raised.value.found[0][0] == ("metadata", key)


def test_machines_need_a_server_for_automatic_updates():
    with pytest.raises(Faults, match="machines have no server; write 'remote'"):
        Ostree(ref=REF, automatic_updates="stage")


@pytest.mark.parametrize("users", ["sysusers", "merge"])
def test_the_accounts_have_rules_or_not(debian, users):
    Ostree(ref=REF, users=users).run(debian)
    assert debian.exists(account_rules.RULES) == (users == "sysusers")


def test_var_of_the_first_version_is_part_of_the_commit(debian):
    debian.write("/var/lib/x/file", "content")
    debian.write("/srv/www/index.html", "content")
    Ostree(ref=REF, var="initial").run(debian)
    assert debian.ostree.committed["/var"] == [
        "home", "lib", "mnt", "opt", "roothome", "srv", "usrlocal",
    ]  # fmt: skip
    assert debian.read("/var/lib/x/file") == debian.read("/var/srv/www/index.html") == "content"
    assert debian.read(machine_files.OWN_RULES).count("\n") == 2
    assert not debian.exists(machine_files.ONCE)


def test_content_of_var_can_be_refused(debian):
    debian.write("/var/lib/x/file", "content")
    debian.write("/usr/lib/tmpfiles.d/x.conf", "C /var/lib/ruled\n")
    debian.write("/var/lib/ruled", "")
    with pytest.raises(StageError, match=r"^var-content: .*: /var/lib/x/file$"):
        Ostree(ref=REF, var="refuse").run(debian)
    assert debian.commands == []
    debian.remove("/var/lib/x")
    Ostree(ref=REF, var="refuse").run(debian)
    assert CommitRecord.read(debian)


def test_settings_of_the_root_reach_the_initramfs(debian):
    debian.captured["ostree"] = f"{CHECKSUM}\n"
    debian.capture = lambda argv, timeout=60: " Version: '2025.2'\n"
    Ostree(ref=REF, etc="transient").run(debian)
    assert "[etc]\ntransient = true\n" in debian.read(initramfs.CONFIGURATION)
    hook = debian.read(f"{initramfs.TOOLS}/hooks/ostree")
    assert hook.endswith("manual_add_modules overlay\n")


def contents(target):
    """The paths of an image, as its running system has them, with the contents of the files."""
    found = {}
    for place in target.root.rglob("*"):
        path = f"/{place.relative_to(target.root)}"
        path = path.replace("/usr/etc/", "/etc/", 1) if path.startswith("/usr/etc/") else path
        if place.is_symlink():
            found[path] = os.readlink(place)
        elif place.is_file():
            found[path] = place.read_bytes()
    return found


def test_the_stage_names_every_file_that_it_writes(debian):
    """Otherwise a file of a recipe is lost without a word."""
    debian.write("/usr/share/systemd/tmp.mount", "")
    debian.write("/etc/hostname", "x\n")
    debian.write("/root/.bashrc", "")
    debian.captured["ostree"] = f"{CHECKSUM}\n"
    (debian.attachments / "0123").write_text("certificates")
    server = Remote(url="https://u.example.org", name="f", verify=False, tls_ca="sha256:0123")
    stage = Ostree(ref=REF, remote=server, automatic_updates="apply")
    before = contents(debian)
    stage.run(debian)
    written = {path for path, text in contents(debian).items() if before.get(path) != text}
    named = {path for path in written for pattern, _ in stage.rewrites() if fnmatch(path, pattern)}
    # The variable is added to the file. A unit of systemd is installed as it is. The rest are the
    # links of the layout.
    assert written - named == {
        "/etc/environment", "/usr/lib/systemd/system/tmp.mount",
        "/usr/lib/systemd/system/local-fs.target.wants/tmp.mount",
        f"/usr/lib/systemd/system/multi-user.target.wants/{boot_counting.SUCCESS}",
        f"/usr/lib/systemd/system/multi-user.target.wants/{boot_counting.COUNT}",
        f"/usr/lib/systemd/system/sysinit.target.wants/{machine_files.SERVICE}",
        f"/usr/lib/systemd/system/timers.target.wants/{automatic_updates.NAME}.timer",
        "/usr/lib/modules/6.12/vmlinuz", "/usr/lib/modules/6.12/initramfs.img",
        *MOVED, *LINKS,
    }  # fmt: skip


def test_all_faults_of_the_image_come_before_anything_changes(debian):
    debian.write("/media/films/one", "")
    os.mkfifo(debian.path("/etc/pipe"))
    files = sorted(debian.root.rglob("*"))
    with pytest.raises(StageError, match="2 kinds of faults") as raised:
        Ostree(ref=REF).run(debian)
    assert [line.split(":")[0] for line in raised.value.tail] == ["content-dropped", "special-file"]
    assert sorted(debian.root.rglob("*")) == files
    assert debian.commands == []


@pytest.mark.parametrize("verb", ["init", "commit"])
def test_a_failure_of_ostree_leaves_no_record(debian, verb):
    debian.ostree.failing = verb
    with pytest.raises(CommandFailed) as raised:
        Ostree(ref=REF).run(debian)
    assert raised.value.tail == ("error: no space",)
    assert CommitRecord.read(debian) is None


@pytest.mark.parametrize("checksum", ["", "no-checksum\n", "../../../etc\n", f"{CHECKSUM[:-1]}\n"])
def test_an_answer_of_ostree_that_is_no_checksum_is_an_error(debian, checksum):
    debian.captured["ostree"] = checksum
    with pytest.raises(StageError, match="no checksum"):
        Ostree(ref=REF).run(debian)
    assert CommitRecord.read(debian) is None


def test_a_kernel_without_its_initramfs_is_an_error_before_the_tree_changes(debian):
    debian.remove("/boot/initrd.img-6.12")
    with pytest.raises(StageError, match="no initramfs for its kernel"):
        Ostree(ref=REF).run(debian)
    assert debian.exists("/etc/passwd")
    assert debian.commands == []


def test_the_stage_does_not_run_twice_over_its_result(debian):
    Ostree(ref=REF).run(debian)
    files = sorted(debian.root.rglob("*"))
    with pytest.raises(StageError, match="no kernel in /boot"):
        Ostree(ref=REF).run(debian)
    assert sorted(debian.root.rglob("*")) == files
    assert CommitRecord.read(debian).checksum == CHECKSUM


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(
            ("ref", value)
            for value in (
                "", "-edge", "--branch", "a/-b", "/a", "a/", "a//b", "a/../b", "..", ".a", "a/.b",
                "a b", "a\nb", "a:b", "a^", "a@b", "ä", "a" * 201, "edge\n",
            )
        ),
        *(("stateroot", value) for value in ("", "-a", "a/b", "..", "A", "a b", "a\n", "x" * 61)),
        *(("version", value) for value in ("", "a\nb", "\x1b[1m", "x" * 201, "a\x7f", "a\n")),
        *(("version", value) for value in ("a\x9b1m", "\x85", "a\u2028b", "a\u2029")),
        *(("subject", value) for value in ("", "a\nb", "\0")),
        *(("boot-counting", value) for value in (-1, 10, "3", True, 1.5)),
        *(
            ("metadata", {value: "x"})
            for value in ("", "a b", "a=b", "-a", "a..b", "version", "ostree.bootable", "a\n")
        ),
        *(("metadata", {"key": value}) for value in ("", "a\nb", "\x9b", 1)),
        *(
            ("collection-id", value)
            for value in ("", "edge", "org..x", "org.1x", "org.a-b", ".org.x", "--x.y", "org.x\n")
        ),
        *(("ref-binding", value) for value in (["-x"], ["edge"], ["a", "a"], ["a..b/.c"])),
        *(("var", value) for value in ("", "keep")),
        *(("users", value) for value in ("", "keep")),
        *(("etc", value) for value in ("", "keep")),
        *(("composefs", value) for value in ("yes", 1)),
        *(("automatic-updates", value) for value in ("daily", "stage", "apply")),
        *(("publish", value) for value in (["delta"], "repository/..", ["-x"])),
    ],
)  # fmt: skip
def test_a_value_that_a_command_could_take_for_something_else_is_refused(key, value):
    with pytest.raises((DecodeError, Faults)):
        decode(Ostree, {"type": "ostree", "ref": "edge", key: value}, "stages[0]")


def test_a_ref_that_looks_like_a_checksum_is_refused():
    """ostree(1) takes it for a commit."""
    with pytest.raises(Faults, match="looks like the checksum of a commit"):
        Ostree(ref="A0" * 32)
    assert Ostree(ref="a0" * 31).ref
    assert Ostree(ref=f"edge/{CHECKSUM}").ref


def test_the_record_is_read_as_it_was_written(target):
    workshop(target).mkdir()
    record = CommitRecord(REF, CHECKSUM, "debian", "6.12", ("repository",), "origin", None)
    record.write(target)
    assert CommitRecord.read(target) == record
    assert json.loads((workshop(target) / "commit.json").read_text())["ref"] == REF


def test_an_image_without_the_stage_has_no_record(target):
    assert CommitRecord.read(target) is None


def test_a_build_goes_on_after_the_checkpoint_of_the_stage(debian):
    """The kernel is no longer in /boot then, and the needs of the disk are checked again."""
    for path in ("/usr/sbin/init", "/usr/sbin/mkfs.ext4"):
        debian.write(path, "")
    following = [Qemu(boot_loader="grub")]
    assert list(missing(following, debian)) == []
    Ostree(ref=REF).run(debian)
    assert list(missing(following, debian)) == []
    debian.remove("/usr/lib/modules/6.12/vmlinuz")
    assert [need.what for _, need in missing(following, debian)] == ["package linux-image"]


def test_the_tree_of_a_commit_is_known(debian):
    assert not tree.is_commit(debian)
    Ostree(ref=REF).run(debian)
    assert tree.is_commit(debian)


def test_a_delta_needs_a_parent():
    with pytest.raises(Faults, match="a delta needs a 'parent'") as raised:
        Ostree(ref=REF, publish=("repository", "delta"))
    assert raised.value.found[0][0] == ("publish", 1)
    parent = f"sha256:{CHECKSUM}"
    assert Ostree(ref=REF, parent=parent, publish=("delta",)).publishes == ("delta",)


def test_one_parent_is_enough():
    download = Download(url="https://example.org/edge.ostree.tar", sha256=CHECKSUM)
    assert Ostree(ref=REF, parent_download=download).input_disk == f"sha256:{CHECKSUM}"
    with pytest.raises(Faults, match="has a 'parent' already"):
        Ostree(ref=REF, parent=f"sha256:{CHECKSUM}", parent_download=download)


def test_the_parent_is_taken_first_and_continued(debian, monkeypatch):
    def begin(target, ref, stateroot, key):
        assert target.list("/boot"), "nothing has changed yet"
        return "1" * 64

    monkeypatch.setattr(history, "begin", begin)
    Ostree(ref=REF, parent=f"sha256:{CHECKSUM}").run(debian)
    assert f"--parent={'1' * 64}" in commit_words(debian)
    record = CommitRecord.read(debian)
    assert (record.parent, record.checksum) == ("1" * 64, CHECKSUM)
