"""The kernel's command line, modules and initramfs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from particle_agent.contract.needs import INIT, Need
from particle_agent.contract.options import idle, refuse
from particle_agent.contract.values import KernelWord, ModuleName
from particle_agent.errors import StageError
from particle_agent.stages.base import StageOptions
from particle_agent.system import kernels
from particle_agent.target.target import Target


@dataclass(frozen=True, kw_only=True)
class Kernel(StageOptions):
    """Says how the kernel starts: its command line, its modules, and its initramfs.

    It may stand before the `apt` stage that brings the kernel, or after it. Before it is quicker:
    the initramfs is then made once. What it says also holds for kernels that are installed in the
    running system later.
    """

    only_configures: ClassVar[bool] = True
    type: Literal["kernel"] = "kernel"
    command_line: tuple[KernelWord, ...] = ()
    """Words that the boot loader passes to the kernel, after those that it needs itself."""
    modules: tuple[ModuleName, ...] = ()
    """Modules that are loaded at boot."""
    initramfs: Literal["generic", "list"] | None = None
    """What the initramfs holds: drivers for all hardware, or only those for the disks of virtual
    machines and `initramfs-modules`. When not given, `list` for Debian's cloud kernel until it is
    first updated, and `generic` for others."""
    initramfs_modules: tuple[ModuleName, ...] = ()
    """Modules that the initramfs holds and loads."""
    compression: Literal["gzip", "zstd", "xz", "lz4"] | None = None
    """How the initramfs is compressed; when not given, quickly now, and as initramfs-tools does it
    when it is updated."""

    def __post_init__(self) -> None:
        options = ("command-line", "modules", "initramfs", "initramfs-modules", "compression")
        given = self.initramfs or self.initramfs_modules or self.compression
        nothing = not (self.command_line or self.modules or given)
        refuse(
            idle("kernel", *options) if nothing else (),
            (
                (("command-line", i), f"kernel: '{word}' is up to the stage that writes the disk")
                for i, word in enumerate(self.command_line)
                if kernels.OF_THE_DISK.fullmatch(word)
            ),
        )

    def may_bring(self, need: Need) -> bool:
        # Another one than that of a package.
        return need.what == INIT and any(w.startswith("init=") for w in self.command_line)

    def run(self, target: Target) -> None:
        installed = kernels.versions(target)
        for version in installed:
            names = [*self.modules, *self.initramfs_modules]
            kernels.check_modules(target, names, version)
        if self.command_line:
            words = [*kernels.command_line(target), *self.command_line]
            target.write(kernels.COMMAND_LINE, f"{' '.join(dict.fromkeys(words))}\n")
        if self.modules:
            target.write(kernels.MODULES_LOAD, "".join(f"{name}\n" for name in self.modules))
        if self.initramfs is None and not self.initramfs_modules and self.compression is None:
            return
        if installed and not target.exists("/usr/sbin/update-initramfs"):
            raise StageError(
                "the image has no initramfs-tools, whose settings these are",
                hint="Add 'initramfs-tools' to the packages of the apt stage that brings the "
                "kernel.",
            )
        self._configure(target)
        for version in installed:
            kernels.make_initramfs(target, version)

    def _configure(self, target: Target) -> None:
        values = kernels.settings(target)
        if self.initramfs is not None:
            values["MODULES"] = "most" if self.initramfs == "generic" else "list"
        if self.compression is not None:
            values["COMPRESS"] = self.compression
        target.write(kernels.SETTINGS, "".join(f"{k}={v}\n" for k, v in values.items()))
        modules = [*kernels.own_modules(target), *self.initramfs_modules]
        if values.get("MODULES") == "list":
            modules += kernels.CLOUD_STORAGE
        target.remove(kernels.MODULES)
        if modules:
            text = "".join(f"{name}\n" for name in dict.fromkeys(modules))
            target.write(kernels.MODULES, text)
