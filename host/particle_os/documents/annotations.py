"""Finds the annotated types of options classes."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, get_args, get_type_hints


@functools.cache
def field_types(kind: type) -> dict[str, Any]:
    """The annotated types of a class's fields.

    The result is cached: finding the types takes longer than the rest of reading a recipe.
    """
    return get_type_hints(kind, include_extras=True)


def options_class(annotation: Any, data_type: str | None = None) -> Any:
    """The options class in an annotation, its tuples and unions; `data_type` selects by `type`."""
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        if data_type is None or getattr(annotation, "type", None) in (None, data_type):
            return annotation
        return None
    for argument in get_args(annotation):
        if found := options_class(argument, data_type):
            return found
    return None
