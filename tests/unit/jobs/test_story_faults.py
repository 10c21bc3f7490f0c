"""A build with a simulated VM, and a fault at a system call that the controller makes."""

import random
import shutil

import pytest
from particle_os.cli.command import guarded
from particle_os.jobs.delivery import prepare_output
from particle_os.system import standard_streams
from particle_os.system.gate import Gate
from particle_os.system.publication import TRANSACTION
from particle_os.system.workspace import cache_directory

from ... import faults
from ...campaign.checker import digest, wrong_sums
from . import story

SEED, SAMPLE = 1, 25
# More calls than any build makes.
MOST = 1 << 14
OLD, NEW = b"an old disk" * 64, b"the new disk" * 64


class NotBuilt(Exception):
    """The command has ended with an exit status that explains a fault of the host."""


class House:
    """An output directory with an old set, and the build of a new one."""

    def __init__(self, world, monkeypatch):
        self.world, self.out = world, world.out
        self.kept = world.path / "old"
        monkeypatch.setattr(story, "CONTENT", OLD)
        story.built(world)
        self.out.rename(self.kept)
        monkeypatch.setattr(story, "CONTENT", NEW)
        self.old = self.files(self.kept)

    @staticmethod
    def files(directory):
        return {path.name: digest(path) for path in directory.iterdir() if path.is_file()}

    def reset(self):
        shutil.rmtree(self.out, ignore_errors=True)
        shutil.rmtree(cache_directory(), ignore_errors=True)
        shutil.copytree(self.kept, self.out)

    def build(self):
        """Builds as the command does. Raises NotBuilt."""
        statuses = {0, 2, 5, 143} | ({3} if self.world.fails else set())

        def action():
            prepare_output(story.planned(self.world), lambda note: None)
            story.built(self.world)

        status = guarded(action, as_json=False, debug=False, gate=Gate())
        assert status in statuses, f"exit status {status}"
        if status:
            raise NotBuilt

    def losses(self, fault, outcome):
        """A line for each loss after a build, and after the next one."""
        waits = (self.out / TRANSACTION).exists() and outcome.end != "returned"
        yield from wrong_sums(self.out)
        if outcome.end != "killed":
            yield from self.left(waits)
        either = ("old", "new")
        allowed = {"returned": ("new",), "raised": either if fault == "TERM" else ("old",)}
        if not waits and self.which() not in allowed.get(outcome.end, either):
            yield f"the build {outcome.end}, and the {self.which()} set is there"
        self.world.fails = ""
        self.build()
        yield from self.left(waits=False)
        if self.which() != "new":
            yield f"the next build leaves the {self.which()} set"
        yield from (f"{path.name} is left" for path in self.out.glob("*.failed*"))

    def left(self, waits):
        hidden = [path for path in self.out.glob(".*") if not (waits and path.name == TRANSACTION)]
        for path in (*hidden, *(cache_directory() / "work").glob("[!.]*")):
            yield f"{path} is left"

    def which(self):
        files = self.files(self.out)
        if files == self.old:
            return "old"
        raw = self.out / "server.raw"
        whole = files.keys() == self.old.keys() and raw.read_bytes() == NEW
        return "new" if whole and not wrong_sums(self.out) else None


@pytest.fixture
def house(world, monkeypatch, signals_restored):
    return House(world, monkeypatch)


def disturbed(house, fault, number, fails=""):
    house.reset()
    house.world.fails = fails

    def command():
        standard_streams.prepare()
        house.build()

    return faults.run(command, number, fault, (NotBuilt,))


def calls(house, fault, fails=""):
    """The number of calls at which the fault can strike; each later number disturbs nothing."""
    low, high = 0, MOST
    while low < high:
        middle = (low + high) // 2
        if disturbed(house, fault, middle, fails).call is None:
            high = middle
        else:
            low = middle + 1
    return low


@pytest.mark.slow
@pytest.mark.parametrize("fails", ["", "timezone"])
@pytest.mark.parametrize("fault", [*faults.FAULTS, "TERM"])
def test_after_a_fault_at_some_calls_the_set_is_the_old_or_the_new_one(house, fault, fails):
    """Also in a build whose stage `fails`, which keeps its logs."""
    rng, most = random.Random(f"{SEED}/{fault}"), calls(house, fault, fails)
    assert most > SAMPLE
    for number in sorted(rng.sample(range(most), SAMPLE)):
        outcome = disturbed(house, fault, number, fails)
        assert [*house.losses(fault, outcome)] == [], f"{fault} at call {number}, {outcome}"


@pytest.mark.slow
def test_an_undisturbed_build_loses_nothing_and_a_planted_file_is_found(house):
    outcome = disturbed(house, "kill", MOST)
    assert [*house.losses("kill", outcome)] == []
    outcome = disturbed(house, "kill", MOST)
    (house.out / ".particle-os-planted").mkdir()
    (house.out / "server.raw").write_bytes(OLD)
    assert len([*house.losses("kill", outcome)]) >= 3
