"""An assignment: a build as it travels to a worker."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from particle_os.errors import ParticleError


class BadAssignment(ParticleError):
    """An assignment is none that this version of particle-os has made."""


@dataclass(frozen=True)
class Assignment:
    """The build of the image `name`; `key` names its result in the shared cache.

    On the machine of the client, `command` builds it. Elsewhere, `parcel` has the recipe, which has
    the path `recipe` in it, and `arguments` has the options of the build. The build reads the
    `variables` from its standard input. With `lines`, the events contain the lines of programs.
    """

    name: str
    key: str
    command: Sequence[str] = ()
    parcel: str = ""
    recipe: str = ""
    arguments: Sequence[str] = ()
    # Their values may be confidential.
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    lines: bool = False
    # A file on which the process holds a lock for as long as it lives.
    lock: str = ""

    def encode(self) -> bytes:
        """The assignment in one line."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> Assignment:
        """Reads the line of `encode`. Raises BadAssignment."""
        try:
            return cls(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise BadAssignment("an assignment of another version of particle-os") from error
