"""The facts of a build about its commit."""

import json

import pytest
from particle_agent.contract import wire
from particle_agent.contract.decode import decode
from particle_agent.contract.inspection import (
    NAMED,
    ChangedFiles,
    ChangedPackage,
    CommitFacts,
)
from particle_agent.errors import CommandFailed
from particle_agent.ostree.repositories import difference
from particle_agent.ostree.repositories.commit_record import CommitRecord, workshop
from particle_agent.ostree.repositories.repository import OstreeRepository

OLD, NEW = "1" * 64, "2" * 64


def status(**versions):
    stanza = "Package: {}\nStatus: install ok installed\nArchitecture: amd64\nVersion: {}\n\n"
    gone = "Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n"
    return "".join(stanza.format(*each) for each in versions.items()) + gone


@pytest.fixture
def described(target, monkeypatch):
    """A function that returns the facts about a commit, given both databases and a difference."""

    def describe(before, after, changes, *, parent=OLD):
        def capture(argv, timeout=60.0):
            if argv[1] == "diff":
                return changes
            if (found := {OLD: before, NEW: after}[argv[-2]]) is None:
                raise CommandFailed(argv, 1, ())
            return found

        monkeypatch.setattr(target, "capture_outside", capture)
        workshop(target).mkdir(exist_ok=True)
        words = {"parent": parent, "version": "2", "signer": "F" * 40}
        record = CommitRecord("edge", NEW, "debian", "6.12", (), "origin", None, **words)
        difference.write(target, record, OstreeRepository(target, workshop(target) / "archive"))
        text = (workshop(target) / wire.COMMIT_FACTS_NAME).read_text()
        return decode(CommitFacts, json.loads(text))

    return describe


def test_packages_and_files_are_compared_with_the_parent(described):
    changes = "M    /usr/bin/a\nD    /usr/b\nA    /usr/c\nA    /usr/d\nnonsense\n"
    found = described(status(a="1", b="1", c="1"), status(a="1", b="2", d="1"), changes)
    assert (found.ref, found.checksum, found.parent) == ("edge", NEW, OLD)
    assert (found.version, found.signer) == ("2", "F" * 40)
    assert found.packages == (
        ChangedPackage(name="b:amd64", before="1", after="2"),
        ChangedPackage(name="c:amd64", before="1", after=None),
        ChangedPackage(name="d:amd64", before=None, after="1"),
    )
    assert found.files == ChangedFiles(
        added=2, changed=1, removed=1, names=("/usr/bin/a", "/usr/b", "/usr/c", "/usr/d")
    )


def test_the_facts_stay_small(described):
    many = {f"p{number}": "1" for number in range(NAMED + 5)}
    changes = "".join(f"A    /{number}{'x' * 1000}\n" for number in range(NAMED + 5))
    found = described("", status(**many), changes)
    assert (len(found.packages), found.packages_total) == (NAMED, NAMED + 5)
    assert (len(found.files.names), found.files.added) == (NAMED, NAMED + 5)
    assert max(map(len, found.files.names)) == 500


def test_a_parent_without_a_database_has_no_packages(described):
    found = described(None, status(a="1"), "")
    assert found.packages == (ChangedPackage(name="a:amd64", before=None, after="1"),)


def test_a_first_version_has_nothing_to_compare(described):
    found = described("", "", "", parent=None)
    assert (found.parent, found.files, found.packages) == (None, None, ())
