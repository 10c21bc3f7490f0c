"""Redraws the plot of `systemd-analyze plot` from its harmless parts.

An SVG file may hold scripts and refer to other files, which a browser runs and loads. Only shapes,
positions and texts of known forms are copied; the style is our own. The class names come from
systemd's src/analyze/analyze-plot.c.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

from particle_os.errors import printable

SVG = "http://www.w3.org/2000/svg"
ELEMENTS = ("g", "rect", "line", "text")
NUMBER = r"-?[0-9]{1,9}(?:\.[0-9]{1,6})?"
TRANSFORM = rf"translate\({NUMBER}, ?{NUMBER}\)|rotate\({NUMBER} ?{NUMBER}, ?{NUMBER}\)"
ATTRIBUTES = {
    **dict.fromkeys("x y x1 y1 x2 y2".split(), re.compile(NUMBER)),
    **dict.fromkeys(("width", "height"), re.compile(rf"{NUMBER}(?:px|%)?")),
    "class": re.compile("[a-z0-9 -]{1,40}"),
    "transform": re.compile(TRANSFORM),
}
# A unit and its start time: "ssh.service (386ms)", "x.service (1min 2.345s)".
TIME = re.compile(
    r"(\S+) \((?:(\d{1,3})h)? ?(?:(\d{1,3})min)? ?(?:(\d{1,3}(?:\.\d{1,6})?)s)? ?(?:(\d{1,3})ms)?\)"
)
SHAPES = 20_000
DEPTH = 8
CHARACTERS = 200
# In pixels; systemd draws a second as 100. A wider plot is squeezed to fit on a screen.
WIDTH = 1600
HORIZONTAL = ("x", "x1", "x2", "width")
# Below this scale there is no room for a label at each second.
LABELLED = 0.4
# All but comments, CDATA, and the document type of systemd-analyze, which declares nothing.
DECLARATION = re.compile(
    r'<!(?!--|\[CDATA\[|DOCTYPE svg PUBLIC "[^"<]{0,200}"\s{1,9}"[^"<]{0,200}">)'
)
STYLE = """
.background { fill: #fff } rect { stroke: #666; stroke-width: 1; stroke-opacity: 0 }
text { font: 13px sans-serif; fill: #222 } text.left { text-anchor: start }
text.right { text-anchor: end } text.sec { font-size: 10px } line { stroke: #ccc }
line.sec5 { stroke-width: 2 }
rect.activating { fill: #7ba3cf } rect.active { fill: #d7e3ef } rect.deactivating { fill: #e3d7bd }
rect.kernel, rect.initrd, rect.userspace { fill: #c2d6c6 } rect.security { fill: #d9cf9a }
rect.firmware, rect.loader, rect.soft-reboot { fill: #cfd4d8 } rect.generators { fill: #b5d3da }
rect.unitsload { fill: #a9cdb2 } rect.box { fill: #f6f6f4 }
"""


def redrawn(data: bytes) -> str | None:
    """Returns the harmless part of a plot as an SVG document; None when `data` is no SVG."""
    try:
        text = data.decode("utf-8")
        # Declarations could expand a short text to one of any length (entities, defaults).
        if DECLARATION.search(text):
            return None
        source = ET.fromstring(text)  # noqa: S314 - has no declarations
    except (ValueError, ET.ParseError):
        return None
    if source.tag != f"{{{SVG}}}svg":
        return None
    width = re.fullmatch(rf"({NUMBER})px", source.get("width", ""))
    squeeze = min(1.0, WIDTH / max(1.0, float(width[1]))) if width else 1.0
    top = ET.Element("svg", {"xmlns": SVG, **_attributes(source, squeeze)})
    ET.SubElement(top, "style").text = STYLE
    _copy(source, top, squeeze, SHAPES, DEPTH)
    return ET.tostring(top, encoding="unicode")


def unit_times(drawn: str) -> list[tuple[str, float]]:
    """Returns the units of a redrawn plot, each with its start time in seconds."""
    times = []
    for element in ET.fromstring(drawn).iter(f"{{{SVG}}}text"):  # noqa: S314 - our own
        if found := TIME.fullmatch(element.text or ""):
            unit, hours, minutes, seconds, milliseconds = found.groups(default="0")
            took = 3600 * int(hours) + 60 * int(minutes) + float(seconds) + int(milliseconds) / 1000
            times.append((unit, took))
    return times


def _copy(source: ET.Element, target: ET.Element, squeeze: float, room: int, depth: int) -> int:
    """Copies the known children of an element; returns how many more shapes may follow."""
    for child in source:
        name = str(child.tag).removeprefix(f"{{{SVG}}}")
        if name not in ELEMENTS or (squeeze < LABELLED and _is_minor_label(child)):
            continue
        if room <= 0 or depth <= 0:
            break
        made = ET.SubElement(target, name, _attributes(child, squeeze))
        if name == "text":
            made.text = printable(" ".join((child.text or "").split()), CHARACTERS)
        room = _copy(child, made, squeeze, room - 1, depth - 1)
    return room


def _is_minor_label(element: ET.Element) -> bool:
    """Whether `element` is the label of a second that is no multiple of five."""
    return element.get("class") == "sec" and not re.fullmatch(r"-?\d*[05]\.0s", element.text or "")


def _attributes(element: ET.Element, squeeze: float) -> dict[str, str]:
    found = {}
    for name, value in element.attrib.items():
        if name not in ATTRIBUTES or not ATTRIBUTES[name].fullmatch(value):
            continue
        if name in HORIZONTAL and squeeze < 1 and not value.endswith("%"):
            value = f"{float(value.removesuffix('px')) * squeeze:.3f}"
        found[name] = value
    return found
