"""The story of one stage that runs alone, on a base."""

from __future__ import annotations

from pathlib import Path

from particle_os import __version__
from particle_os.jobs import artifact
from particle_os.jobs.execution.conversation import Written
from particle_os.jobs.execution.job import open_job
from particle_os.jobs.execution.preparation import prepare
from particle_os.jobs.execution.run import Execution
from particle_os.jobs.plan import Plan
from particle_os.report.progress import Progress
from particle_os.report.results import ArchiveResult, SingleResult
from particle_os.system import publication
from particle_os.system.deadline import Deadline
from particle_os.system.publication import Change


def run_stage(plan: Plan, output: Path | None, progress: Progress) -> SingleResult:
    """Runs the only stage of the plan's recipe and returns the result.

    With `output`, the root file system that results becomes the tar archive `output`. Raises
    StageFailed or InfrastructureError; an earlier file `output` is untouched then.
    """
    with open_job(plan, progress, output.parent if output is not None else None) as job:
        written = job.staging / ("output" if output is None else output.name)
        job.show_notes()
        run = Execution(job, prepare(job))
        with run.sandbox("stage", written) as sandbox:
            heard = run.run_stages(sandbox)
        archive = (
            None if output is None else _publish(heard.output(), output, progress, run.deadline)
        )
        return progress.gate.hide(_result(run, archive))


def _publish(
    written: Written, output: Path, progress: Progress, deadline: Deadline
) -> ArchiveResult:
    """Moves the archive to its place, after comparing it with the guest's checksums."""
    with progress.phase("verify archive"):
        sha256 = artifact.settled(written.receive(deadline), deadline).sha256
    name = written.path.name
    # SHA256SUMS is of the images. It may list an earlier file of this name.
    is_listed = name in publication.listed_sums(output.parent)
    sums = {name: sha256} if is_listed else None
    publication.publish(written.path.parent, output.parent, Change([name], sums=sums))
    return ArchiveResult(path=str(output), bytes=written.size, sha256=sha256)


def _result(run: Execution, archive: ArchiveResult | None) -> SingleResult:
    loaded = run.plan.loaded
    return SingleResult(
        particle_os=__version__,
        stage=run.stages.results[0],
        options_sha256=loaded.files[loaded.path],
        base=run.base.reference,
        base_digest=run.base.digest,
        helper=run.prepared.vms.result(),
        apt_proxy=run.prepared.apt_proxy.result(),
        archive=archive,
        phases=dict(run.progress.phases),
        notes=tuple(run.job.notes),
    )
