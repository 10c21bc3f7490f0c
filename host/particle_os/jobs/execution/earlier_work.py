"""The work of earlier builds that a build would use, found without starting or making anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from particle_os.jobs import checkpoints
from particle_os.jobs.delivery import already_there
from particle_os.jobs.execution import downloads
from particle_os.jobs.plan import Plan
from particle_os.system.workspace import cache_directory


@dataclass(frozen=True)
class EarlierWork:
    """The parts of a build that are there already.

    The first `stages` need not run. With `images` the build has nothing to do. `downloads` are the
    URLs that the other stages name, and whether the cache has them. Whether there is a checkpoint
    of the stage `secret`, counted from 0, and of later ones depends on secrets.
    """

    base: bool
    stages: int
    images: bool
    downloads: Mapping[str, bool]
    secret: int

    def has_stage(self, number: int) -> bool | None:
        """Whether a stage, counted from 0, need not run; None when that depends on secrets."""
        if number < self.stages:
            return True
        return None if number >= self.secret else False


def of(plan: Plan) -> EarlierWork:
    """The earlier work for a plan, by the same keys as in the build.

    Unlike the build, it does not look for damage in the cache.
    """
    total = len(plan.loaded.recipe.stages)
    images = already_there(plan, lambda text: None) is not None
    known = total + 1 if images else _known_checkpoints(plan)
    done = max(0, known - 1)
    return EarlierWork(
        # The first checkpoint is the unpacked base.
        base=known > 0 or (plan.base is not None and plan.base.is_here()),
        stages=done,
        images=images,
        downloads={
            download.url: downloads.path(download).exists()
            for download in downloads.of(plan.loaded.recipe.stages[done:])
        },
        secret=_first_secret(plan),
    )


def _known_checkpoints(plan: Plan) -> int:
    if plan.base is None or plan.helper is None:
        return 0
    keys = plan.reusable(plan.keys(plan.base, plan.helper))
    place = cache_directory() / "checkpoints"
    return checkpoints.known_prefix(place, keys, max_age=plan.options.max_age)


def _first_secret(plan: Plan) -> int:
    """The first stage whose key depends on a secret that the plan lacks."""
    stages = plan.loaded.recipe.stages
    lacking = (i for i, stage in enumerate(stages) if stage.secrets and not plan.secrets)
    return next(lacking, len(stages))
