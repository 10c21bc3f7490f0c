"""A whole build whose VMs are played."""

from contextlib import contextmanager
from types import SimpleNamespace

from particle_agent.contract import wire
from particle_agent.contract.inspection import Inspection
from particle_os.errors import (
    StageFailed,
)
from particle_os.jobs import build
from particle_os.jobs.execution.helper_vms import HelperVms
from particle_os.jobs.plan import BuildOptions
from particle_os.jobs.planning import make_plan
from particle_os.report.progress import Progress
from particle_os.vm.traffic import Traffic

RECIPE = """\
name: server
base-image: tar:base.tar
stages:
  - {type: timezone, zone: UTC}
  - {type: qemu}
"""
CONTENT = b"the disk" * 64


class Agent:
    """Runs each stage without any work, and writes CONTENT to the output disk."""

    def __init__(self, sandbox, fails):
        self.sandbox = sandbox
        self.fails = fails

    def forbid_hosts(self):
        return None

    def found(self, deadline):
        return Inspection(size=0, table=None, partitions=(), boot_loaders=(), system=None)

    def run(self, stages, *, listen, verify, **options):
        for index, stage in enumerate(stages):
            listen(wire.StageStart(index=index))
            if stage.type == self.fails:
                raise StageFailed("it failed")
            if self.fails == f"end of {stage.type}":
                return
            if self.fails == f"output of {stage.type}":
                listen(wire.StageEnd(index=index, seconds=1.0))
                continue
            if stage.type in ("qemu", "export"):
                self.sandbox.output.path.write_bytes(CONTENT)
                listen(wire.DiskWritten(size=len(CONTENT)))
            listen(wire.StageEnd(index=index, seconds=1.0))
        if verify:
            if self.fails == "verification":
                listen(
                    wire.Finding(code="fstab-type-wrong", place="/etc/fstab", message="it is wrong")
                )
            listen(wire.Verified(seconds=0.5))


class Sandbox:
    def __init__(self, output, fails):
        self.agent = Agent(self, fails)
        self.output = SimpleNamespace(path=output)
        self.packages = output.with_name("packages")

    def connect_outside(self, connected, deadline):
        pass

    def take_traffic(self):
        return Traffic(names=("example.org",))

    def keep_scratch(self, path, deadline):
        path.write_text("scratch")

    def take_disk_event(self, event, deadline):
        return self.output


class Vms(HelperVms):
    fails = ""

    @contextmanager
    def start(self, purpose, output, layers=(), more_outputs=None, stages_from=None):
        self.job.transcript.path.touch()
        yield Sandbox(output, self.fails)


def planned(world, **options):
    options = {"boot_test": False, **options}
    wanted = BuildOptions(output_directory=world.out, cache=False, **options)
    return make_plan(world.path / "server.yml", wanted)


def built(world, **options):
    return build.build(planned(world, **options), Progress([]))


def left(directory):
    return {path.name for path in directory.iterdir() if not path.name.startswith(".")}
