"""References to images in registries (https://github.com/opencontainers/distribution-spec)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from particle_os.errors import UsageError, printable

HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?|\[[0-9a-f:]+\](:[0-9]{1,5})?")
# The names of repositories and tags (distribution-spec, "Pulling manifests").
_PART = "[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*"
REPOSITORY = re.compile(f"(?=.{{1,200}}\\Z){_PART}(?:/{_PART})*")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
SCHEME = "docker://"
LATEST = "latest"


@dataclass(frozen=True)
class RegistryReference:
    """An image in a registry: by its tag, or by its digest; one of them is None."""

    host: str
    repository: str
    tag: str | None
    digest: str | None = None

    @property
    def name(self) -> str:
        """The name without tag and digest, as Kubernetes writes it."""
        return f"{self.host}/{self.repository}"

    @property
    def selector(self) -> str:
        """The tag or the digest."""
        found = self.tag or self.digest
        assert found is not None
        return found

    def at(self, digest: str) -> str:
        """The reference to a digest in the same repository."""
        return f"{SCHEME}{self.name}@{digest}"

    def __str__(self) -> str:
        end = f":{self.tag}" if self.tag else f"@{self.digest}"
        return f"{SCHEME}{self.name}{end}"


def parse_reference(text: str) -> RegistryReference:
    """Parses docker://HOST/REPOSITORY[:TAG|@sha256:DIGEST]; the tag is `latest` without one.

    Raises UsageError.
    """
    rest = text.removeprefix(SCHEME)
    name, at, digest = rest.partition("@")
    host, slash, path = name.partition("/")
    repository, colon, tag = path.partition(":")
    # Docker reads a first part without a dot and a colon as a user of Docker Hub.
    is_host = HOST.fullmatch(host) and (set(".:[") & set(host) or host == "localhost")
    if not text.startswith(SCHEME) or not slash or not is_host:
        raise _wrong(text, "it does not begin with docker://HOST/")
    if not REPOSITORY.fullmatch(repository):
        raise _wrong(text, "its repository is no path of small letters and digits")
    if at:
        if not DIGEST.fullmatch(digest):
            raise _wrong(text, "what follows the '@' is no digest sha256:…")
        return RegistryReference(host, repository, None, digest)
    if colon and not TAG.fullmatch(tag):
        raise _wrong(text, "what follows the ':' is no tag")
    return RegistryReference(host, repository, tag or LATEST)


def _wrong(text: str, why: str) -> UsageError:
    return UsageError(
        f"'{printable(text, 300)}' is no image in a registry: {why}",
        hint="Write docker://HOST/REPOSITORY:TAG, such as "
        "docker://registry.example.org/team/server:1.2; for Docker Hub, "
        "docker://docker.io/USER/NAME.",
    )
