"""Machines that build, with a cache of their own and one that they share."""

from contextlib import contextmanager
from types import SimpleNamespace

from particle_os.base import suite
from particle_os.jobs.checkpoints import Checkpoints
from particle_os.jobs.execution import sharing
from particle_os.jobs.execution.sharing import Sharing
from particle_os.jobs.plan import Plan
from particle_os.sandbox import helper
from particle_os.sharing.shared_cache import of_options

HOUR = 3600.0
HELPER = "ab" * 16
KEYS = [character * 40 for character in "abcd"]


class Machine:
    """One machine with a cache of its own; `notes` and `phases` are those of its build."""

    def __init__(self, place, url, secret, public, patch, *, secrets=(), network=(), hidden=()):
        self.place, self.notes, self.phases = place, [], []
        self.secrets, self.network, self.hidden = secrets, network, hidden
        self._url, self._secret, self._public, self._patch = url, secret, public, patch
        (place / "work").mkdir(parents=True)

    @contextmanager
    def phase(self, name):
        self.phases.append(name)
        yield

    @contextmanager
    def sharing(self, *, reads=True, writes=True, age=HOUR, rebuild=False):
        """The sharing of a build with the stages of KEYS."""
        self._patch.setattr(sharing, "cache_directory", lambda: self.place)
        cache = of_options(
            [self._url] if reads else [], [self._public], self._url if writes else None,
            self._secret,
        )  # fmt: skip
        with Checkpoints(self.place / "checkpoints") as kept:
            plan = SimpleNamespace(
                options=SimpleNamespace(
                    cache=True, max_age=age, mirror=None, plain=False, rebuilds_base=rebuild
                ),
                template=SimpleNamespace(name="small"),
                base=None,
                base_reference="mmdebstrap:trixie",
                loaded=SimpleNamespace(
                    recipe=SimpleNamespace(architecture="amd64"), confidential=self.hidden
                ),
                stages=[SimpleNamespace(secrets=n in self.secrets) for n in range(3)],
            )
            plan.private_from = Plan.private_from.fget(plan)
            job = SimpleNamespace(
                plan=plan, checkpoints=kept, note=self.notes.append, progress=self,
                work=SimpleNamespace(path=self.place / "work"),
            )  # fmt: skip
            yield Sharing(job, cache)

    def build(self, first=0):
        """Makes the helper, the base, and the checkpoints from `first` on."""
        made = self.place / "helpers" / HELPER
        if not made.exists():
            made.mkdir(parents=True)
            for name in helper.FILES:
                (made / name).write_text(f"{name} of {self.place.name}")
            sums = helper._sums(made)
            (made / helper.SUMS).write_text("".join(f"{sums[n]}  {n}\n" for n in sums))
        (self.place / "bases").mkdir(exist_ok=True)
        tarball = self.place / "bases/base.tar.zst"
        tarball.write_text(f"the base of {self.place.name}")
        suite._keep(tarball, self.place / "bases" / self._base_key())
        with Checkpoints(self.place / "checkpoints") as kept:
            below = kept.stored(KEYS[first - 1]) if first else None
            for number, key in enumerate(KEYS[first:-1], first):
                disk = self.place / "work" / f"{number}.qcow2"
                disk.write_text(f"disk {number} of {self.place.name}")
                below = kept.keep(
                    key, disk, below=below, label=f"stage {number}", network=number in self.network,
                    work=self.place / "work",
                )  # fmt: skip

    def _base_key(self):
        return suite.suite_key("trixie", None, "amd64", False)

    def parts(self):
        """The texts of the helper's kernel and of the base."""
        (tarball,) = self.place.glob("bases/*.tar.zst")
        return [(self.place / "helpers" / HELPER / "kernel").read_text(), tarball.read_text()]

    def found(self):
        """The texts of the checkpoints that a build can begin from."""
        with Checkpoints(self.place / "checkpoints") as kept:
            return [c.disk.read_text() for c in kept.longest(KEYS[:-1], max_age=HOUR)]


def give(giver, **options):
    with giver.sharing(**options) as shared:
        shared.give(KEYS)


def take(taker, **options):
    with taker.sharing(**options) as shared:
        shared.take_helper()
        shared.take_base()
        shared.take_checkpoints(KEYS[:-1])
