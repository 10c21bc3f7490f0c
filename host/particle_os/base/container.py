"""Container images: resolves references, and fetches layers into the user's cache.

skopeo talks to registries and reads archives, as the user and with the user's credentials and
certificates. The cache keeps manifests, configurations and layers by their digests in
`images/sha256/HEX`, so images share layers and each layer is fetched once. The host neither
decompresses nor unpacks a layer.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from particle_os.apt.transfer import size_of, watched
from particle_os.base import docker_archive, oci, skopeo
from particle_os.base.layers import blob, missing_layers
from particle_os.base.layout import Layout
from particle_os.base.oci import ContainerImage, Layer
from particle_os.errors import InfrastructureError, NotEnoughSpace, UsageError, printable
from particle_os.system import process
from particle_os.system.deadline import Deadline
from particle_os.system.regular_file import read_regular
from particle_os.system.workspace import Workspace, locked, need_room, workspace

TRANSPORTS = ("docker:", "oci:", "oci-archive:", "docker-archive:")
DESCRIBE_SECONDS = 300.0
# An index may list other indexes.
INDEX_DEPTH = 4
FETCH_SECONDS = 1800.0
# Bytes of any file of skopeo's that is no layer.
SLACK = 16 << 20
_REFERENCE = re.compile(r"(?P<name>.*?)(?P<selector>[:@][^/@]*)?")
_HOST = re.compile(r"//(\[[^]]*\]|[^/:]*)(:[0-9]+)?/.*")
# The last line of a failing skopeo. Its library logrus quotes strings as Go does.
_FATAL = re.compile(r'level=fatal msg="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class ImageReference:
    """The source of an image, in the terms of containers-transports(5).

    `name` excludes the tag and the digest; for a file, it is the absolute path. `selector` is the
    tag or the digest, including the ":" or "@" before it.
    """

    transport: str
    name: str
    selector: str = ""

    def __str__(self) -> str:
        return f"{self.transport}:{self.name}{self.selector}"

    @property
    def remote(self) -> bool:
        return self.transport == "docker"

    @property
    def insecure(self) -> bool:
        """Whether the registry runs on this host, so that the connection needs no TLS."""
        host = _HOST.fullmatch(self.name) if self.remote else None
        if host is None:
            return False
        try:
            return host[1] == "localhost" or ipaddress.ip_address(host[1].strip("[]")).is_loopback
        except ValueError:
            return False

    @property
    def digest(self) -> str | None:
        """The digest in the reference; None for a reference by tag."""
        return self.selector[1:] if self.selector.startswith("@") else None

    def layout(self, deadline: Deadline) -> Layout | None:
        """The OCI image layout; None for a registry or an archive of Docker."""
        if self.transport not in ("oci", "oci-archive"):
            return None
        return Layout(Path(self.name), self.transport == "oci-archive", str(self), deadline)

    def at(self, digest: str) -> ImageReference:
        """The reference to the manifest `digest`, in case a registry has moved the tag."""
        return ImageReference(self.transport, self.name, f"@{digest}") if self.remote else self


def parse(reference: str, relative_to: Path) -> ImageReference | None:
    """Parses the reference of a container image; returns None for other kinds of bases.

    Raises UsageError when the file or directory does not exist.
    """
    if not reference.startswith(TRANSPORTS):
        return None
    transport, _, rest = reference.partition(":")
    if transport == "docker":
        found = _REFERENCE.fullmatch(rest)
        assert found is not None
        _check_case(reference, found["name"])
        return ImageReference(transport, found["name"], found["selector"] or "")
    given, colon, selector = rest.partition(":")
    path = (relative_to / given).absolute()
    if ":" in str(path):
        raise UsageError(f"the path {path} contains a colon, which ends a path in {transport}:")
    there = (path / "oci-layout").is_file() if transport == "oci" else path.is_file()
    if not there:
        raise _not_there(reference, transport, path)
    return ImageReference(transport, str(path), f"{colon}{selector}")


def _not_there(reference: str, transport: str, path: Path) -> UsageError:
    """The error for a path that is missing, or of another kind than the transport reads."""
    if not path.exists():
        return UsageError(
            f"the base image {reference} does not exist: there is no {path}",
            hint="Correct the path: it is relative to the directory of the recipe.",
        )
    if path.is_dir() and transport == "oci":
        return UsageError(f"{reference} is no OCI image layout: it has no file oci-layout")
    if path.is_dir():
        return UsageError(
            f"{reference}: {path} is a directory",
            hint=f"Write oci: in place of {transport}: if it is an OCI image layout.",
        )
    return UsageError(
        f"{reference}: {path} is no directory",
        hint="Write oci-archive: or docker-archive: in place of oci:.",
    )


def _check_case(reference: str, name: str) -> None:
    """Raises UsageError for a repository with capital letters, which no registry has."""
    host, _, path = name.removeprefix("//").partition("/")
    # A first part without a dot and a colon is no host.
    repository = path if path and (set(".:") & set(host) or host == "localhost") else name
    if repository != repository.lower():
        right = reference.replace(repository, repository.lower(), 1)
        raise UsageError(
            f"{reference}: the name of a repository has no capital letters",
            hint=f"Write {right}.",
        )


def describe(reference: str, relative_to: Path, architecture: str, cache: Path) -> ContainerImage:
    """The image that `reference` names now, for a Debian architecture. Fetches no layer.

    A tag always needs a query of the registry; documents with a known digest come from the cache.
    Raises UsageError when the image does not exist or cannot be unpacked, and InfrastructureError
    when skopeo fails.
    """
    source = parse(reference, relative_to)
    if source is None:
        raise UsageError(f"{reference} is no container image")
    deadline = Deadline.after(DESCRIBE_SECONDS, f"looking up {reference}")
    with workspace() as work:
        skopeo.command(architecture, work)
        look = _Look(source, architecture, cache / "images", work, deadline)
        digest, document = look.top()
        for _ in range(INDEX_DEPTH):
            if (index := oci.read_index(document, reference)) is None:
                break
            digest = oci.choose(index, architecture, reference).digest
            document = look.manifest(digest)
        else:
            if oci.read_index(document, reference) is not None:
                raise UsageError(
                    f"{reference}: its indexes are nested more than {INDEX_DEPTH} deep",
                    hint=oci.AGAIN,
                )
        manifest = oci.read_manifest(document, reference)
        configuration = look.configuration(manifest.config.digest, digest)
    return oci.read_image(reference, digest, manifest, configuration, architecture)


@dataclass(frozen=True)
class _Look:
    """One search for the documents of an image; `store` caches documents by their digests."""

    source: ImageReference
    architecture: str
    store: Path
    work: Workspace
    deadline: Deadline

    def top(self) -> tuple[str, bytes]:
        """The manifest or index that the reference names, and its digest."""
        if (digest := self.source.digest) is not None:
            return digest, self.manifest(digest)
        if layout := self.source.layout(self.deadline):
            digest = layout.named(self.source.selector[1:], self.architecture).digest
            return digest, self.manifest(digest)
        document = self._inspect(self.source, "--raw")
        digest = oci.digest_of(document)
        return digest, self._kept(digest, lambda: document)

    def manifest(self, digest: str) -> bytes:
        def find() -> bytes:
            if layout := self.source.layout(self.deadline):
                return layout.document(digest)
            return self._inspect(self.source.at(digest), "--raw")

        return self._kept(digest, find)

    def configuration(self, digest: str, manifest: str) -> bytes:
        def find() -> bytes:
            if layout := self.source.layout(self.deadline):
                return layout.document(digest)
            return self._inspect(self.source.at(manifest), "--config", "--raw")

        return self._kept(digest, find)

    def _inspect(self, source: ImageReference, *options: str) -> bytes:
        insecure = ["--tls-verify=false"] if source.insecure else []
        argv = [
            *skopeo.command(self.architecture, self.work),
            "inspect",
            *options,
            *insecure,
            str(source),
        ]
        what = f"looking up {source}"
        try:
            return process.capture(
                argv,
                deadline=self.deadline,
                what=what,
                limit=oci.DOCUMENT_LIMIT,
                within=skopeo.confinement(
                    self.work,
                    _local(source),
                    # Only of an archive does skopeo unpack layers here.
                    file_size=oci.DOCUMENT_LIMIT if source.remote else None,
                ),
                env=skopeo.environment(self.work),
            )
        except InfrastructureError as error:
            if source.transport == "docker-archive":
                docker_archive.explain(Path(source.name), source.selector, self.deadline)
            raise _explained(error, f"{source} cannot be read", source) from error

    def _kept(self, digest: str, find: Callable[[], bytes]) -> bytes:
        """The document of a digest, from the cache or from `find`; caches it."""
        place = blob(self.store, digest)
        with suppress(OSError):
            document = read_regular(place, oci.DOCUMENT_LIMIT)
            if oci.digest_of(document) == digest:
                os.utime(place)
                return document
        document = find()
        if oci.digest_of(document) != digest:
            raise UsageError(
                f"{self.source} is damaged: a document does not have the digest {digest}",
                hint=oci.AGAIN,
            )
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = self.work.path / place.name
        fresh.write_bytes(document)
        fresh.rename(place)
        return document


def fetch(
    image: ContainerImage,
    source: ImageReference,
    *,
    cache: Path,
    work: Workspace,
    deadline: Deadline,
    log: Callable[[str], None],
) -> None:
    """Fetches the missing layers into the cache; skopeo checks their digests.

    A lock makes concurrent callers fetch each layer once. `work` holds temporary files. Raises
    InfrastructureError when skopeo fails.
    """
    store = cache / "images"
    deadline = deadline.sooner(FETCH_SECONDS, f"fetching {image.reference}")
    with locked(store / ".lock", deadline):
        missing = missing_layers(image, store)
        if not missing:
            return
        total = sum(layer.size for layer in missing)
        need_room(store, 2 * total, "the container image")
        for layer in missing:
            # skopeo does not check the content of a file that exists.
            blob(store, layer.digest).unlink(missing_ok=True)
        insecure = ["--src-tls-verify=false"] if source.insecure else []
        place = [str(source.at(image.digest))]
        if layout := source.layout(deadline):
            # The layout for skopeo has this image only, so that skopeo does not choose.
            only, blobs = layout.of_one_image(image.digest, missing, work.path / "only")
            place = [f"--src-shared-blob-dir={blobs}", f"oci:{only}"]
        arriving = [work.path / "image", *(blob(store, layer.digest) for layer in missing)]
        try:
            with watched(lambda: size_of(arriving), lambda: total, log):
                process.run(
                    [
                        *skopeo.command(image.architecture, work),
                        "copy",
                        *insecure,
                        f"--dest-shared-blob-dir={store}",
                        # Without this option skopeo compresses them, which changes their digests.
                        "--dest-oci-accept-uncompressed-layers",
                        *place,
                        f"oci:{work.path}/image:base",
                    ],
                    deadline=deadline,
                    what=deadline.what,
                    log=log,
                    within=skopeo.confinement(
                        work, _local(source), store, file_size=_most(source, missing)
                    ),
                    env=skopeo.environment(work),
                )
        except NotEnoughSpace:
            raise
        except InfrastructureError as error:
            raise _explained(error, f"{image.reference} cannot be fetched", source) from error
        if missing_layers(image, store):
            raise InfrastructureError(
                f"{image.reference} changed while it was fetched", hint="Build again."
            )


def _most(source: ImageReference, layers: Sequence[Layer]) -> int | None:
    """The bytes of the largest file that skopeo needs; None if it unpacks a whole archive."""
    if source.transport == "docker-archive":
        return None
    return max(layer.size for layer in layers) + SLACK


def _local(source: ImageReference) -> list[Path]:
    return [] if source.remote else [Path(source.name)]


def _explained(
    error: InfrastructureError, brief: str, source: ImageReference
) -> InfrastructureError:
    """The error with the message of skopeo, if skopeo has printed one."""
    messages = [match[1] for line in error.tail if (match := _FATAL.search(line))]
    if not messages:
        return error
    reason = printable(messages[-1].replace('\\"', '"'))
    more = "If the registry requires credentials, run 'skopeo login'."
    if not source.remote:
        more = "Check that the files are complete, for example with 'skopeo inspect'."
    return InfrastructureError(f"{brief}: {reason}", hint=f"Check the reference. {more}")
