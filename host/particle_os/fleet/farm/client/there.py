"""A farm on other machines: recipes travel there, and images back through a shared cache."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from particle_os.errors import EXIT_USAGE, UsageError
from particle_os.fleet.build_end import BuildEnd
from particle_os.fleet.farm import returned
from particle_os.fleet.farm.assignment import Assignment
from particle_os.fleet.farm.client import bundle
from particle_os.fleet.farm.client.connection import Inbox, connected
from particle_os.fleet.farm.client.run import FarmLink
from particle_os.fleet.farm.keys import FarmKeys
from particle_os.fleet.order import Order
from particle_os.sharing import shared_cache
from particle_os.system.workspace import Workspace


class FarmElsewhere:
    """A scheduler and workers that others run."""

    has_machines = True

    def __init__(self, url: str, keys: FarmKeys, work: Workspace, *, lines: bool) -> None:
        self._url = url
        self._keys = keys if url.startswith("tls://") else None
        if self._keys is not None:
            self._keys.check()
        self._work = work
        self._lines = lines
        self._results: dict[str, str] = {}

    @contextmanager
    def connect(self, inbox: Inbox) -> Iterator[FarmLink]:
        with connected(self._url, self._keys, inbox) as link:
            yield link

    def assignment(self, order: Order) -> Assignment:
        _check(order)
        key = self._results[order.name] = secrets.token_hex(32)
        made = bundle.of_order(order, self._work.path)
        return made.assignment(order, key, lines=self._lines)

    def deliver(self, order: Order, end: BuildEnd) -> BuildEnd:
        if end.exit_code in (None, EXIT_USAGE) or (end.error is not None and end.error.log is None):
            # There are no files.
            return end
        options = order.options
        cache = shared_cache.of_options(options.cache_from, options.cache_keys, None, None)
        assert cache is not None
        notes: list[str] = []
        taken = returned.take(
            cache, self._results[order.name], order.name, options.output_directory, self._work,
            notes.append,
        )  # fmt: skip
        # The worker has signed its answer together with the files. Dask's says nothing more.
        end = BuildEnd.of(order, taken.ended)
        if end.error is not None:
            # The paths and commands are those of the worker.
            end.error.log, end.error.command = taken.log, None
        return end


def _check(order: Order) -> None:
    """Raises UsageError unless the images can come back."""
    options = order.options
    if not options.cache_from:
        raise UsageError(
            "a farm on other machines needs a shared cache, which brings the images back",
            hint="Name the one that the workers write to: --cache-from URL --cache-keys FILE "
            "(docs/farm.md).",
        )
    if options.cache_to is not None:
        raise UsageError(
            "--cache-to is an option of the workers when a farm builds",
            hint="Give it to 'particle-os farm worker', and leave it out here.",
        )
