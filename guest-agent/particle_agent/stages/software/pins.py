"""Preferences of apt, which stay in the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from particle_agent.contract.options import Options, refuse
from particle_agent.contract.values import PinnedPackages, PinPriority, PinText
from particle_agent.target.target import Target

PREFERENCES = "/etc/apt/preferences.d/recipe.pref"


@dataclass(frozen=True, kw_only=True)
class Pin(Options):
    """A preference of apt_preferences(5) for some packages. It stays in the image."""

    package: PinnedPackages
    """The packages: names, or patterns such as linux-* and *."""
    pin: PinText
    """The versions: release a=trixie-backports, version 1.2*, or origin "HOST"."""
    priority: PinPriority
    """The priority. Above 1000 apt even downgrades to these versions; below 0 it never installs
    them."""

    def __post_init__(self) -> None:
        if self.priority == 0:
            refuse([(("priority",), f"{self.package}: apt knows no priority 0")])


def write(target: Target, pins: Sequence[Pin]) -> None:
    """Adds the preferences to those of earlier stages."""
    text = target.read(PREFERENCES) if target.exists(PREFERENCES) else ""
    for pin in pins:
        stanza = f"Package: {pin.package}\nPin: {pin.pin}\nPin-Priority: {pin.priority}\n\n"
        text += stanza if stanza not in text else ""
    if pins:
        target.write(PREFERENCES, text)
