"""The check of an OSTree system: the version that runs, and what the machine may change."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from particle_agent.contract.options import Options, Text

from particle_os.recipe.checks.base import BaseCheck, Judgement, Reply, Word

CommitChecksum = Annotated[str, Text("the checksum of a commit", r"[0-9a-f]{64}")]
# Prints what is writable or read-only against the rules, and what the first boot did not make.
STATE = """\
for place in / /usr /sysroot; do
	if touch "$place/.particle-os" 2>/dev/null; then
		rm -f "$place/.particle-os"
		echo "$place is writable"
	fi
done
for place in /etc /var; do
	touch "$place/.particle-os" 2>/dev/null || echo "$place is read-only"
	rm -f "$place/.particle-os"
done
[ -s /etc/machine-id ] || echo 'there is no machine ID'
if [ -x /usr/sbin/sshd ]; then
	set -- /etc/ssh/ssh_host_*_key
	[ -e "$1" ] || echo 'there are no SSH host keys'
fi
"""
# ostree-admin-status(1): a line for each deployment, the one that runs with a star, and lines about
# it with more blanks.
RUNNING = re.compile(r"^\* \S+ ([0-9a-f]{64})\.\d+.*\n((?: {3,}.*\n|\n)*)", re.MULTILINE)
GOOD = "Good signature"


@dataclass(frozen=True, kw_only=True)
class ExpectedVersion(Options):
    """The version that must run."""

    ref: Word | None = None
    """The name of the branch that the machine follows."""
    version: str | None = None
    """Its version."""
    commit: CommitChecksum | None = None
    """The checksum of its commit."""
    booted: bool = True
    """Whether a machine that a build boots must run the commit of this build."""
    signed: bool | None = None
    """Whether the commit must have a good signature of the remote's key. By default, it must where
    the stage `ostree` has `sign`, and `remote` verifies."""


@dataclass(frozen=True)
class MadeVersion:
    """The version that will run. `unsigned` is the reason why it has no signature to verify."""

    ref: str
    version: str | None
    unsigned: str | None


def contradictions(wanted: ExpectedVersion, made: MadeVersion) -> Iterator[tuple[str, str, str]]:
    """The expectations that cannot hold: the key, the reason, and what to do."""
    if wanted.ref not in (None, made.ref):
        yield "ref", f"the commit is one of '{made.ref}'", f"write '{made.ref}', or leave it out"
    if wanted.version not in (None, made.version):
        there = "no version" if made.version is None else f"the version '{made.version}'"
        yield "version", f"the commit has {there}", "change one of the two, or leave it out"
    if wanted.signed and made.unsigned is not None:
        yield "signed", made.unsigned, "sign the commit, or leave 'signed' out"


@dataclass(frozen=True, kw_only=True)
class OstreeCheck(BaseCheck):
    """An OSTree system runs the expected version.

    `/`, `/usr` and `/sysroot` are read-only, `/etc` and `/var` are writable, and the machine has an
    ID and SSH host keys, if it has an SSH server.
    """

    kind = "ostree"
    ostree: ExpectedVersion
    """The expected version."""

    def of_build(self, commit: str) -> OstreeCheck:
        """The check within a build, which has made `commit`."""
        if not self.ostree.booted or self.ostree.commit is not None:
            return self
        return replace(self, ostree=replace(self.ostree, commit=commit))

    def verified(self, *, signed: bool) -> OstreeCheck:
        """The check that asks for a signature where it says nothing, if there must be one."""
        if self.ostree.signed is not None:
            return self
        return replace(self, ostree=replace(self.ostree, signed=signed))

    @property
    def name(self) -> str:
        return " ".join(filter(None, ("ostree", self.ostree.ref, self.ostree.version)))

    def asks(self) -> tuple[tuple[str, ...], ...]:
        return (("ostree", "admin", "status"), ("sh", "-c", STATE))

    def judge(self, replies: Sequence[Reply]) -> Judgement:
        status, state = replies
        found = RUNNING.search(status.output + "\n")
        if found is None:
            return Judgement(False, f"no version of OSTree runs: {status.text[-200:]}")
        about = _lines_about(found[2])
        faults = [*self._faults(found[1], about, found[2]), *state.text.splitlines()]
        if state.status != 0:
            faults.append("the state of the system cannot be examined")
        version = about.get("Version", "without a version")
        return Judgement(not faults, "; ".join(faults) or f"{version}, commit {found[1]}")

    def _faults(self, commit: str, about: dict[str, str], text: str) -> Iterator[str]:
        wanted = self.ostree
        ref = about.get("origin refspec", "nothing").rpartition(":")[2]
        if wanted.ref not in (None, ref):
            yield f"the machine follows {ref}"
        version = about.get("Version", "none")
        if wanted.version not in (None, version):
            yield f"the version is {version}"
        if wanted.commit not in (None, commit):
            yield f"the commit is {commit}, not {wanted.commit}"
        if wanted.signed and GOOD not in text:
            yield "the commit has no good signature"


def _lines_about(text: str) -> dict[str, str]:
    """The lines "name: value" about a deployment."""
    pairs = (line.strip().partition(": ") for line in text.splitlines())
    return {name: value for name, colon, value in pairs if colon}
