"""The layout of the keyboard."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import ClassVar, Literal

from particle_agent.contract.values import XkbLayouts, XkbName, XkbOption, XkbVariants
from particle_agent.errors import StageError
from particle_agent.stages.base import StageOptions
from particle_agent.target.target import Target

CONFIG = "/etc/default/keyboard"
# Of xkb-data: the models, layouts, variants and options that there are, each with a description.
XKB_LISTS = ("/usr/share/X11/xkb/rules/base.lst", "/usr/share/X11/xkb/rules/evdev.lst")
# vconsole.conf(5), and what systemd-localed takes a console keymap from.
VCONSOLE = "/etc/vconsole.conf"
VCONSOLE_SETUP = "/usr/lib/systemd/systemd-vconsole-setup"
KEYMAPS = "/usr/share/systemd/kbd-model-map"


@dataclass(frozen=True, kw_only=True)
class Keyboard(StageOptions):
    """Sets the keyboard of the console and of graphical systems: /etc/default/keyboard.

    The names are those of xkeyboard-config(7); they are checked where the image has its lists
    (package `xkb-data`). The console follows when `console-setup` is installed.
    """

    only_configures: ClassVar[bool] = True
    type: Literal["keyboard"] = "keyboard"
    layout: XkbLayouts
    """The layout such as `de`, or several between which is switched: `us,ru`."""
    variant: XkbVariants = ""
    """The variant of the layout such as `nodeadkeys`; of several layouts, one each: `,phonetic`."""
    model: XkbName = "pc105"
    """The hardware."""
    options: tuple[XkbOption, ...] = ()
    """Options such as `compose:caps`."""

    def __post_init__(self) -> None:
        if self.variant.count(",") > self.layout.count(","):
            raise ValueError("keyboard: there are more variants than layouts")

    def run(self, target: Target) -> None:
        for path in XKB_LISTS:
            if target.exists(path):
                _check(self, target.read(path))
                break
        keymap = _keymap(self, target)
        target.write(CONFIG, _config(self, keymap))
        if keymap or not target.exists(VCONSOLE):
            # As Debian's systemd makes it at boot; both files have the same names for the same.
            target.symlink(VCONSOLE, CONFIG.removeprefix("/etc/"))
        if target.exists("/usr/bin/setupcon"):
            # What it has saved before would be loaded at boot.
            target.chroot(["setupcon", "--save-only", "--force"])
        elif not keymap:
            target.reporter.note(
                "the console keeps its keyboard layout: the image has no console-setup"
            )


def _config(keyboard: Keyboard, keymap: str | None) -> str:
    """keyboard(5). The names hold nothing that a shell would take for more than text."""
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
    """The console keymap nearest to the layout, where systemd loads it."""
    if not target.exists(VCONSOLE_SETUP) or not target.exists(KEYMAPS):
        return None
    variant = keyboard.variant or "-"
    for line in target.read(KEYMAPS).splitlines():
        fields = line.split()
        if len(fields) >= 4 and (fields[1], fields[3]) == (keyboard.layout, variant):
            return fields[0]
    target.reporter.note(f"systemd knows no console keymap for the layout {keyboard.layout}")
    return None


def _check(keyboard: Keyboard, text: str) -> None:
    """Raises StageError for the first name that is not in xkb's list."""
    known = _names(text)
    layouts = keyboard.layout.split(",")
    # Names without a variant may end the list early.
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
                f"xkb knows no keyboard {kind} named {name}",
                hint=f"Did you mean {' or '.join(near)}?"
                if near
                else "xkeyboard-config(7) lists the names.",
            )


def _names(text: str) -> dict[str, set[str]]:
    """The names in xkb's list: of each `! kind`, and of the variants of each layout."""
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
