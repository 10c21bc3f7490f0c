"""Renders the HTML pages; their templates lie beside this module."""

from __future__ import annotations

import functools
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from particle_os import __version__
from particle_os.errors import printable

TEXT_CHARACTERS = 400
# The beginning of each page. A browser that reads it runs no script of what follows.
POLICY = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; \
style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'">
"""


def render(template: str, /, **values: Any) -> str:
    """The page that a template makes of values; each value is escaped, and cut if it is long."""
    return _environment().get_template(template).render(version=__version__, **values)


def is_inert(page: bytes) -> bool:
    """Whether a page of unknown origin begins with the policy that forbids scripts."""
    return page.lstrip().startswith(POLICY.encode())


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        autoescape=True,
        loader=jinja2.FunctionLoader(_text),
        undefined=jinja2.StrictUndefined,
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _text(name: str) -> str:
    return resources.files("particle_os.report").joinpath(name).read_text(encoding="utf-8")


def shown(value: Any) -> Any:
    """A value as printable text of bounded length. jinja2 escapes the text afterwards."""
    return value if isinstance(value, Markup) else printable(str(value), TEXT_CHARACTERS)
