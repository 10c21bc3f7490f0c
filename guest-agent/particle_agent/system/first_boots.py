"""The first boot of an image, at which systemd enables units as the presets say."""

from __future__ import annotations

from particle_agent.target.target import Target

# systemd.preset(5). The first line that matches a unit counts, in the order of the files' names.
NAME = "10-disabled-in-the-image.preset"
SCOPES = {"system": "--system", "user": "--global"}
HEAD = "# Units that are disabled in the image stay so at the first boot.\n"


def keep_disabled(target: Target) -> None:
    """Excepts the units that are disabled from the presets of the first boot.

    The manager enables each unit whose preset is `enable` (systemd(1), first boot). A recipe may
    have disabled some of them.
    """
    for name, option in SCOPES.items():
        listed = target.capture(
            ["systemctl", option, "list-unit-files", "--state=disabled", "--no-legend", "--plain"]
        )
        # The columns are unit, state and preset.
        rows = [line.split() for line in listed.splitlines()]
        units = [row[0] for row in rows if len(row) > 2 and row[2] == "enabled"]
        if units:
            text = HEAD + "".join(f"disable {unit}\n" for unit in units)
            target.write(f"/etc/systemd/{name}-preset/{NAME}", text)
