"""The arguments and options that several commands take, each declared once."""

from __future__ import annotations

import functools
import glob
import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
from particle_agent.contract.values import bytes_of

from particle_os.apt import proxy as apt_proxy
from particle_os.architecture import ARCHITECTURES
from particle_os.architecture import Architecture as Architecture
from particle_os.cli.usage import completion, given_variables
from particle_os.documents.words import did_you_mean, nearest, shown_key
from particle_os.jobs.plan import MAX_AGE_SECONDS, BuildOptions
from particle_os.recipe.shipped import USUAL, found_recipe, shipped
from particle_os.vm.devices.hardware import CARD_MODELS, DISK_BUSES
from particle_os.vm.firmware import FIRMWARES
from particle_os.vm.firmware import Firmware as Firmware
from particle_os.vm.image_format import FORMATS

# A helper VM does not work with less memory, nor with a smaller scratch disk.
LEAST_BYTES = 512 << 20
SIZE = r"[1-9][0-9]{0,6}[MGmg]"
OUTPUT_DIRECTORY = Path("out")
RECIPES = (".yml", ".yaml")
IMAGES = (".img", ".raw", ".qcow2", ".vmdk", ".vdi", ".vhd", ".vhdx", ".iso")


class PathType(click.Path):
    """A path as the user gives it. The code that uses the path reports what is wrong with it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(path_type=Path, readable=False, **options)

    def convert(self, value: Any, parameter: Any, context: Any) -> Any:
        if value == "":
            self.fail("the path is empty", parameter, context)
        return super().convert(value, parameter, context)


class RecipeType(PathType):
    """The path of a recipe, or the name of a shipped one."""

    def convert(self, value: Any, parameter: Any, context: Any) -> Any:
        path = found_recipe(super().convert(value, parameter, context))
        if path.suffix in IMAGES and path.is_file():
            command = f"particle-os boot-test {shlex.quote(str(path))}"
            self.fail(
                f"{path} is an image, and no recipe; to test it: {command}", parameter, context
            )
        is_name = path.name == str(path) and not path.suffix and not path.exists()
        if is_name and (near := nearest(path.name, shipped())):
            text = f"there is no file and no shipped recipe '{shown_key(path.name)}'"
            self.fail(f"{text}; {did_you_mean(near, [])}", parameter, context)
        return path


class ImageType(PathType):
    """The path of an image that exists."""

    def __init__(self) -> None:
        super().__init__(exists=True, dir_okay=False)

    def convert(self, value: Any, parameter: Any, context: Any) -> Any:
        path = super().convert(value, parameter, context)
        if path.suffix in RECIPES:
            command = f"particle-os build {shlex.quote(str(path))}"
            self.fail(f"{path} is a recipe; build an image from it: {command}", parameter, context)
        return path


def build_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Gathers the parameters that are named as fields of BuildOptions into `options`.

    A field without a parameter keeps its default.
    """
    names = [field.name for field in fields(BuildOptions)]

    @functools.wraps(function)
    def command(**arguments: Any) -> Any:
        given = {name: arguments.pop(name) for name in names if name in arguments}
        return function(options=BuildOptions(**given), **arguments)

    return command


def _size(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    if not re.fullmatch(SIZE, value):
        short = re.sub(r"(?i)\s*(?<=[MG\s\d])i?B$", "", value).replace(" ", "")
        meant = f"; did you mean '{short.upper()}'?" if re.fullmatch(SIZE, short) else ""
        raise click.BadParameter(f"expected a size such as 2G or 1536M, found '{value}'{meant}")
    wanted = bytes_of(value.upper())
    if wanted < LEAST_BYTES:
        raise click.BadParameter(f"at least {LEAST_BYTES >> 20}M is needed")
    return wanted


def _sizes(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...]:
    """Checks each size of an option that may be repeated, and returns it as recipes write it."""
    for value in values:
        _size(context, parameter, value)
    return tuple(value.upper() for value in values)


def _apt_proxy(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and not apt_proxy.is_wish(value):
        raise click.BadParameter("expected auto, none, or a URL such as http://127.0.0.1:3142")
    return value


def _record(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> Architecture | None:
    return None if value is None else ARCHITECTURES[value]


def _negated(context: click.Context, parameter: click.Parameter, value: bool) -> bool:
    return not value


def _with_testinfra(
    context: click.Context, parameter: click.Parameter, value: Path | None
) -> Path | None:
    if value is not None and not context.resilient_parsing:
        from particle_os.boot.frameworks import testinfra

        if not testinfra.is_installed():
            command = f"{sys.executable} -m pip install pytest-testinfra"
            raise click.BadParameter(f"pytest-testinfra is not installed; run: {command}")
        if not any(value.rglob("*test*.py")):
            raise click.BadParameter(f"{value} holds no tests: their files are named test_*.py")
    return value


def _seconds(context: click.Context, parameter: click.Parameter, hours: int) -> int:
    return hours * 3600


def given_recipe(path: Path | None) -> Path:
    """The path of the recipe; that of the usual recipe of the current directory for None."""
    if path is not None:
        return path
    if not USUAL.exists():
        raise click.UsageError(
            f"there is no {USUAL} in this directory: name a RECIPE, or write one with "
            f"'particle-os init -o {USUAL}'"
        )
    return USUAL


def recipe_named(text: str) -> Path | None:
    """The path of the recipe that a text names; None for the name of something else."""
    path = found_recipe(Path(text))
    return path if path.suffix in RECIPES else None


def _recipe(context: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
    return value if context.resilient_parsing else given_recipe(value)


def _patterns(
    context: click.Context, parameter: click.Parameter, value: tuple[Path, ...]
) -> tuple[Path, ...]:
    """The recipes that several words name, some of them as patterns."""
    if context.resilient_parsing:
        return value
    found: list[Path] = []
    for path in value or (given_recipe(None),):
        if path.exists() or not glob.has_magic(str(path)):
            found.append(path)
            continue
        # Path.glob takes no absolute pattern.
        names = glob.glob(str(path), recursive=True)  # noqa: PTH207
        matching = sorted(map(Path, names))
        if not matching:
            raise click.BadParameter(f"no file matches {path}")
        found += matching
    # One recipe may match several patterns.
    return tuple(dict.fromkeys(found))


RECIPES_OR_PATTERNS = click.argument(
    "recipes",
    metavar="[RECIPE]...",
    nargs=-1,
    type=RecipeType(),
    callback=_patterns,
    shell_complete=completion.recipes,
)
RECIPE = click.argument(
    "recipe_path",
    metavar="[RECIPE]",
    type=RecipeType(),
    required=False,
    callback=_recipe,
    shell_complete=completion.recipes,
)
VARIABLES = click.option(
    "--set",
    "variables",
    multiple=True,
    callback=given_variables.read,
    metavar="NAME=VALUE",
    help="Set a variable of the recipe; commas separate the items of a list. With '-', standard "
    "input has a JSON object of names and values, which no other user sees.",
)
ALLOW_OUTSIDE = click.option("--allow-outside", is_flag=True,
                             help="Let the recipe name files outside its directory.")  # fmt: skip
ALLOW_ENV = click.option("--allow-env", multiple=True, metavar="NAME", help="Let the recipe take "
                         "this environment variable for a secret; can be repeated.")  # fmt: skip
FORMAT = click.option("--format", "given_format", type=click.Choice(list(FORMATS)),
                      help="The image's format; raw and qcow2 are detected.")  # fmt: skip
FIRMWARE = click.option("--firmware", type=click.Choice(FIRMWARES), help="uefi-secure is UEFI with "
                        "Secure Boot.  [default: bios, or uefi if that alone fits]")  # fmt: skip
ACCEL = click.option(
    "--accel",
    type=click.Choice(["auto", "kvm", "tcg"]),
    default="auto",
    show_default=True,
    help="How virtual machines run; auto takes KVM if a guest really runs under it.",
)
APT_PROXY = click.option(
    "--apt-proxy",
    callback=_apt_proxy,
    metavar="auto|none|URL",
    envvar="PARTICLE_OS_APT_PROXY",
    show_envvar=True,
    help="A proxy for packages, such as apt-cacher-ng; auto finds one that answers.",
)


def memory_option(default: str) -> Callable[[Any], Any]:
    """The option for the memory of a VM."""
    text = f"The memory of the VM.  [default: {default}]"
    return click.option("--memory", callback=_size, metavar="SIZE", help=text)


TESTINFRA = click.option(
    "--testinfra", type=PathType(exists=True, file_okay=False), metavar="DIRECTORY",
    callback=_with_testinfra,
    help="Also run these tests with pytest-testinfra: on this host, as you.",
)  # fmt: skip
DISKS = click.option(
    "--devices", "disk", type=click.Choice(DISK_BUSES), multiple=True,
    help="The kind of disk. The image boots once with each combination of the repeatable options."
    "  [default: virtio]",
)  # fmt: skip
NETWORK_CARDS = click.option(
    "--network-card", type=click.Choice(CARD_MODELS), multiple=True,
    help="The network card; repeatable.  [default: virtio]",
)  # fmt: skip
MEMORIES = click.option(
    "--memory", callback=_sizes, metavar="SIZE", multiple=True,
    help="The memory of the VM; repeatable.  [default: 1G]",
)  # fmt: skip
OUTPUT = click.option(
    "-o", "--output", "output_directory", type=PathType(file_okay=False), default=OUTPUT_DIRECTORY,
    show_default=True, help="The directory for the images.",
)  # fmt: skip
BASE = click.option(
    "--base", metavar="REF", help="Start from this base image instead of the recipe's."
)
SAME_BASE = click.option("--base", metavar="REF", help="The base image that build was given.")
CPUS = click.option(
    "--cpus", type=click.IntRange(1, 64), help="The number of processors of the helper VM."
)
# The keys of checkpoints contain the scratch disk's size and the source date: `shell` needs both.
SCRATCH_SIZE = click.option(
    "--scratch-size", "scratch", callback=_size, metavar="SIZE", default="32G", show_default=True,
    help="The most that the system under construction may take.",
)  # fmt: skip
SOURCE_DATE = click.option(
    "--source-date", type=click.IntRange(0, 2**32 - 1), metavar="SECONDS",
    envvar="SOURCE_DATE_EPOCH", show_envvar=True,
    help="Make the image reproducible; no time in it is later (seconds since 1970).",
)  # fmt: skip
NETWORK = click.option(
    "--network", type=click.Choice(["none"]),
    help="Give no stage a network; only the host fetches packages.",
)  # fmt: skip
PLAIN = click.option(
    "--plain", is_flag=True, envvar="PARTICLE_OS_PLAIN", show_envvar=True,
    help="Take no shortcuts: the same image, built more slowly (docs/shortcuts.md).",
)  # fmt: skip
NO_SAVE_MEMORY = click.option(
    "--no-save-memory", "save_memory", is_flag=True, callback=_negated,
    help="Do not save the memory of the helper VM in the cache. That makes later builds start "
    "faster, and costs a cache that is soon thrown away about ten seconds.",
)  # fmt: skip
MIRROR = click.option(
    "--mirror", metavar="URL", envvar="PARTICLE_OS_MIRROR", show_envvar=True,
    help="The Debian mirror for the helper VM and for mmdebstrap: bases. Such a base then has "
    "no other source: no updates and no security suites.",
)  # fmt: skip
SAME_MIRROR = click.option(
    "--mirror", metavar="URL", envvar="PARTICLE_OS_MIRROR", help="The mirror that build was given."
)
TEMPLATE = click.option(
    "--template",
    help="The template of the helper VM.  [default: debian-trixie, or that of the architecture]",
    shell_complete=completion.helper_templates,
)
HIDDEN_TEMPLATE = click.option("--template", hidden=True)
KINDS = click.Choice(list(ARCHITECTURES))
ARCHITECTURE = click.option(
    "--architecture", type=KINDS, help="The architecture of the image, instead of the recipe's.",
)  # fmt: skip
OWN_ARCHITECTURE = click.option(
    "--architecture", type=KINDS, help="The architecture of the image; by default, this machine's.",
)  # fmt: skip
SAME_ARCHITECTURE = click.option(
    "--architecture", type=KINDS, help="The architecture that build was given.",
)  # fmt: skip
IMAGE_ARCHITECTURE = click.option(
    "--architecture", "wanted_architecture", type=KINDS, callback=_record,
    help="The architecture of the image.  [default: the disk's, or this host's]",
)  # fmt: skip
NO_CACHE = click.option(
    "--no-cache", "cache", is_flag=True, callback=_negated,
    help="Rebuild everything, and keep nothing for later builds.",
)  # fmt: skip
REFRESH = click.option(
    "--refresh", metavar="STAGE", shell_complete=completion.stages_of_recipe,
    help="Rebuild from this stage on (number, name or type; base rebuilds everything).",
)  # fmt: skip
MAX_AGE = click.option(
    "--max-age", type=click.IntRange(0), default=int(MAX_AGE_SECONDS // 3600), show_default=True,
    callback=_seconds, metavar="HOURS",
    help="How long to reuse the result of a stage that reads the network.",
)  # fmt: skip
NO_BOOT_TEST = click.option(
    "--no-boot-test", "boot_test", is_flag=True, callback=_negated,
    help="Publish the image without booting it.",
)  # fmt: skip
_SHARED_CACHES = (
    click.option("--cache-from", multiple=True, metavar="URL",
                 help="Read helper, bases and checkpoints from this shared cache: "
                 "file:///DIRECTORY or oci://HOST/REPOSITORY."),
    click.option("--cache-keys", type=PathType(dir_okay=False), multiple=True, metavar="FILE",
                 help="Trust what these public keys have signed in a shared cache."),
    click.option("--cache-to", metavar="URL",
                 help="Give a shared cache the results of a build that passes its boot test."),
    click.option("--cache-sign", type=PathType(dir_okay=False), metavar="FILE",
                 help="Sign them with this private key."),
)  # fmt: skip


def shared_caches(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options for shared caches."""
    for option in reversed(_SHARED_CACHES):
        function = option(function)
    return function


JOBS = click.option(
    "--jobs", type=click.IntRange(1, 64), metavar="N",
    help="Build so many images at a time; by default half the processors without KVM.",
)  # fmt: skip
FAIL_FAST = click.option(
    "--fail-fast", is_flag=True, help="Stop all builds when the first one fails."
)
ON = click.option(
    "--on", metavar="FARM",
    help="Build on a farm: the scheduler tls://HOST:8786, or local:2 for workers on this machine.",
)  # fmt: skip
FARM_KEYS = click.option(
    "--farm-keys", type=PathType(file_okay=False), metavar="DIRECTORY",
    envvar="PARTICLE_OS_FARM_KEYS", show_envvar=True,
    help="The keys of the farm; by default farm in the directory of config.toml.",
)  # fmt: skip
DRY_RUN = click.option("--dry-run", is_flag=True, help="Show the steps and build nothing.")
KEEP_ON_FAILURE = click.option(
    "--keep-on-failure", is_flag=True, help="Keep the disks of a failed build."
)
