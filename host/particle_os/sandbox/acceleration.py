"""The accelerator for machines that a command starts outside a build."""

from __future__ import annotations

from collections.abc import Callable

from particle_os.architecture import Architecture
from particle_os.sandbox import helper
from particle_os.sandbox.template import template_for
from particle_os.system.workspace import Workspace, cache_directory
from particle_os.vm import accel
from particle_os.vm.accel import KVM_MEMORY


def find_acceleration(
    mode: accel.Mode,
    template: str | None,
    work: Workspace,
    architecture: Architecture,
    *,
    log: Callable[[str], None],
    note: Callable[[str], None],
) -> accel.Acceleration:
    """Returns the accelerator to use for machines of an architecture.

    KVM is tried with the kernel of the helper VM of `template` (None: the usual one); the helper is
    made when it is missing. `log` receives what programs print, `note` what the user should read.
    Raises UsageError for an unknown template, InfrastructureError when KVM is asked for and does
    not work, or when nothing on this host runs such machines.
    """
    accel.check_emulator(architecture)
    if mode == "tcg":
        return accel.emulated(architecture)
    if mode == "auto" and (reason := accel.hopeless(architecture)):
        note(f"{reason}: emulating with TCG, which is slower")
        return accel.emulated(architecture)
    accel.check_device(mode, architecture)
    chosen = template_for(template, architecture.name)
    made = helper.ensure(chosen, cache=cache_directory(), work=work, log=log, note=note)
    return accel.choose(
        mode,
        kernel=made.kernel,
        initrd=made.initrd,
        memory_file=cache_directory() / KVM_MEMORY,
        directory=work.path / "kvm-probe",
        note=note,
        architecture=architecture,
    )
