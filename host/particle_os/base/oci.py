"""The documents that describe a container image: index, manifest and configuration.

The formats are the OCI image specification 1.1 and its predecessor, Docker's image manifest
version 2, schema 2. They differ only in the names of their media types:
https://github.com/opencontainers/image-spec/blob/v1.1.1/spec.md
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, TypeVar

import pydantic

from particle_os.errors import UsageError, printable

# Bytes; registries accept manifests of at most 4 MiB.
DOCUMENT_LIMIT = 4 << 20
LAYERS_LIMIT = 1000
# BuildKit lists statements about an image beside the image.
ATTESTS = "vnd.docker.reference.digest"
# The variants that every processor of an architecture runs.
LOWEST = {"amd64": ("", "v1"), "arm64": ("", "v8"), "arm": ("", "v7")}
_OCI, _DOCKER = "application/vnd.oci.image.", "application/vnd.docker."
INDEXES = {f"{_OCI}index.v1+json", f"{_DOCKER}distribution.manifest.list.v2+json"}
MANIFESTS = {f"{_OCI}manifest.v1+json", f"{_DOCKER}distribution.manifest.v2+json"}
CONFIGS = {f"{_OCI}config.v1+json", f"{_DOCKER}container.image.v1+json"}
LAYERS = {f"{_OCI}layer.v1.tar{c}" for c in ("", "+gzip", "+zstd")}
LAYERS |= {f"{_DOCKER}image.rootfs.diff.tar{c}" for c in ("", ".gzip", ".zstd")}
# Debian's architectures that have other names in Go, and therefore in the documents.
ARCHITECTURES = {"i386": "386", "armhf": "arm", "ppc64el": "ppc64le"}

Digest = Annotated[str, pydantic.StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Size = Annotated[int, pydantic.Field(ge=0, le=1 << 50)]
_D = TypeVar("_D", bound="_Document")


# pydantic's errors in words.
WORDS = MappingProxyType(
    {
        "missing": "is missing",
        "string_type": "is no string",
        "int_type": "is no integer",
        "list_type": "is no list",
        "dict_type": "is no object",
        "model_type": "is no object",
        "model_attributes_type": "is no object",
        "string_pattern_mismatch": "is no digest",
    }
)
AGAIN = "Build or download the image again."


class _Document(pydantic.BaseModel):
    """A JSON document. Unknown keys are ignored; known keys must have the right types."""

    model_config = pydantic.ConfigDict(strict=True, frozen=True, extra="ignore")


class Platform(_Document):
    """The platform of an image; `variant` is a level of the architecture, such as v2."""

    architecture: str
    os: str
    variant: str = ""


class Descriptor(_Document):
    """The description of a blob, which is a document or a layer; `size` is in bytes."""

    media_type: str = pydantic.Field(alias="mediaType")
    digest: Digest
    size: Size
    platform: Platform | None = None
    annotations: dict[str, str] | None = None

    @property
    def name(self) -> str:
        """The name of the image in a layout; empty without one."""
        return (self.annotations or {}).get("org.opencontainers.image.ref.name", "")

    @property
    def is_image(self) -> bool:
        """Whether it is the manifest of an image, and no attestation about another one."""
        return self.media_type in MANIFESTS and ATTESTS not in (self.annotations or {})


class Index(_Document):
    """The images of one name, one for each platform."""

    manifests: list[Descriptor]


class Manifest(_Document):
    """An image: its configuration and its layers, the lowest layer first."""

    config: Descriptor
    layers: list[Descriptor]


class RootFs(_Document):
    """The layers again, as the digests of their uncompressed archives."""

    diff_ids: list[Digest]


class Configuration(_Document):
    """The properties of an image; `config` describes its containers and is not applied."""

    architecture: str
    os: str
    rootfs: RootFs
    variant: str = ""
    config: dict[str, Any] | None = None


@dataclass(frozen=True)
class Layer:
    """A layer: digest and size (bytes) of its blob, and digest of its uncompressed archive."""

    digest: str
    size: int
    diff_id: str


@dataclass(frozen=True)
class ContainerImage:
    """The description of a container image for one architecture, which has Debian's name.

    `digest` is the digest of the manifest. `config` holds the image's settings for containers
    (Env, User, Entrypoint, Labels and so on), which particle-os reports and does not apply.
    `notes` are facts that may surprise the user.
    """

    reference: str
    digest: str
    architecture: str
    layers: tuple[Layer, ...]
    config: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    def size(self) -> int:
        """The size of all layers in bytes."""
        return sum(layer.size for layer in self.layers)


def digest_of(document: bytes) -> str:
    """The digest of a document: "sha256:" and its SHA-256."""
    return f"sha256:{hashlib.sha256(document).hexdigest()}"


def platform_of(architecture: str) -> Platform:
    """The platform that the documents use for Debian's `architecture`."""
    return Platform(architecture=ARCHITECTURES.get(architecture, architecture), os="linux")


def read_index(document: bytes, what: str) -> Index | None:
    """The index in `document`; None for another kind of document.

    Raises UsageError for an invalid document of `what`.
    """
    value = _json(document, what)
    _bound(value, "manifests", what)
    kind = value.get("mediaType")
    if (isinstance(kind, str) and kind in INDEXES) or (kind is None and "manifests" in value):
        return _checked(Index, value, what)
    return None


def choose(index: Index, architecture: str, what: str) -> Descriptor:
    """The manifest for an architecture, or the index below that may have it.

    Among manifests it is the one without a variant, or else with the lowest variant. An only
    manifest needs no platform: its configuration names one. Raises UsageError that names the
    available architectures.
    """
    wanted = platform_of(architecture)
    fitting = [
        (manifest.platform.variant, manifest)
        for manifest in index.manifests
        if manifest.platform is not None
        and (manifest.platform.architecture, manifest.platform.os)
        == (wanted.architecture, wanted.os)
        and (manifest.is_image or manifest.media_type in INDEXES)
    ]
    if fitting:
        # Every processor runs the lowest variant. Among equal variants the first one counts.
        return min(fitting, key=lambda found: (len(found[0]), found[0]))[1]
    images = [m for m in index.manifests if m.is_image]
    below = [m for m in index.manifests if m.media_type in INDEXES and m.platform is None]
    for only in (images, below):
        if len(only) == 1 and only[0].platform is None:
            return only[0]
    found = sorted(
        {_named(m.platform) for m in index.manifests if m.platform and m.platform.os != "unknown"}
    )
    raise UsageError(
        f"{what} is for {', '.join(found) or 'no platform'}, and {architecture} is wanted"
    )


def kind_of(document: bytes, what: str) -> str:
    """The media type of a manifest, by default the one of OCI. Raises UsageError."""
    return str(_json(document, what).get("mediaType", f"{_OCI}manifest.v1+json"))


def read_manifest(document: bytes, what: str) -> Manifest:
    """The manifest in `document`. Raises UsageError for an image that cannot be unpacked."""
    value = _json(document, what)
    kind = kind_of(document, what)
    if kind not in MANIFESTS or value.get("schemaVersion") != 2:
        raise UsageError(
            f"{what} is not an image of a known kind: {printable(kind, 100)}, "
            f"schema {printable(str(value.get('schemaVersion')), 20)}"
        )
    _bound(value, "layers", what)
    manifest = _checked(Manifest, value, what)
    if manifest.config.media_type not in CONFIGS:
        raise UsageError(f"{what} is not a system but {_quoted(manifest.config.media_type)}")
    if manifest.config.size > DOCUMENT_LIMIT:
        raise UsageError(f"{what} has a configuration of {manifest.config.size} bytes")
    if not 1 <= len(manifest.layers) <= LAYERS_LIMIT:
        raise UsageError(f"{what} has {len(manifest.layers)} layers; allowed: 1 to {LAYERS_LIMIT}")
    for layer in manifest.layers:
        if "foreign" in layer.media_type or "nondistributable" in layer.media_type:
            raise UsageError(f"{what} has a foreign layer, which its registry does not hold")
        if layer.media_type not in LAYERS:
            raise UsageError(f"{what} has a layer of an unknown kind: {_quoted(layer.media_type)}")
    return manifest


def read_configuration(document: bytes, what: str) -> Configuration:
    """The configuration in `document`. Raises UsageError for an invalid document of `what`."""
    value = _json(document, what)
    if isinstance(rootfs := value.get("rootfs"), dict):
        _bound(rootfs, "diff_ids", what)
    # In Go, null is an empty string.
    value |= {key: "" for key in ("architecture", "os", "variant") if value.get(key, "") is None}
    return _checked(Configuration, value, what)


def read_image(
    reference: str, digest: str, manifest: Manifest, document: bytes, architecture: str
) -> ContainerImage:
    """The image of a manifest, with the configuration in `document`.

    Raises UsageError when the image has another architecture or contradicts its manifest.
    """
    found = read_configuration(document, reference)
    platform = Platform(architecture=found.architecture, os=found.os)
    wanted = platform_of(architecture)
    # Some tools write no platform. A program of another architecture fails when it is started.
    if (platform.architecture or wanted.architecture, platform.os or wanted.os) != (
        wanted.architecture,
        wanted.os,
    ):
        raise UsageError(f"{reference} is for {_named(platform)}, and {architecture} is wanted")
    diff_ids = found.rootfs.diff_ids
    if len(diff_ids) != len(manifest.layers):
        raise UsageError(
            f"{reference} has {len(manifest.layers)} layers, "
            f"but its configuration lists {len(diff_ids)}"
        )
    layers = tuple(
        Layer(layer.digest, layer.size, diff_id)
        for layer, diff_id in zip(manifest.layers, diff_ids, strict=True)
    )
    return ContainerImage(
        reference, digest, architecture, layers, found.config or {}, tuple(_notes(found, reference))
    )


def _notes(found: Configuration, reference: str) -> Iterator[str]:
    if not found.architecture:
        yield f"{reference} does not say for which architecture it is"
    elif found.variant not in LOWEST.get(found.architecture, (found.variant,)):
        name = f"{found.architecture}/{printable(found.variant, 20)}"
        yield f"{reference} is for {name}: its programs do not run on every {found.architecture}"


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
        raise UsageError(f"{what}: a document is not JSON", hint=AGAIN) from error
    if not isinstance(value, dict):
        raise UsageError(f"{what}: a document is not a JSON object", hint=AGAIN)
    return value


def _bound(value: dict[str, Any], key: str, what: str) -> None:
    """Raises UsageError for a long list, whose items would take long to check."""
    if isinstance(found := value.get(key), list) and len(found) > LAYERS_LIMIT:
        raise UsageError(f"{what}: {key} has {len(found)} items; allowed: at most {LAYERS_LIMIT}")


def _checked(kind: type[_D], value: dict[str, Any], what: str) -> _D:
    try:
        return kind.model_validate(value)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UsageError(
            f"{what}: a document is invalid: {printable(place, 100)} "
            f"{WORDS.get(first['type'], 'has a wrong value')}",
            hint=AGAIN,
        ) from error
