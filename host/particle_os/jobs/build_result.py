"""The result of one build, for programs and as a page for people."""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from particle_agent.contract.inspection import CommitFacts, Package

from particle_os import __version__
from particle_os.boot.observation.verdict import Verdict
from particle_os.errors import ParticleError
from particle_os.jobs import container_image
from particle_os.jobs.delivery import Delivery
from particle_os.jobs.execution.run import Execution
from particle_os.jobs.plan import Plan
from particle_os.recipe import loading
from particle_os.report import page
from particle_os.report.results import (
    ArtifactResult,
    BuildStatus,
    CommitResult,
    ContainerResult,
    Result,
)
from particle_os.sandbox.verification import FindingResult, Verification


@dataclass
class Observations:
    """The facts that a build has learned about its disk so far."""

    packages: Sequence[Package] = ()
    commit: CommitResult | None = None
    container: ContainerResult | None = None
    # None until the disk is verified.
    verification: Verification | None = None
    # One for each firmware that the image was booted under.
    verdicts: list[Verdict] = field(default_factory=list)

    @property
    def findings(self) -> Sequence[FindingResult]:
        return self.verification.findings if self.verification is not None else ()

    @property
    def is_sound(self) -> bool:
        """Whether the verification found no error that the recipe does not accept."""
        return self.verification is None or not self.verification.errors

    def take_commit(self, facts: CommitFacts) -> None:
        """Notes the facts of the agent about the commit."""
        self.commit = CommitResult.of(facts)

    def take_image(self, path: Path, run: Execution) -> None:
        """Notes the container image of the guest. Raises InfrastructureError for no whole image."""
        architecture = run.plan.loaded.recipe.architecture
        self.container = container_image.read(path, architecture, run.deadline)

    def status(self) -> BuildStatus:
        """The status of a build that has not failed."""
        if not self.is_sound:
            return "defective"
        if not self.verdicts:
            return "not-tested"
        return "passed" if all(verdict.passed for verdict in self.verdicts) else "not-booted"


def write_result(
    run: Execution, seen: Observations, delivery: Delivery, failure: ParticleError | None = None
) -> Result:
    """Writes the result and its page beside the images; `failure` is the error of a failed build.

    Waits for the checksums of the images.
    """
    status = seen.status() if failure is None else failure.build_status
    gate = run.progress.gate
    # First: what follows may raise, and then others show the error.
    if failure is not None:
        gate.clean(failure)
    result = gate.hide(_result(run, seen, status, delivery.artifacts(run.deadline)))
    report = page.document(
        result.recipe,
        result.boot,
        result=result,
        packages=seen.packages,
        evidence={boot.machine: delivery.evidence / boot.machine for boot in result.boot},
        failure=failure,
        source=gate.hide(_source(run.plan, delivery)),
    )
    delivery.write(result, report)
    return result


def _source(plan: Plan, delivery: Delivery) -> page.RecipeText:
    """The recipe that was built, with its variables and includes put in.

    A recipe that has changed since is left out: it is not what was built.
    """
    loaded, options = plan.loaded, plan.options
    lines: list[str] = []
    with suppress(ParticleError, OSError):
        data = loading.resolved(
            loaded.path,
            options.variables,
            base=options.base,
            allow_outside=options.allow_outside,
            architecture=options.architecture,
        )
        if loaded.is_unchanged():
            lines = yaml.safe_dump(data, sort_keys=False, allow_unicode=True).splitlines()
    return page.RecipeText(str(loaded.path), lines, delivery.staging)


def _result(
    run: Execution,
    seen: Observations,
    status: BuildStatus,
    artifacts: tuple[ArtifactResult, ...],
) -> Result:
    plan, prepared = run.plan, run.prepared
    loaded = plan.loaded
    return Result(
        particle_os=__version__,
        status=status,
        build_key=plan.build_key(run.base, prepared.vms.helper),
        created=time.time(),
        recipe=plan.name,
        recipe_sha256=loaded.files[loaded.path],
        included_sha256=loaded.included,
        base=run.base.reference,
        base_digest=run.base.digest,
        base_signature=run.base.signature,
        architecture=loaded.recipe.architecture,
        source_date=plan.options.source_date,
        plain=plan.options.plain,
        no_cache=not plan.options.cache,
        helper=prepared.vms.result(),
        apt_proxy=prepared.apt_proxy.result(),
        stages=run.stages.results,
        artifacts=artifacts,
        commit=seen.commit,
        container=seen.container,
        verification=seen.verification,
        boot=tuple(seen.verdicts),
        phases=dict(run.progress.phases),
        phase_starts={name: run.progress.phase_starts[name] for name in run.progress.phases},
        controller_peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        notes=tuple(run.job.notes),
    )
