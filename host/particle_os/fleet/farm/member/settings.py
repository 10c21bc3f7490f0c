"""The settings of a worker for all of its builds, which its processes find in the environment."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from particle_os.errors import InfrastructureError, UsageError
from particle_os.fleet.farm.names import SETTINGS
from particle_os.sharing import shared_cache
from particle_os.sharing.shared_cache import SharedCache


@dataclass(frozen=True)
class WorkerSettings:
    """The shared caches of a worker, as the options --cache-from and so on of `build`."""

    cache_from: tuple[str, ...] = ()
    cache_keys: tuple[str, ...] = ()
    cache_to: str | None = None
    cache_sign: str | None = None

    def encode(self) -> str:
        """The settings as the value of the variable."""
        return json.dumps(asdict(self))

    @classmethod
    def of_environment(cls) -> WorkerSettings:
        """The settings in this process's environment. Raises InfrastructureError for others."""
        try:
            found = json.loads(os.environ.get(SETTINGS, "{}"))
            for name in ("cache_from", "cache_keys"):
                found[name] = tuple(found.get(name, ()))
            return cls(**found)
        except (ValueError, TypeError, AttributeError) as error:
            raise InfrastructureError(f"{SETTINGS} has no settings of a worker") from error

    def arguments(self) -> Iterator[str]:
        """The arguments of `build` that stand for the settings."""
        for name, values in (("from", self.cache_from), ("keys", self.cache_keys)):
            yield from (f"--cache-{name}={value}" for value in values)
        if self.cache_to is not None:
            yield from (f"--cache-to={self.cache_to}", f"--cache-sign={self.cache_sign}")

    def cache(self) -> SharedCache:
        """The shared cache that gets the results. Raises UsageError without one."""
        signer = None if self.cache_sign is None else Path(self.cache_sign)
        keys = [Path(path) for path in self.cache_keys]
        found = shared_cache.of_options(self.cache_from, keys, self.cache_to, signer)
        if found is None or found.target is None:
            raise UsageError(
                "the worker has no shared cache, which brings the images to the client",
                hint="Start it with --cache-to and --cache-sign (docs/farm.md).",
            )
        return found
