"""Templates of helper VMs (`vm-templates/NAME.yml`)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, get_args

from particle_agent.contract.options import Between, Options, Text
from particle_agent.contract.values import PackageName, bytes_of

from particle_os.architecture import ARCHITECTURES, Architecture, BuildArchitecture, usual
from particle_os.documents import parsing, validation
from particle_os.documents.explanation import Vocabulary
from particle_os.errors import UsageError
from particle_os.system.workspace import data_directory

_HOST = r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]"
MirrorUrl = Annotated[
    str,
    Text(
        "a URL of a Debian mirror",
        r"https?://(" + _HOST + r")(:[0-9]{1,5})?(/[A-Za-z0-9._~%+/-]*)?",
    ),
]


@dataclass(frozen=True, kw_only=True)
class Template(Options):
    """The description of a helper VM: its packages and resources."""

    name: Annotated[str, Text("a name of a-z, 0-9 and '-'", r"[a-z0-9][a-z0-9-]*")]
    """The template's name, which is also the name of its file."""
    description: str = ""
    """One line for people."""
    suite: Annotated[str, Text("a Debian suite such as 'trixie'", r"[a-z][a-z0-9-]*")]
    """The Debian suite that the packages come from."""
    mirror: MirrorUrl | None = None
    """A mirror to use instead of mmdebstrap's default."""
    architecture: BuildArchitecture = "amd64"
    """The Debian architecture of the VM."""
    kernel: PackageName | None = None
    """The package with the kernel, by default the one for virtual machines."""
    packages: tuple[PackageName, ...]
    """The packages whose files the VM needs; their dependencies are added automatically."""
    memory: Annotated[str, Text("a size such as '2G' or '1536M'", r"[1-9][0-9]{0,5}[MG]")] = "2G"
    """The VM's memory, unless --memory overrides it."""
    cpus: Annotated[int, Between(1, 64)] = 2
    """The number of the VM's processors, unless --cpus overrides it."""

    @property
    def record(self) -> Architecture:
        """The architecture of the VM."""
        return ARCHITECTURES[self.architecture]


def templates() -> list[Path]:
    """The files of all templates that particle-os ships."""
    return sorted(data_directory("vm-templates").glob("*.yml"), key=lambda path: path.stem)


def load_template(name: str) -> Template:
    """Reads a template by its name or by the path of its file.

    Raises UsageError when there is none, InvalidDocument with all problems of the file.
    """
    path = (
        Path(name)
        if name.endswith((".yml", ".yaml"))
        else data_directory("vm-templates") / f"{name}.yml"
    )
    if not path.exists() or (path not in templates() and path != Path(name)):
        known = ", ".join(p.stem for p in templates())
        raise UsageError(f"there is no helper template '{name}'", hint=f"Known: {known}.")
    source = parsing.load(path)
    fields = [f.replace("_", "-") for f in Template.__dataclass_fields__]
    return validation.validate(source, Template, Vocabulary(lambda key: fields))


def template_for(name: str | None, architecture: str) -> Template:
    """The template of this name, or the usual one of the architecture.

    Raises UsageError for a template of another architecture, and as `load_template`.
    """
    usual_name = ARCHITECTURES[architecture].template
    template = load_template(name or usual_name)
    if template.architecture != architecture:
        raise UsageError(
            f"the helper template '{template.name}' is for {template.architecture}, but "
            f"{architecture} is needed",
            hint=f"Leave --template out, or write --template {usual_name}.",
        )
    return template


def any_template(name: str | None) -> Template:
    """The template of this name, or the usual one of this machine. Raises as `load_template`."""
    return load_template(name or usual().template)


def with_mirror(template: Template, mirror: str) -> Template:
    """The template with another mirror. Raises UsageError when `mirror` is not a URL."""
    constraint = get_args(MirrorUrl)[1]
    if not constraint.accepts(mirror):
        raise UsageError(
            f"--mirror: expected {constraint.what}, found '{mirror}'",
            hint="Name a mirror of Debian, such as http://mirror.example.org/debian.",
        )
    return replace(template, mirror=mirror)


def memory_bytes(template: Template) -> int:
    """The memory of the VM in bytes, unless --memory overrides it."""
    return bytes_of(template.memory)
