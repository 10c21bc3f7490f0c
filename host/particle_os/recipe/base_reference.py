"""References to base images: the transports of containers-transports(5), and Debian suites.

There is one more kind: commits of OSTree repositories.
"""

from __future__ import annotations

import re
from typing import Annotated, get_args

from particle_agent.contract.options import Text

from particle_os.errors import UsageError
from particle_os.recipe.commits.reference import COMMIT, commit_of, is_commit

# The names of the OCI distribution specification: [HOST[:PORT]/]NAME[:TAG|@DIGEST].
_IMAGE = (
    r"(([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(:[0-9]{1,5})?/)?"
    r"[a-z0-9]+([._/-]+[a-z0-9]+)*"
    r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}|@sha256:[0-9a-f]{64})?"
)
BaseReference = Annotated[
    str,
    Text(
        "a base image: 'mmdebstrap:SUITE', 'tar:PATH', 'docker://NAME', 'oci:DIRECTORY', "
        "'oci-archive:PATH', 'docker-archive:PATH' or 'ostree:REPOSITORY#REF'",
        r"mmdebstrap:[a-z][a-z0-9-]*|(tar|oci|oci-archive|docker-archive|ostree):[^\x00-\x1f\x7f]+"
        rf"|docker://{_IMAGE}",
        4096,
        meant=lambda reference: meant_base(reference),
    ),
]
# The suites whose packages the stages know.
SUITES = ("bookworm", "trixie", "forky", "sid", "oldstable", "stable", "testing", "unstable")
OTHER_SUITES = ("bullseye",)
_ARCHIVE = re.compile(r"\.(tar(\.(gz|xz|zst))?|tgz)$")
# The name that builds give to a published repository.
_REPOSITORY = re.compile(r"\.ostree\.tar$")
_IN_REGISTRY = re.compile(r"(docker://[^@]*?)([:@][^/]*)?")
_WITH_SLASHES = re.compile(r"(docker|mmdebstrap):/*(.+)")
# containers-transports(5) does not allow a tag and a digest together; the digest is sufficient.
_TAG_BEFORE_DIGEST = re.compile(r":[A-Za-z0-9_][A-Za-z0-9_.-]*(?=@sha256:[0-9a-f]{64}$)")
# Transports of containers-transports(5) that particle-os does not support for bases.
_OTHER_TRANSPORTS = re.compile("(containers-storage|dir|docker-daemon|sif):")


def check_base_reference(reference: str, where: str = "--base") -> None:
    """Raises UsageError unless `reference` (from the command line) names a base image."""
    constraint = _constraint()
    if not constraint.accepts(reference):
        near = meant_base(reference)
        if near and near.lower() == reference.lower():
            raise UsageError(
                f"{where}: the name of a repository has no capital letters, found '{reference}'",
                hint=f"Write {near}.",
            )
        hint = f"did you mean '{near}'?" if near else None
        raise UsageError(f"{where}: expected {constraint.what}, found '{reference}'", hint=hint)
    if is_commit(reference):
        commit_of(reference)


def meant_base(reference: str) -> str | None:
    """The base image that the user probably meant by a text that is no valid reference."""
    if _OTHER_TRANSPORTS.match(reference):
        return None
    if _REPOSITORY.search(reference.partition("#")[0]):
        return f"{COMMIT}{reference}" if "#" in reference else None
    if found := _WITH_SLASHES.fullmatch(reference):
        kind, name = found.groups()
        candidate = f"{kind}{'://' if kind == 'docker' else ':'}{name}"
    elif reference in (*SUITES, *OTHER_SUITES):
        candidate = f"mmdebstrap:{reference}"
    elif _ARCHIVE.search(reference):
        candidate = f"tar:{reference}"
    elif ":" in reference or "/" in reference:
        candidate = f"docker://{reference}"
    else:
        return None
    candidate = _in_lower_case(_TAG_BEFORE_DIGEST.sub("", candidate))
    return candidate if _constraint().accepts(candidate) else None


def _in_lower_case(reference: str) -> str:
    """The reference of an image with the name in lower case, as repositories have it."""
    found = _IN_REGISTRY.fullmatch(reference)
    return f"{found[1].lower()}{found[2] or ''}" if found else reference


def _constraint() -> Text:
    constraint: Text = get_args(BaseReference)[1]
    return constraint
