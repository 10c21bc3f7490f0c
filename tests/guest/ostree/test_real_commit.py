"""Commits that the real ostree(1) makes: the same ones again, and bound to their names."""

import hashlib
import os
import shutil
import subprocess

import pytest
from particle_agent.ostree.remote import Remote
from particle_agent.ostree.repositories import given, publication
from particle_agent.ostree.repositories.commit_record import CommitRecord, workshop
from particle_agent.stages.output.ostree import Ostree

from ..conftest import RecordingTarget
from .container.conftest import opened

pytestmark = pytest.mark.skipif(shutil.which("ostree") is None, reason="no ostree")
REF, DATE = "debian/13/amd64/edge", 1_700_000_000
OPTIONS = {
    "ref": REF,
    "version": "13.1",
    "subject": "First",
    "metadata": {"org.example.build": "42"},
    "collection_id": "org.example.Edge",
    "ref_binding": ("debian/13/amd64/stable",),
}


class Machine(RecordingTarget):
    """A target whose helper VM has the real ostree(1)."""

    def run(self, argv, *, stdin="", env=None, timeout=None):
        super().run(argv, stdin=stdin, env=env, timeout=timeout)
        if argv[0] == "ostree":
            ostree(*argv[1:])
        elif argv[0] == "tar":
            subprocess.run(argv, check=True)

    def capture_outside(self, argv, *, timeout=60.0):
        if argv[0] == "ostree":
            return ostree(*argv[1:])
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def ostree(*words):
    env = os.environ | {"SOURCE_DATE_EPOCH": str(DATE), "LC_ALL": "C.UTF-8"}
    done = subprocess.run(["ostree", *words], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def build(tmp_path):
    """A function that makes an image in a new directory, and commits it. Its times are the real."""

    def build(**options):
        directory = tmp_path / f"build{len(list(tmp_path.iterdir()))}"
        directory.mkdir()
        machine = Machine(directory)
        machine.source_date = DATE
        names = ("vmlinuz-6.12", "initrd.img-6.12", "config-6.12")
        # Another order of the files is another order in the directories of many file systems.
        for name in names if len(list(tmp_path.iterdir())) % 2 else reversed(names):
            machine.write(f"/boot/{name}", name)
        for path in ("/dev", "/proc", "/run", "/sys", "/tmp"):
            machine.make_directory(path)
        machine.write("/var/lib/dpkg/status", "")
        machine.write("/etc/passwd", "root:x:0:0::/root:/bin/sh\ndaemon:x:1:1::/:\n")
        machine.write("/etc/group", "root:x:0:\ndaemon:x:1:\n")
        machine.write("/usr/bin/ä tool", "program", mode=0o4755)
        machine.symlink("/usr/bin/link", "ä tool")
        machine.write("/var/lib/x/file", "content", mode=0o600)
        machine.write("/srv/www/index.html", "page")
        machine.make_directory("/var/lib/a b", mode=0o750)
        Ostree(**OPTIONS | options).run(machine)
        return machine

    return build


def show(machine, key):
    repository = workshop(machine) / "repository"
    return ostree("show", f"--repo={repository}", f"--print-metadata-key={key}", REF).strip()


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"var": "initial", "users": "merge", "boot_counting": 0},
        {
            "remote": Remote(url="https://u.example.org", verify=False),
            "automatic_updates": "apply",
        },
    ],
)
def test_two_builds_make_the_same_commit_and_the_same_repository(build, options):
    first, second = build(**options), build(**options)
    records = [CommitRecord.read(machine) for machine in (first, second)]
    assert records[0] == records[1]
    sums = []
    for machine, record in zip((first, second), records, strict=True):
        ostree("fsck", f"--repo={workshop(machine) / 'repository'}")
        publication.collect(machine, record)
        publication.write(machine, record)
        sums.append(hashlib.sha256((machine.directory / "repository").read_bytes()).hexdigest())
    assert sums[0] == sums[1]


@pytest.mark.slow
def test_two_builds_make_the_same_image_with_the_files_of_the_commit(build):
    images = []
    for _ in range(2):
        machine = build(publish=("oci-archive",), version="1")
        publication.write(machine, CommitRecord.read(machine))
        assert machine.report.disks == ["oci-archive"]
        path = machine.directory / "oci-archive"
        with path.open("r+b") as file:
            file.truncate(machine.report.written[-1])
        images.append(path.read_bytes())
    assert images[0] == images[1]
    repository = workshop(machine) / "repository"
    listed = ostree("ls", f"--repo={repository}", "-R", "--nul-filenames-only", REF).split("\0")
    committed = {name.replace("/usr/etc", "/etc", 1)[1:] for name in listed} - {""}
    found = opened(path)
    more = set(found.members) - committed
    assert set(found.members) - more == committed
    kept = {name: found.members[name] for name in more}
    assert kept.pop("var/lib/dpkg").linkname == "../../usr/share/dpkg/database"
    assert {name.split("/")[0] for name in kept} == {"var"}
    assert all(member.isdir() for member in kept.values())
    assert kept["var/lib/a b"].mode == 0o750
    assert not any("var-tmpfiles" in note for note in machine.report.notes), "each has a rule"
    assert "usr/bin/ä tool" in committed
    assert found.config["config"]["Labels"]["particle-os.commit"] in ostree(
        "rev-parse", f"--repo={repository}", REF
    )
    assert "srv" in found.members
    assert found.members["srv"].linkname == "var/srv"
    # The commit of this test has no shell, and no bootc.
    notes = [note for note in machine.report.notes if note.startswith("bootc-missing")]
    assert len(notes) == 1


def test_an_image_with_the_content_of_var_has_all_of_it(build):
    machine = build(publish=("oci-archive",), var="initial")
    publication.write(machine, CommitRecord.read(machine))
    path = machine.directory / "oci-archive"
    with path.open("r+b") as file:
        file.truncate(machine.report.written[-1])
    members = opened(path).members
    assert members["var/lib/x/file"].mode == 0o600
    assert members["var/lib/dpkg"].linkname == "../../usr/share/dpkg/database"
    (note,) = [note for note in machine.report.notes if "var-tmpfiles" in note]
    assert "/var/home" in note


@pytest.mark.slow
def test_another_file_or_another_version_is_another_commit(build):
    found = {
        CommitRecord.read(build(**options)).checksum
        for options in ({}, {"version": "13.2"}, {"boot_counting": 5}, {"collection_id": "a.b"})
    }
    assert len(found) == 4


def test_the_commit_has_its_names(build):
    machine = build()
    assert show(machine, "version") == "'13.1'"
    assert show(machine, "org.example.build") == "'42'"
    assert show(machine, "ostree.collection-binding") == "'org.example.Edge'"
    bound = show(machine, "ostree.ref-binding")
    assert bound == "['debian/13/amd64/edge', 'debian/13/amd64/stable']"
    assert show(machine, "ostree.bootable") == "true"


def published(machine, name):
    """The file that a machine has published on an output disk."""
    record = CommitRecord.read(machine)
    publication.collect(machine, record)
    publication.write(machine, record)
    path = machine.directory / name
    os.truncate(path, machine.report.written[machine.report.disks.index(name)])
    return path


@pytest.fixture
def update(build, monkeypatch, tmp_path):
    """Two versions: the file of the delta between them, and a machine that has the first one."""
    first = build()
    archive = published(first, "repository")
    monkeypatch.setattr(given, "wait_for_disk", lambda *_: archive)
    second = build(version="13.2", parent="edge.ostree.tar", publish=("repository", "delta"))
    delta = published(second, "delta")
    field = tmp_path / "field"
    ostree("init", f"--repo={field}", "--mode=bare-user")
    ostree("pull-local", f"--repo={field}", str(workshop(first) / "repository"), REF)
    return CommitRecord.read(second), delta, field


@pytest.mark.slow
def test_a_delta_brings_the_new_version_to_a_machine_without_a_network(update):
    record, delta, field = update
    assert record.parent == ostree("rev-parse", f"--repo={field}", REF).strip()
    ostree("static-delta", "apply-offline", f"--repo={field}", str(delta))
    shown = ostree("show", f"--repo={field}", "--print-metadata-key=version", record.checksum)
    assert shown.strip() == "'13.2'"
    ostree("fsck", f"--repo={field}")
    assert "/usr/bin/ä tool" in ostree("ls", f"--repo={field}", "-R", record.checksum)


@pytest.mark.slow
def test_a_damaged_delta_brings_nothing(update):
    record, delta, field = update
    data = bytearray(delta.read_bytes())
    data[len(data) // 2] ^= 0xFF
    delta.write_bytes(data)
    argv = ["ostree", "static-delta", "apply-offline", f"--repo={field}", delta]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    names = ostree("refs", f"--repo={field}").split()
    assert [ostree("rev-parse", f"--repo={field}", n).strip() for n in names] == [record.parent]


@pytest.mark.slow
def test_a_delta_is_for_machines_with_the_parent_alone(update, tmp_path):
    _, delta, _ = update
    other = tmp_path / "other"
    ostree("init", f"--repo={other}", "--mode=bare-user")
    argv = ["ostree", "static-delta", "apply-offline", f"--repo={other}", delta]
    assert subprocess.run(argv, capture_output=True, check=False).returncode != 0
