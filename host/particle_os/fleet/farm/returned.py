"""The way of a result back to the client: through the shared cache, as an entry of its own.

The entry has the images in chunks, and a parcel with the small files: the result, the logs, the
report and the evidence of a good build, or the directory NAME.failed of another one.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from particle_os.errors import EXIT_OK, InfrastructureError
from particle_os.fleet.build_process import Ended
from particle_os.fleet.farm import parcel
from particle_os.fleet.farm.assignment import Assignment
from particle_os.jobs.delivery import Delivery, check_format, image_names
from particle_os.report.pages import POLICY, is_inert
from particle_os.report.results import ENDINGS, Result, read_result
from particle_os.sharing.entry import EntryName, SharedEntry
from particle_os.sharing.shared_cache import SharedCache, SharedFiles, Unusable
from particle_os.system.checksum import file_sha256
from particle_os.system.regular_file import read_regular
from particle_os.system.workspace import Workspace

KIND: EntryName = "result"
ANSWER, PARCEL = "answer.json", "parcel"
# Bytes of the small files: logs, pages and screens.
PARCEL_LIMIT = 64 << 20
ANSWER_LIMIT = 128 << 20


def give(
    cache: SharedCache, assignment: Assignment, answer: dict[str, Any], output: Path, work: Path
) -> None:
    """Writes the files of an output directory, and the answer, into the shared cache.

    Raises OSError and ParticleError.
    """
    name = assignment.name
    files = {
        path.name.removeprefix(f"{name}."): path
        for path in (output / image for image in image_names(name))
        if path.is_file()
    }
    for what, text in ((PARCEL, _parcel(name, output)), (ANSWER, json.dumps(answer))):
        files[what] = work / what
        files[what].write_text(text)
    entry = SharedEntry(kind=KIND, key=assignment.key, created=time.time(), label=name)
    cache.keep(entry, files)


def _parcel(name: str, output: Path) -> str:
    """The small files; without the evidence when it is too much."""
    tops = [f"{name}.{ending}" for ending in ENDINGS], [f"{name}.evidence", f"{name}.failed"]
    found = [(top, output / top) for top in tops[0] if (output / top).is_file()]
    trees = [pair for top in tops[1] for pair in _tree(output, output / top)]
    try:
        return parcel.pack([*found, *trees], PARCEL_LIMIT)
    except parcel.TooLarge:
        small = [(n, path) for n, path in trees if Path(n).name.endswith(ENDINGS) or path.is_dir()]
        return parcel.pack([*found, *small], PARCEL_LIMIT)


def _tree(output: Path, top: Path) -> Iterator[tuple[str, Path]]:
    """A directory and what is in it, except for disks, with names relative to `output`."""
    if not top.is_dir():
        return
    yield top.name, top
    for path in sorted(top.rglob("*")):
        if path.suffix not in (".qcow2", ".raw") and not path.is_symlink():
            yield str(path.relative_to(output)), path


def earlier_answer(cache: SharedCache, key: str, work: Path) -> dict[str, Any] | None:
    """The answer in the entry that an earlier attempt has written; None without one.

    An answer that blames the machine is none: this machine is another attempt. Raises OSError.
    """
    assert cache.target is not None
    entry = cache.has_kept(KIND, key)
    if entry is None:
        return None
    place = work / "earlier"
    place.mkdir(mode=0o700)
    only = [file for file in entry.files if file.name == ANSWER]
    try:
        SharedFiles(entry.model_copy(update={"files": tuple(only)}), cache.target).fetch(place)
        found = _answer(place)
    except (Unusable, ValueError):
        return None
    return None if found.is_spoilt else found.data()


def _answer(place: Path) -> Ended:
    """The answer in the directory with the files of an entry. Raises OSError and ValueError."""
    try:
        return Ended.of(json.loads(read_regular(place / ANSWER, ANSWER_LIMIT)))
    except RecursionError as error:
        raise ValueError("an answer is nested too deeply") from error


@dataclass(frozen=True)
class Taken:
    """The end of a build as the worker has signed it, and the log of one that is not good."""

    ended: Ended
    log: Path | None


def take(
    cache: SharedCache, key: str, name: str, output: Path, work: Workspace,
    note: Callable[[str], None],
) -> Taken:  # fmt: skip
    """Brings the files of a result into the output directory, as a build here leaves them.

    Raises InfrastructureError when the shared cache has no such result, or has files that do not
    fit the signed answer, and NotPublished.
    """
    found = cache.entry(KIND, key, note)
    if found is None:
        raise InfrastructureError(
            f"the shared cache has no trusted result of '{name}'",
            hint="The worker signs results: its public key must be one of --cache-keys.",
        )
    staging = work.adopt_directory(output)
    try:
        return _deliver(found, name, staging, output)
    except (Unusable, OSError, parcel.Unreadable, ValueError) as error:
        raise InfrastructureError(
            f"the result of '{name}' in the shared cache is damaged: {error}",
            hint="Build again.",
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _deliver(found: SharedFiles, name: str, staging: Path, output: Path) -> Taken:
    """Writes the files into `staging`, checks them, and publishes them."""
    fetched = staging / "fetched"
    fetched.mkdir(mode=0o700)
    found.fetch(fetched)
    ended = _answer(fetched)
    text = read_regular(fetched / PARCEL, 4 * PARCEL_LIMIT).decode("ascii")
    parcel.unpack(text, staging, PARCEL_LIMIT, plain=True)
    delivery = Delivery(name, staging, output)
    if (failed := staging / delivery.failed_directory.name).is_dir():
        if ended.code == EXIT_OK:
            raise OSError("a good build has no images")
        for path in list(failed.iterdir()):
            path.rename(staging / path.name)
        _drop_active(delivery)
        return Taken(ended, delivery.keep_evidence([]))
    result = read_result(delivery.file("result.json"))
    if ended.code != EXIT_OK or Result.model_validate_json(ended.output) != result:
        raise OSError("it is not the result that the build has printed")
    _drop_active(delivery)
    _move_images(result, name, fetched, staging)
    delivery.publish(result)
    return Taken(ended, None)


def _drop_active(delivery: Delivery) -> None:
    """Replaces a report that could run scripts in the user's browser."""
    report = delivery.file("report.html")
    if report.exists() and not is_inert(read_regular(report, PARCEL_LIMIT)):
        report.write_text(f"{POLICY}<p>The report of this build is not safe to open.</p>\n")


def _move_images(result: Result, name: str, fetched: Path, staging: Path) -> None:
    """Gives the images their names. Raises OSError when they are not those of the result."""
    if result.recipe != name or not {a.path for a in result.artifacts} <= set(image_names(name)):
        raise OSError("it is the result of another recipe")
    for artifact in result.artifacts:
        path = fetched / artifact.path.removeprefix(f"{name}.")
        if file_sha256(path) != artifact.sha256:
            raise OSError(f"{artifact.path} has another checksum")
        check_format(artifact, path)
        path.rename(staging / artifact.path)
