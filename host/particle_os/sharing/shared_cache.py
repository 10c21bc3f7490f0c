"""A cache that others share: its signed entries are read, checked, and written."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pydantic

from particle_os.errors import ParticleError, UsageError, printable
from particle_os.registry.reference import HOST, REPOSITORY
from particle_os.sharing.entry import CHUNK, EntryName, SharedChunk, SharedEntry, SharedFile
from particle_os.sharing.registry import RegistryStore
from particle_os.sharing.signing import NotSigned, PublicKeys, Signer
from particle_os.sharing.store import DirectoryStore, Store, check_time
from particle_os.system import process
from particle_os.system.confinement import Confinement
from particle_os.system.deadline import Deadline
from particle_os.system.regular_file import open_regular, write_whole

CHUNK_SECONDS = 60.0
# The files of an entry have so many seconds, and one more for so many of their bytes.
FETCH_SECONDS, FETCH_BYTES = 60.0, 1 << 19
# Runs of zeros become holes.
PACK, UNPACK = ["zstd", "-q", "-3", "-c"], ["zstd", "-q", "-d", "--sparse", "-c"]


# A blob is missing or damaged; the store answers.
_ANSWERED = (errno.ENOENT, errno.EBADMSG, errno.EFBIG, errno.ELOOP, errno.EISDIR, errno.ENOTDIR)


class StoreFailed(OSError):
    """A shared cache does not answer when it is asked for a blob."""


class Unusable(Exception):
    """An entry of a shared cache is missing, damaged, or not signed by a trusted key."""


@dataclass(frozen=True)
class SharedCache:
    """The shared caches of one build: those that it reads from, and the one that it writes to.

    Whatever a shared cache has or does costs a note, and then local work.
    """

    sources: Sequence[Store]
    keys: PublicKeys
    target: Store | None = None
    signer: Signer | None = None
    # Stores that have failed are not asked again, be it for an entry or for its files.
    _failed: set[str] = field(default_factory=set, compare=False)

    def entry(self, kind: EntryName, key: str, note: Callable[[str], None]) -> SharedFiles | None:
        """The first trusted entry of this kind and key; notes each that is not to be trusted."""
        for store in self.sources:
            if store.name in self._failed:
                continue
            try:
                envelope = store.entry(kind, key)
                if envelope is not None:
                    return SharedFiles(_opened(self.keys, envelope, kind, key), store, self._failed)
            except Unusable as error:
                note(f"the {kind} {key[:12]} of {store.name} is not used: {error}")
            except OSError as error:
                self._failed.add(store.name)
                note(f"the shared cache {store.name} is not used: {error.strerror or error}")
        return None

    def has_kept(self, kind: EntryName, key: str, identity: str = "") -> SharedEntry | None:
        """The entry of the cache that this build writes to, which it need not write again.

        This build's key has signed it, it has the content with this `identity`, and all of its
        blobs are there: any other entry is written again. This one counts as new from now on.
        Raises OSError.
        """
        assert self.target is not None and self.signer is not None
        envelope = self.target.entry(kind, key)
        if envelope is None:
            return None
        try:
            entry = _opened(self.signer.public, envelope, kind, key)
        except Unusable:
            return None
        if entry.id != identity:
            return None
        blobs = {chunk.blob: chunk.stored for file in entry.files for chunk in file.chunks}
        if not all(self.target.has_blob(digest, size) for digest, size in blobs.items()):
            return None
        self.target.keep_entry(kind, key)
        return entry

    def keep(self, entry: SharedEntry, files: Mapping[str, Path]) -> None:
        """Writes an entry with these files; a blob that the cache has is not sent again.

        Raises OSError, ParticleError.
        """
        assert self.target is not None and self.signer is not None
        stored = tuple(_stored(name, path, self.target) for name, path in files.items())
        whole = entry.model_copy(update={"files": stored})
        envelope = self.signer.envelope(whole.model_dump_json().encode())
        chunks = {chunk.blob: chunk.stored for file in stored for chunk in file.chunks}
        self.target.put_entry(entry.kind, entry.key, envelope, chunks)


def store_of(reference: str) -> Store:
    """The shared cache that file:///DIRECTORY or oci://HOST/REPOSITORY names. Raises UsageError."""
    parts = urllib.parse.urlsplit(reference)
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        return DirectoryStore(Path(urllib.parse.unquote(parts.path)))
    repository = parts.path.removeprefix("/")
    if parts.scheme == "oci" and HOST.fullmatch(parts.netloc) and REPOSITORY.fullmatch(repository):
        return RegistryStore(parts.netloc, repository)
    raise UsageError(
        f"'{reference}' is no shared cache",
        hint="Name a directory (file:///srv/cache) or a repository of a registry "
        "(oci://registry.example.org/team/cache).",
    )


def of_options(
    sources: Sequence[str], keys: Sequence[Path], target: str | None, signer: Path | None
) -> SharedCache | None:
    """The shared caches that a user names; None without any. Raises UsageError."""
    if not sources and target is None:
        return None
    return SharedCache(
        [store_of(reference) for reference in sources],
        PublicKeys.read(keys),
        None if target is None else store_of(target),
        None if signer is None else Signer(signer),
    )


@dataclass(frozen=True)
class SharedFiles:
    """A trusted entry, whose files are still in its store.

    The name of a store that does not answer is added to `failed`.
    """

    entry: SharedEntry
    store: Store
    failed: set[str] = field(default_factory=set, compare=False)

    def fetch(self, directory: Path) -> None:
        """Writes the files of the entry into a directory.

        Raises Unusable for damaged content, and when the store is too slow for their size.
        """
        size = sum(chunk.size for file in self.entry.files for chunk in file.chunks)
        deadline = Deadline.after(FETCH_SECONDS + size / FETCH_BYTES, "the transfer of an entry")
        for file in self.entry.files:
            try:
                _fetch(file, self.store, directory / file.name, deadline)
            except (OSError, ParticleError) as error:
                if isinstance(error, OSError) and error.filename is not None:
                    place = f"{error.filename}: {error.strerror}"
                    raise Unusable(f"its file {file.name} cannot be written: {place}") from error
                if isinstance(error, StoreFailed):
                    self.failed.add(self.store.name)
                why = error.strerror if isinstance(error, OSError) else str(error)
                raise Unusable(f"its file {file.name} is damaged or missing: {why}") from error


def _opened(keys: PublicKeys, envelope: bytes, kind: EntryName, key: str) -> SharedEntry:
    try:
        entry = SharedEntry.model_validate_json(keys.opened(envelope))
    except NotSigned as error:
        raise Unusable(str(error)) from error
    except pydantic.ValidationError as error:
        raise Unusable("another version of particle-os has written it") from error
    if (entry.kind, entry.key) != (kind, key):
        raise Unusable(f"it is the {entry.kind} {printable(entry.key[:12])}")
    return entry


def _fetch(file: SharedFile, store: Store, place: Path, deadline: Deadline) -> None:
    """Writes one file, a chunk at a time; nothing is unpacked before its digest is checked."""
    with place.open("xb+", buffering=0) as made:
        made.truncate(file.size)
        buffer = memoryview(bytearray(CHUNK))
        for chunk, data in _blobs(file.chunks, store, deadline):
            made.seek(chunk.offset)
            if chunk.blob == chunk.sha256:
                write_whole(made.fileno(), data, place)
                continue
            _filter(UNPACK, data, made, chunk.offset + chunk.size, "unpacking a chunk")
            with buffer[: chunk.size] as content:
                if os.preadv(made.fileno(), [content], chunk.offset) < chunk.size:
                    raise OSError(errno.EBADMSG, "a chunk is too short")
                _check(content, chunk.sha256)
        made.truncate(file.size)
        os.utime(made.fileno(), ns=(file.modified_ns, file.modified_ns))


def _blobs(
    chunks: Sequence[SharedChunk], store: Store, deadline: Deadline
) -> Iterator[tuple[SharedChunk, bytes]]:
    """The chunks with their checked blobs. A thread fetches the next one meanwhile."""

    def fetch(chunk: SharedChunk) -> bytes:
        try:
            check_time(deadline)
            data = store.blob(chunk.blob, chunk.stored, deadline)
        except OSError as error:
            kind = OSError if error.errno in _ANSWERED else StoreFailed
            raise kind(error.errno, error.strerror or str(error)) from error
        _check(data, chunk.blob)
        return data

    with ThreadPoolExecutor(1, "shared-chunks") as pool:
        ahead = [pool.submit(fetch, chunk) for chunk in chunks[:1]]
        for number, chunk in enumerate(chunks):
            data = ahead.pop().result()
            ahead += [pool.submit(fetch, after) for after in chunks[number + 1 : number + 2]]
            yield chunk, data


def _check(data: bytes | memoryview, digest: str) -> None:
    if hashlib.sha256(data).hexdigest() != digest:
        raise OSError(errno.EBADMSG, "a chunk has another digest")


def _stored(name: str, path: Path, store: Store) -> SharedFile:
    """Stores the chunks of a file that the store lacks."""
    chunks = []
    with open_regular(path) as file:
        status = os.fstat(file.fileno())
        for offset, data in windows(file.fileno(), status.st_size):
            compressed = _packed(data)
            if len(compressed) >= len(data):
                # A package is compressed already.
                compressed = data
            blob = hashlib.sha256(compressed).hexdigest()
            if not store.has_blob(blob, len(compressed)):
                store.put_blob(blob, compressed)
            chunks.append(
                SharedChunk(
                    offset=offset,
                    size=len(data),
                    sha256=hashlib.sha256(data).hexdigest(),
                    blob=blob,
                    stored=len(compressed),
                )
            )
    return SharedFile(
        name=name, size=status.st_size, modified_ns=status.st_mtime_ns, chunks=tuple(chunks)
    )


def windows(descriptor: int, size: int) -> Iterator[tuple[int, bytes]]:
    """The offset and content of each CHUNK bytes of a file that are not all zeros.

    Where the holes are depends on what the kernel has in memory, so no chunk ends at one: the same
    content always has the same chunks.
    """
    offset = 0
    while offset < size:
        try:
            data = os.lseek(descriptor, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        offset = data // CHUNK * CHUNK
        content = os.pread(descriptor, min(CHUNK, size - offset), offset)
        if content.count(0) < len(content):
            yield offset, content
        offset += CHUNK


def _packed(data: bytes) -> bytes:
    """The compressed content of a chunk."""
    with os.fdopen(os.memfd_create("packed"), "rb+") as made:
        _filter(PACK, data, made, 2 * CHUNK, "packing a chunk")
        made.seek(0)
        return made.read()


def _filter(argv: list[str], data: bytes, output: IO[bytes], limit: int, what: str) -> None:
    """Runs a confined program that reads `data` and writes to a file from its position on.

    The program cannot write beyond `limit` bytes of the file. Files are faster than pipes. Raises
    ParticleError and OSError.
    """
    deadline = Deadline.after(CHUNK_SECONDS, what)
    with os.fdopen(os.memfd_create("data"), "wb+", buffering=0) as given:
        write_whole(given.fileno(), data, "memory")
        given.seek(0)
        within = Confinement(file_size=limit)
        with process.started(
            argv, within=within, stdin=given, stdout=output, stderr=subprocess.DEVNULL
        ) as running:
            try:
                status = process.wait(running, deadline.remaining())
            except subprocess.TimeoutExpired as error:
                raise OSError(errno.ETIMEDOUT, f"{what} takes too long") from error
    if status != 0:
        raise OSError(errno.EIO, f"{argv[0]} failed")
