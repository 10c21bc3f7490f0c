"""Builds that need the same stage: one of them makes it, and the others wait."""

import threading
from contextlib import contextmanager
from types import SimpleNamespace

from particle_os.jobs.execution import preparation

from ...waiting import plenty, until
from .test_checkpoints import HOUR, keep, store  # noqa: F401 - fixtures


class OtherBuild(threading.Thread):
    """A build that looks for its checkpoints, which other builds may be making."""

    def __init__(self, opens, *wanted):
        super().__init__(daemon=True)
        self.waits, self.goes_on = threading.Event(), threading.Event()
        self.found = None
        self._opens, self._wanted = opens, wanted

    @contextmanager
    def phase(self, name):
        assert name == "wait for the same stage of another build"
        self.waits.set()
        yield

    def run(self):
        options = SimpleNamespace(max_age=HOUR)
        plan = SimpleNamespace(reusable=lambda keys: keys, options=options)
        with self._opens() as opened:
            job = SimpleNamespace(plan=plan, checkpoints=opened, progress=self)
            found = preparation._find_checkpoints(job, self._wanted, plenty())
            self.found = [checkpoint.key for checkpoint in found]
            until(self.goes_on.is_set)

    def ended(self):
        self.goes_on.set()
        until(lambda: not self.is_alive())
        return self.found


def test_a_build_waits_for_the_stage_that_another_one_makes(store, keep):  # noqa: F811
    with store() as first:
        assert first.claim("a")
        others = [OtherBuild(store, *names) for names in ("abx", "aby")]
        for other in others:
            other.start()
            until(other.waits.is_set)
            assert other.found is None
        # The first build goes on as CheckpointChain.keep does.
        (base,) = keep("a")
        assert first.claim("b")
        first.drop_claim("a")
        keep("b", below=[base])
        first.drop_claim("b")
        for other in others:
            until(lambda other=other: other.found)
        # Each claims the stage that it makes itself, and leaves the others to all.
        assert not first.claim("x") and not first.claim("y")
        assert first.claim("a") and first.claim("b")
        assert [other.ended() for other in others] == [["a", "b"]] * 2
        assert first.claim("x") and first.claim("y")


def test_a_build_makes_the_stage_that_another_one_fails_to_make(store):  # noqa: F811
    with store() as first:
        assert first.claim("a")
        other = OtherBuild(store, "a")
        other.start()
        until(other.waits.is_set)
    until(lambda: other.found is not None)
    with store() as third:
        assert not third.claim("a")
        assert other.ended() == []
