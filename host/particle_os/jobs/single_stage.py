"""The story of one stage that is run alone, on a base."""

from __future__ import annotations

from pathlib import Path

from particle_os import __version__
from particle_os.errors import InfrastructureError
from particle_os.jobs import artifact, cache
from particle_os.jobs.checkpoints import Checkpoints
from particle_os.jobs.execution import Execution
from particle_os.jobs.plan import Plan
from particle_os.report.progress import Progress
from particle_os.report.results import ArchiveResult, SingleResult
from particle_os.sandbox.running import Sandbox
from particle_os.system.workspace import cache_directory, workspace


def run_stage(plan: Plan, output: Path | None, progress: Progress) -> SingleResult:
    """Runs the only stage of the plan's recipe; returns what happened.

    With `output` the resulting root file system is put there, as a tar archive, when all went well.
    Raises StageFailed or InfrastructureError; what was at `output` is untouched then.
    """
    with workspace() as work, Checkpoints(cache_directory() / "checkpoints") as kept:
        staging = work.path if output is None else work.adopt_directory(output.parent)
        written = staging / ("output" if output is None else output.name)
        console = work.path / "console.log"
        run = Execution(plan, progress, work, kept, staging=staging, transcript=console)
        run.tell_notes()
        run.find_apt_proxy()
        run.make_helper()
        run.choose_accelerator()
        run.make_base()
        run.find_checkpoints()
        run.fetch_base()
        run.check_room()
        with run.sandbox("stage", written, run.layers()) as sandbox:
            run.push_base(sandbox)
            run.push_files(sandbox)
            run.run_stages(sandbox)
        if not run.stages.all_done:
            raise InfrastructureError("the agent said 'done' before the stage was")
        archive = None if output is None else _publish(run, sandbox, output)
        result = _result(run, archive)
    cache.prune(cache_directory(), limit=cache.LIMIT_BYTES)
    return result


def _publish(run: Execution, sandbox: Sandbox, output: Path) -> ArchiveResult:
    """Puts the archive in its place, when it is what the guest says that it wrote."""
    if sandbox.written is None or run.checksums is None:
        raise InfrastructureError("the helper VM wrote no tar archive")
    with run.progress.phase("verify archive"):
        sums = artifact.receive(sandbox.output, sandbox.written, run.checksums)
        sha256 = sums.result().sha256
    artifact.publish([sandbox.output], output.parent, {})
    return ArchiveResult(path=str(output), bytes=sandbox.written, sha256=sha256)


def _result(run: Execution, archive: ArchiveResult | None) -> SingleResult:
    assert run.base is not None
    loaded = run.plan.loaded
    return SingleResult(
        particle_os=__version__,
        stage=run.stages.results[0],
        options_sha256=loaded.files[loaded.path],
        base=run.base.reference,
        base_digest=run.base.digest,
        helper=run.helper_result(),
        apt_proxy=run.apt_proxy.result(),
        archive=archive,
        phases=dict(run.progress.phases),
        notes=tuple(run.notes),
    )
