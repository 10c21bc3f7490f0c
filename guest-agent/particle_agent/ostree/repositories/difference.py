"""The facts about a commit, and its difference to the parent in packages and files."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator

from particle_agent.contract import wire
from particle_agent.contract.decode import encode
from particle_agent.contract.inspection import NAMED, ChangedFiles, ChangedPackage, CommitFacts
from particle_agent.ostree.repositories.commit_record import CommitRecord, workshop
from particle_agent.ostree.repositories.repository import OstreeRepository
from particle_agent.target.target import Target

# dpkg's database in a commit, and the fields of an installed package.
STATUS = "/usr/share/dpkg/database/status"
FIELD = re.compile(r"^(Package|Architecture|Version|Status): *(.*)$", re.MULTILINE)
# A line of `ostree diff`.
LINE = re.compile(r"([AMD]) +(/.*)")
NAME_CHARACTERS = 500


def write(target: Target, record: CommitRecord, repository: OstreeRepository) -> None:
    """Writes the facts for the host. The repository has the commit, and its parent if any."""
    facts = CommitFacts(
        ref=record.ref,
        checksum=record.checksum,
        parent=record.parent,
        version=record.version,
        signer=record.signer,
    )
    if record.parent is not None:
        packages = list(_packages(repository, record.parent, record.checksum))
        facts = CommitFacts(
            **vars(facts)
            | {
                "packages": tuple(packages[:NAMED]),
                "packages_total": len(packages),
                "files": _files(repository, record.parent, record.checksum),
            }
        )
    (workshop(target) / wire.COMMIT_FACTS_NAME).write_text(json.dumps(encode(facts)))


def _packages(repository: OstreeRepository, parent: str, checksum: str) -> Iterator[ChangedPackage]:
    before, after = (_installed(repository.file(each, STATUS)) for each in (parent, checksum))
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old != new:
            yield ChangedPackage(name=name, before=old, after=new)


def _installed(status: str) -> dict[str, str]:
    """The versions of the installed packages in a status file of dpkg, by name."""
    found = {}
    for stanza in status.split("\n\n"):
        fields = {match[1]: match[2][:NAME_CHARACTERS] for match in FIELD.finditer(stanza)}
        if fields.get("Status", "").endswith(" installed") and "Package" in fields:
            name = f"{fields['Package']}:{fields.get('Architecture', '')}"
            found[name] = fields.get("Version", "")
    return found


def _files(repository: OstreeRepository, parent: str, checksum: str) -> ChangedFiles:
    kinds: Counter[str] = Counter()
    names: list[str] = []
    for line in repository.difference(parent, checksum).splitlines():
        if found := LINE.fullmatch(line):
            kinds[found[1]] += 1
            if len(names) < NAMED:
                names.append(found[2][:NAME_CHARACTERS])
    return ChangedFiles(
        added=kinds["A"], changed=kinds["M"], removed=kinds["D"], names=tuple(names)
    )
