"""Stage keyboard: the keyboard layout."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

from particle_agent.contract.values import XkbLayouts, XkbName, XkbOption, XkbVariants
from particle_agent.errors import StageError
from particle_agent.stages.base import StageOptions
from particle_agent.target.target import Target

CONFIG = "/etc/default/keyboard"
# xkb-data lists the known models, layouts, variants and options here, with descriptions.
XKB_LISTS = ("/usr/share/X11/xkb/rules/base.lst", "/usr/share/X11/xkb/rules/evdev.lst")
# vconsole.conf(5); systemd-localed chooses a console keymap from KEYMAPS.
VCONSOLE = "/etc/vconsole.conf"
VCONSOLE_SETUP = "/usr/lib/systemd/systemd-vconsole-setup"
KEYMAPS = "/usr/share/systemd/kbd-model-map"


@dataclass(frozen=True, kw_only=True)
class Keyboard(StageOptions):
    """Sets the keyboard of the console and of graphical systems: /etc/default/keyboard.

    The names are those of xkeyboard-config(7). The stage checks them when the image has the package
    `xkb-data`. The console uses the same layout when `console-setup` is installed.
    """

    only_configures: ClassVar[bool] = True
    type: Literal["keyboard"] = "keyboard"
    layout: XkbLayouts
    """A layout such as `de`, or several to switch between: `us,ru`."""
    variant: XkbVariants = ""
    """A variant such as `nodeadkeys`, or one for each layout: `,phonetic`."""
    model: XkbName = "pc105"
    """The keyboard model."""
    options: tuple[XkbOption, ...] = ()
    """Options such as `compose:caps`."""

    def __post_init__(self) -> None:
        if self.variant.count(",") > self.layout.count(","):
            raise ValueError("keyboard: there are more variants than layouts")

    def rewrites(self) -> Iterable[tuple[str, str]]:
        for path in (CONFIG, VCONSOLE):
            yield path, "set the keyboard in the options of the stage"

    def run(self, target: Target) -> None:
        for path in XKB_LISTS:
            if target.exists(path):
                _check(self, target.read(path))
                break
        keymap = _keymap(self, target)
        target.write(CONFIG, _config(self, keymap))
        if keymap or not target.exists(VCONSOLE):
            # Debian's systemd makes the same link at boot: both files use the same variable names.
            target.symlink(VCONSOLE, CONFIG.removeprefix("/etc/"))
        if target.exists("/usr/bin/setupcon"):
            # Otherwise the keymap that setupcon saved earlier is loaded at boot.
            target.chroot(["setupcon", "--save-only", "--force"])
        elif not keymap:
            target.reporter.note(
                "the console keeps its keyboard layout: the image has no console-setup"
            )


def _config(keyboard: Keyboard, keymap: str | None) -> str:
    """The text of keyboard(5). The names contain no character that is special to a shell."""
    values = {
        "XKBMODEL": keyboard.model,
        "XKBLAYOUT": keyboard.layout,
        "XKBVARIANT": keyboard.variant,
        "XKBOPTIONS": ",".join(keyboard.options),
        "BACKSPACE": "guess",
    }
    if keymap:
        values["KEYMAP"] = keymap
    return "".join(f'{name}="{value}"\n' for name, value in values.items())


def _keymap(keyboard: Keyboard, target: Target) -> str | None:
    """The console keymap for the layout; None where systemd loads none."""
    if not target.exists(VCONSOLE_SETUP) or not target.exists(KEYMAPS):
        return None
    variant = keyboard.variant or "-"
    for line in target.read(KEYMAPS).splitlines():
        fields = line.split()
        if len(fields) >= 4 and (fields[1], fields[3]) == (keyboard.layout, variant):
            return fields[0]
    target.reporter.note(f"systemd has no console keymap for the layout {keyboard.layout}")
    return None


def _check(keyboard: Keyboard, text: str) -> None:
    """Raises StageError for the first name that is not in xkb's list."""
    known = _names(text)
    layouts = keyboard.layout.split(",")
    # The list of variants may be shorter than that of the layouts.
    variants = keyboard.variant.split(",") + [""] * len(layouts)
    wanted = [("model", keyboard.model)]
    for layout, variant in zip(layouts, variants, strict=False):
        wanted.append(("layout", layout))
        if variant:
            wanted.append((f"variant of {layout}", variant))
    wanted += [("option", option) for option in keyboard.options]
    for kind, name in wanted:
        names = known.get(kind, set())
        if name not in names:
            near = difflib.get_close_matches(name, sorted(names), n=3)
            raise StageError(
                f"xkb has no keyboard {kind} named {name}",
                hint=f"Did you mean {' or '.join(near)}?"
                if near
                else "xkeyboard-config(7) lists the names.",
            )


def _names(text: str) -> dict[str, set[str]]:
    """The names in an xkb list by their `! kind`, and the variants by their layout."""
    found: dict[str, set[str]] = {}
    kind = ""
    for line in text.splitlines():
        if line.startswith("! "):
            kind = line.removeprefix("! ").strip()
        elif fields := line.split():
            # "  nodeadkeys      de: German (no dead keys)"
            of = f"variant of {fields[1].rstrip(':')}" if kind == "variant" else kind
            found.setdefault(of, set()).add(fields[0])
    return found
