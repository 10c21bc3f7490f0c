"""The accelerator for machines that a command starts outside a build."""

from __future__ import annotations

from collections.abc import Callable

from particle_os.sandbox import helper
from particle_os.sandbox.template import load_template
from particle_os.system.workspace import Workspace, cache_directory
from particle_os.vm import accel
from particle_os.vm.accel import KVM_MEMORY


def find_acceleration(
    mode: accel.Mode,
    template: str,
    work: Workspace,
    *,
    log: Callable[[str], None],
    note: Callable[[str], None],
) -> accel.Acceleration:
    """Returns the accelerator to use.

    KVM is tried with the kernel of the helper VM of `template`; the helper is made when it is
    missing. `log` receives what programs print, `note` what the user should read. Raises UsageError
    for an unknown template, InfrastructureError when KVM is asked for and does not work.
    """
    if mode == "tcg":
        return accel.TCG
    if mode == "auto" and not accel.device_opens():
        note("no access to /dev/kvm: emulating with TCG, which is slower")
        return accel.TCG
    made = helper.ensure(
        load_template(template), cache=cache_directory(), work=work, log=log, note=note
    )
    return accel.choose(
        mode,
        kernel=made.kernel,
        initrd=made.initrd,
        memory_file=cache_directory() / KVM_MEMORY,
        directory=work.path / "kvm-probe",
        note=note,
    )
