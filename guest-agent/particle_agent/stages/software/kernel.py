"""Stage kernel: command line, modules and initramfs."""

from __future__ import annotations

from collections.abc import Iterator
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
    """Configures the start of the kernel: its command line, modules and initramfs.

    The stage may stand before or after the `apt` stage that installs the kernel. Before it is
    faster: the initramfs is then made only once. The settings also apply to kernels that are
    installed later in the running system.
    """

    only_configures: ClassVar[bool] = True
    type: Literal["kernel"] = "kernel"
    command_line: tuple[KernelWord, ...] = ()
    """Words for the kernel's command line. The boot loader adds them to its own."""
    modules: tuple[ModuleName, ...] = ()
    """Modules to load at boot."""
    initramfs: Literal["generic", "list"] | None = None
    """The drivers in the initramfs: `generic` for all hardware, `list` for the disks of virtual
    machines and `initramfs-modules` only. The default is `list` for Debian's cloud kernel until its
    first update, and `generic` for other kernels."""
    initramfs_modules: tuple[ModuleName, ...] = ()
    """Modules that the initramfs contains and loads."""
    compression: Literal["gzip", "zstd", "xz", "lz4"] | None = None
    """The compression of the initramfs. The default is a fast one in the build, and the default of
    initramfs-tools at updates."""

    def __post_init__(self) -> None:
        options = ("command-line", "modules", "initramfs", "initramfs-modules", "compression")
        nothing = not (self.command_line or self.modules or self._configures_initramfs)
        refuse(
            idle("kernel", *options) if nothing else (),
            (
                (("command-line", i), f"kernel: '{word}' is up to the stage that writes the disk")
                for i, word in enumerate(self.command_line)
                if kernels.OF_THE_DISK.fullmatch(word)
            ),
        )

    @property
    def _configures_initramfs(self) -> bool:
        return bool(self.initramfs or self.initramfs_modules or self.compression)

    def may_bring(self, need: Need) -> bool:
        # The command line may name an init that is not from a package.
        return need.what == INIT and any(w.startswith("init=") for w in self.command_line)

    def later_needs(self) -> Iterator[Need]:
        # The stage may stand before the one that installs the kernel and the program.
        if self.compression is not None:
            yield from kernels.compression_needs(self.compression)

    def rewrites(self) -> Iterator[tuple[str, str]]:
        if self.modules:
            yield kernels.MODULES_LOAD, "name the modules in 'modules' of the stage"
        if self._configures_initramfs:
            yield from kernels.rewrites()

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
        if not self._configures_initramfs:
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
