"""Writes data as YAML that `parsing.load` reads as the same data."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import yaml

from particle_os.documents.parsing import plain_scalar
from particle_os.errors import whole_line


def as_yaml(data: Any) -> list[str]:
    """The lines of a document; each is printable ASCII, and no command to a CI system."""
    text: str = yaml.dump(
        data, Dumper=_Writer, sort_keys=False, allow_unicode=False, width=math.inf
    )
    # YAML has more line breaks than this one, but they are escaped.
    return text.removesuffix("\n").split("\n")


def _text(writer: Any, text: str) -> Any:
    lines = text.split("\n")
    style = None
    if any(whole_line(line) != line for line in lines) or plain_scalar(text) != text:
        # Here an escape is possible. YAML 1.2 has other numbers than PyYAML.
        style = '"'
    elif len(lines) > 1:
        style = "|"
    return writer.represent_scalar("tag:yaml.org,2002:str", text, style=style)


class _Writer(yaml.SafeDumper):
    yaml_representers: ClassVar[Any] = {**yaml.SafeDumper.yaml_representers, str: _text}
