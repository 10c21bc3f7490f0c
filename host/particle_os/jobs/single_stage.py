"""The story of one stage that is run alone, on a base."""

from __future__ import annotations

from pathlib import Path

from particle_os import __version__
from particle_os.errors import InfrastructureError
from particle_os.jobs import artifact, cache
from particle_os.jobs.checkpoints import Checkpoints
from particle_os.jobs.execution.conversation import Written
from particle_os.jobs.execution.job import Job
from particle_os.jobs.execution.preparation import prepare
from particle_os.jobs.execution.run import Execution
from particle_os.jobs.plan import Plan
from particle_os.report.progress import Progress
from particle_os.report.results import ArchiveResult, SingleResult
from particle_os.system.workspace import cache_directory, workspace


def run_stage(plan: Plan, output: Path | None, progress: Progress) -> SingleResult:
    """Runs the only stage of the plan's recipe; returns what happened.

    With `output` the resulting root file system is put there, as a tar archive, when all went well.
    Raises StageFailed or InfrastructureError; what was at `output` is untouched then.
    """
    with workspace() as work, Checkpoints(cache_directory() / "checkpoints") as kept:
        staging = work.path if output is None else work.adopt_directory(output.parent)
        written = staging / ("output" if output is None else output.name)
        job = Job(plan, progress, work, kept, staging, transcript=work.path / "console.log")
        job.tell_notes()
        run = Execution(job, prepare(job))
        with run.sandbox("stage", written) as sandbox:
            heard = run.run_stages(sandbox)
        if not run.stages.all_done:
            raise InfrastructureError("the agent said 'done' before the stage was")
        archive = None if output is None else _publish(heard.written, output, progress)
        result = _result(run, archive)
    cache.prune(cache_directory(), limit=cache.LIMIT_BYTES)
    return result


def _publish(written: Written | None, output: Path, progress: Progress) -> ArchiveResult:
    """Puts the archive in its place, when it is what the guest says that it wrote."""
    if written is None:
        raise InfrastructureError("the helper VM wrote no tar archive")
    with progress.phase("verify archive"):
        sha256 = written.receive().result().sha256
    artifact.publish([written.path], output.parent, {})
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
