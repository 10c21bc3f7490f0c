"""The documents that describe a container image: index, manifest and configuration.

The formats are those of the OCI image specification 1.1 and their forerunners of Docker (image
manifest version 2, schema 2), which differ in the names of their media types only:
https://github.com/opencontainers/image-spec/blob/v1.1.1/spec.md
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import pydantic

from particle_os.errors import UsageError, printable

# Bytes; registries take manifests of 4 MiB at most.
DOCUMENT_LIMIT = 4 << 20
LAYERS_LIMIT = 1000
_OCI, _DOCKER = "application/vnd.oci.image.", "application/vnd.docker."
INDEXES = {f"{_OCI}index.v1+json", f"{_DOCKER}distribution.manifest.list.v2+json"}
MANIFESTS = {f"{_OCI}manifest.v1+json", f"{_DOCKER}distribution.manifest.v2+json"}
CONFIGS = {f"{_OCI}config.v1+json", f"{_DOCKER}container.image.v1+json"}
LAYERS = {f"{_OCI}layer.v1.tar{c}" for c in ("", "+gzip", "+zstd")}
LAYERS |= {f"{_DOCKER}image.rootfs.diff.tar{c}" for c in ("", ".gzip", ".zstd")}
# Debian's architectures that Go, and so the documents, name in another way.
ARCHITECTURES = {"i386": "386", "armhf": "arm", "ppc64el": "ppc64le"}

Digest = Annotated[str, pydantic.StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Size = Annotated[int, pydantic.Field(ge=0, le=1 << 50)]
_D = TypeVar("_D", bound="_Document")


class _Document(pydantic.BaseModel):
    """What else stands in a document is ignored; what is read must have the right type."""

    model_config = pydantic.ConfigDict(strict=True, frozen=True, extra="ignore")


class Platform(_Document):
    """What an image of an index runs on; a `variant` of the architecture is one of its levels."""

    architecture: str
    os: str
    variant: str = ""


class Descriptor(_Document):
    """A blob: a document or a layer; `size` in bytes."""

    media_type: str = pydantic.Field(alias="mediaType")
    digest: Digest
    size: Size
    platform: Platform | None = None


class Index(_Document):
    """The images of one name, one a platform."""

    manifests: list[Descriptor]


class Manifest(_Document):
    """An image: its configuration, and its layers, the lowest first."""

    config: Descriptor
    layers: list[Descriptor]


class RootFs(_Document):
    """The layers once more: the digests of their archives without compression."""

    diff_ids: list[Digest]


class Configuration(_Document):
    """What the image is; `config` is how a container of it runs, which nothing here applies."""

    architecture: str
    os: str
    rootfs: RootFs
    config: dict[str, Any] | None = None


@dataclass(frozen=True)
class Layer:
    """A layer: the digest and size (bytes) of its blob, the digest of its plain tar archive."""

    digest: str
    size: int
    diff_id: str


@dataclass(frozen=True)
class ContainerImage:
    """A container image for one architecture (by Debian's name), found but not fetched.

    `digest` is that of its manifest. `config` is what the image says of its containers (Env,
    User, Entrypoint, Labels and so on): words of its author, none of which are applied.
    """

    reference: str
    digest: str
    architecture: str
    layers: tuple[Layer, ...]
    config: Mapping[str, Any]

    def size(self) -> int:
        """The bytes of all layers."""
        return sum(layer.size for layer in self.layers)


def digest_of(document: bytes) -> str:
    """ "sha256:" and the SHA-256."""
    return f"sha256:{hashlib.sha256(document).hexdigest()}"


def platform_of(architecture: str) -> Platform:
    """What the documents call a system of Debian's `architecture`."""
    return Platform(architecture=ARCHITECTURES.get(architecture, architecture), os="linux")


def read_index(document: bytes, what: str) -> Index | None:
    """The index in `document`; None when it is something else. Raises UsageError."""
    value = _json(document, what)
    kind = value.get("mediaType")
    if (isinstance(kind, str) and kind in INDEXES) or (kind is None and "manifests" in value):
        return _checked(Index, value, what)
    return None


def choose(index: Index, architecture: str, what: str) -> Descriptor:
    """The manifest for an architecture: the plain one, or that of its lowest variant.

    Raises UsageError naming the architectures that there are.
    """
    wanted = platform_of(architecture)
    fitting = [
        (manifest.platform.variant, manifest)
        for manifest in index.manifests
        if manifest.platform is not None
        and (manifest.platform.architecture, manifest.platform.os)
        == (wanted.architecture, wanted.os)
        and manifest.media_type in MANIFESTS
    ]
    if fitting:
        # v1, v2 and so on: all run what the lowest asks for. Of the same the first counts.
        return min(fitting, key=lambda found: (len(found[0]), found[0]))[1]
    found = sorted(
        {_named(m.platform) for m in index.manifests if m.platform and m.platform.os != "unknown"}
    )
    raise UsageError(
        f"{what} is for {', '.join(found) or 'no platform'}, but the recipe wants {architecture}"
    )


def kind_of(document: bytes, what: str) -> str:
    """The media type of a manifest; it may leave out that of its own format. Raises UsageError."""
    return str(_json(document, what).get("mediaType", f"{_OCI}manifest.v1+json"))


def read_manifest(document: bytes, what: str) -> Manifest:
    """The manifest in `document`. Raises UsageError unless all of it can be unpacked."""
    value = _json(document, what)
    kind = kind_of(document, what)
    if kind not in MANIFESTS or value.get("schemaVersion") != 2:
        raise UsageError(
            f"{what} is no image of a kind that is known: {printable(kind, 100)}, "
            f"schema {printable(str(value.get('schemaVersion')), 20)}"
        )
    manifest = _checked(Manifest, value, what)
    if manifest.config.media_type not in CONFIGS:
        raise UsageError(f"{what} is no system but {_quoted(manifest.config.media_type)}")
    if manifest.config.size > DOCUMENT_LIMIT:
        raise UsageError(f"{what} has a configuration of {manifest.config.size} bytes")
    if not 1 <= len(manifest.layers) <= LAYERS_LIMIT:
        raise UsageError(f"{what} has {len(manifest.layers)} layers; 1 to {LAYERS_LIMIT} can be")
    for layer in manifest.layers:
        if "foreign" in layer.media_type or "nondistributable" in layer.media_type:
            raise UsageError(f"{what} has a foreign layer, which its registry does not hold")
        if layer.media_type not in LAYERS:
            raise UsageError(f"{what} has a layer of an unknown kind: {_quoted(layer.media_type)}")
    return manifest


def read_image(
    reference: str, digest: str, manifest: Manifest, document: bytes, architecture: str
) -> ContainerImage:
    """The image of a manifest and its configuration, in `document`.

    Raises UsageError when it is for another architecture or is not consistent.
    """
    found = _checked(Configuration, _json(document, reference), reference)
    platform = Platform(architecture=found.architecture, os=found.os)
    if platform != platform_of(architecture):
        raise UsageError(
            f"{reference} is for {_named(platform)}, but the recipe wants {architecture}"
        )
    diff_ids = found.rootfs.diff_ids
    if len(diff_ids) != len(manifest.layers):
        raise UsageError(
            f"{reference} has {len(manifest.layers)} layers, "
            f"but its configuration tells of {len(diff_ids)}"
        )
    layers = tuple(
        Layer(layer.digest, layer.size, diff_id)
        for layer, diff_id in zip(manifest.layers, diff_ids, strict=True)
    )
    return ContainerImage(reference, digest, architecture, layers, found.config or {})


def _named(platform: Platform) -> str:
    debian = {go: name for name, go in ARCHITECTURES.items()}
    name = printable(debian.get(platform.architecture, platform.architecture), 40)
    return name if platform.os == "linux" else f"{name} ({printable(platform.os, 40)})"


def _quoted(text: str) -> str:
    return f"'{printable(text, 100)}'"


def _json(document: bytes, what: str) -> dict[str, Any]:
    if len(document) > DOCUMENT_LIMIT:
        raise UsageError(f"{what}: a document is larger than {DOCUMENT_LIMIT >> 20} MiB")
    try:
        value = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{what}: a document is not JSON") from error
    if not isinstance(value, dict):
        raise UsageError(f"{what}: a document is no JSON object")
    return value


def _checked(kind: type[_D], value: dict[str, Any], what: str) -> _D:
    try:
        return kind.model_validate(value)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UsageError(
            f"{what}: a document is not as it should be: {printable(place, 100)}: {first['msg']}"
        ) from error
