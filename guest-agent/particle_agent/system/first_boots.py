"""The first boot of an image, at which systemd enables units as the presets say."""

from __future__ import annotations

from collections.abc import Iterator

from particle_agent.contract import needs
from particle_agent.contract.needs import Need
from particle_agent.contract.unit_names import SYSTEM, USER
from particle_agent.errors import StageError
from particle_agent.system.units import SYSTEMCTL, brings, units_of
from particle_agent.target.target import Target

# systemd.preset(5). The first line that matches a unit counts, in the order of the files' names.
NAME = "10-disabled-in-the-image.preset"
SCOPES = {"system": ("--system", SYSTEM), "user": ("--global", USER)}
HEAD = "# Units that are disabled in the image stay so at the first boot.\n"
# The units that ask questions on the console at a first boot, and wait for the answers. The first
# one asks for what the image lacks, such as a time zone.
QUESTIONS = ("systemd-firstboot.service", "systemd-homed-firstboot.service")
INSTALLED = ("/usr/lib/systemd/system", "/lib/systemd/system")


def need() -> Need:
    """The need of the option `first-boot`."""
    return needs.package("systemd-sysv", SYSTEMCTL, "'first-boot'", "first-boot", others=True)


def rewrites() -> Iterator[tuple[str, str]]:
    """The files that 'first-boot' replaces (see `StageOptions.rewrites`)."""
    for name in SCOPES:
        path = f"/etc/systemd/{name}-preset/{NAME}"
        yield path, "give the file another name: 'first-boot' writes this one"


def prepare(target: Target) -> None:
    """Lets the first boot change only what the recipe has left open, and ask nothing.

    Raises StageError for an image without systemd.
    """
    if not target.exists(SYSTEMCTL):
        raise StageError(
            "first-boot: the image has no systemd, which knows first boots",
            hint="Add 'systemd-sysv' to the packages of an apt stage, or leave 'first-boot' out.",
        )
    _keep_disabled(target)
    for unit in QUESTIONS:
        own = f"{SYSTEM[0]}/{unit}"
        there = any(target.exists(f"{directory}/{unit}") for directory in INSTALLED)
        if there and not target.exists(own):
            target.symlink(own, "/dev/null")


def _keep_disabled(target: Target) -> None:
    """Excepts the units that are disabled from the presets of the first boot.

    The manager enables each unit whose preset is `enable` (systemd(1), first boot), and with it the
    units of its `Also=`. A recipe may have disabled some of them. A line `disable` of a preset
    disables nothing at a first boot.
    """
    for name, (option, directories) in SCOPES.items():
        listed = target.capture(["systemctl", option, "list-unit-files", "--no-legend", "--plain"])
        # The columns are unit, state and preset.
        rows = [line.split() for line in listed.splitlines()]
        wanted = {row[0] for row in rows if len(row) > 2 and row[2] == "enabled"}
        disabled = {row[0] for row in rows if len(row) > 1 and row[1] == "disabled"}
        units = wanted & disabled
        if disabled and wanted:
            others = brings(target, units_of(target, directories))
            units |= {unit for unit in wanted if not disabled.isdisjoint(others.get(unit, ()))}
        if units:
            text = HEAD + "".join(f"disable {unit}\n" for unit in sorted(units))
            target.write(f"/etc/systemd/{name}-preset/{NAME}", text)
