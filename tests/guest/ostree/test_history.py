"""A new version continues the one before."""

import pytest
from particle_agent.errors import StageError
from particle_agent.ostree import account_ids, history
from particle_agent.ostree.repositories import parent

OLD = "1" * 64
SHOWN = f"commit {OLD}\nContentChecksum:  {OLD}\nDate:  2026-01-31 00:00:10 +0000\nVersion: 1\n"
# 2026-01-31 00:00:10 UTC.
DATE = 1_769_817_610


@pytest.fixture
def begin(target, monkeypatch):
    """A function that begins with a parent of DATE, in a build of another date."""
    kept = []
    monkeypatch.setattr(parent, "take", lambda *_: OLD)
    monkeypatch.setattr(account_ids, "keep", lambda _, *texts: kept.append(texts))

    def capture(argv, timeout=60.0):
        return SHOWN if argv[1] == "show" else f"text of {argv[-1]}"

    monkeypatch.setattr(target, "capture_outside", capture)

    def run(date):
        target.source_date = date
        return history.begin(target, "edge", "debian", None), kept

    return run


def test_the_accounts_are_those_of_the_parent(begin):
    assert begin(DATE) == (OLD, [("text of /usr/etc/passwd", "text of /usr/etc/group")])
    assert begin(None)[0] == OLD


def test_a_version_older_than_its_parent_is_refused(begin):
    with pytest.raises(StageError, match="newer than this build") as raised:
        begin(DATE - 1)
    assert "--source-date" in raised.value.hint
