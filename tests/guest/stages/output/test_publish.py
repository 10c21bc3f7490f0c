"""The stage that particle-os adds to a recipe without a disk."""

import pytest
from particle_agent.errors import StageError
from particle_agent.ostree.repositories import publication
from particle_agent.ostree.repositories.commit_record import CommitRecord, workshop
from particle_agent.stages.output.export import Publish


def test_the_commit_is_published(target, monkeypatch):
    record = CommitRecord("edge", "0" * 64, "debian", "6.12", ("repository",), "origin", None)
    workshop(target).mkdir()
    record.write(target)
    published = []
    monkeypatch.setattr(publication, "write", lambda _, found: published.append(found))
    Publish().run(target)
    assert published == [record]


def test_without_a_commit_the_stage_fails(target):
    with pytest.raises(StageError, match="no commit"):
        Publish().run(target)
