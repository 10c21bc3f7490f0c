"""The entry of a shared cache: the files of a helper, base, checkpoint or package, in chunks."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic

from particle_os.records import Record

# Bytes of a chunk before its compression, and of all files of an entry.
CHUNK = 16 << 20
FILES_LIMIT, CHUNKS_LIMIT, SIZE_LIMIT = 16, 1 << 16, 1 << 40

EntryName = Literal["helper", "base", "checkpoint", "package", "result"]
HexDigest = Annotated[str, pydantic.StringConstraints(pattern=r"^[0-9a-f]{64}$")]
ByteCount = Annotated[int, pydantic.Field(ge=0, le=SIZE_LIMIT)]


class SharedChunk(Record):
    """Bytes of a file that are not all zeros: `size` of them at `offset`.

    `blob` is the SHA-256 of the compressed chunk, which has `stored` bytes; `sha256` is that of the
    bytes themselves. Both are equal if the chunk is stored as it is.
    """

    offset: ByteCount
    size: Annotated[int, pydantic.Field(gt=0, le=CHUNK)]
    sha256: HexDigest
    blob: HexDigest
    stored: Annotated[int, pydantic.Field(gt=0, le=2 * CHUNK)]


class SharedFile(Record):
    """A file: its name, its size in bytes, and its chunks, in their order; the rest are zeros.

    `modified_ns` is the time of its last change, which keys and checkpoints name.
    """

    name: Annotated[str, pydantic.StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    size: ByteCount
    modified_ns: Annotated[int, pydantic.Field(ge=0, lt=1 << 63)]
    chunks: Annotated[tuple[SharedChunk, ...], pydantic.Field(max_length=CHUNKS_LIMIT)]

    @pydantic.model_validator(mode="after")
    def _in_order(self) -> SharedFile:
        end = 0
        for chunk in self.chunks:
            if chunk.offset < end or chunk.offset + chunk.size > self.size:
                raise ValueError("chunks overlap, or do not fit the file")
            end = chunk.offset + chunk.size
        return self


class SharedEntry(Record):
    """A signed entry. The kind and the key are in it, so that no entry passes for another one.

    `created` is in seconds since 1970. `label` is for people. `id` identifies the content, where
    the key does not: of a helper, a base and a checkpoint. `parent` is the `id` of the checkpoint
    below, and `network` says that a checkpoint contains data from the network.
    """

    version: Literal[1] = 1
    kind: EntryName
    key: Annotated[str, pydantic.StringConstraints(pattern=r"^[0-9a-f]{32,64}$")]
    created: Annotated[float, pydantic.Field(ge=0, allow_inf_nan=False)]
    label: Annotated[str, pydantic.StringConstraints(max_length=200)] = ""
    id: Annotated[str, pydantic.StringConstraints(max_length=64)] = ""
    network: bool = False
    parent: Annotated[str, pydantic.StringConstraints(max_length=64)] | None = None
    files: Annotated[tuple[SharedFile, ...], pydantic.Field(max_length=FILES_LIMIT)] = ()
