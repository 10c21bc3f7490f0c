"""`make debian-facts` writes the assumptions of this program about Debian's packages.

The assumptions are the packages that bring others (particle_agent/contract/debian.py) and the
scripts that stand-ins know (particle_agent/shortcuts/known_scripts.py). Earlier scripts stay in the
list, because an image may get an older package than the newest one of its suite.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path

from particle_agent.shortcuts import known_scripts

from tests.debian import SUITES, Suite

AGENT = Path(__file__).parents[1] / "guest-agent/particle_agent"
KERNELS = ("linux-image-amd64", "linux-image-cloud-amd64")
# Stages need these packages, and few packages bring them.
FEW = (
    "locales", "sudo", "systemd-resolved", "systemd-repart", "systemd-boot", "systemd-ukify",
    "grub-pc-bin", "grub-efi-amd64-bin", "grub2-common", "shim-signed", "grub-efi-amd64-signed",
    "systemd-boot-efi-amd64-signed", "btrfs-progs", "xfsprogs", "dosfstools", "cloud-guest-utils",
)  # fmt: skip
# Most packages bring these, so the generated file lists the packages that do not, by the name of
# the need. Only released suites count, because their dependencies do not change.
MANY = {
    "package tzdata": ("tzdata",),
    "package init": ("init", "systemd-sysv", "sysvinit-core", "runit-init"),
}
RELEASED = ("bookworm", "trixie")
# The packages that recipes name most often. The first pattern that matches a name counts.
COMMON = (
    "linux-image-*-template", "linux-image-*", "systemd", "systemd-sysv", "systemd-resolved",
    "systemd-timesyncd", "systemd-boot", "systemd-boot-efi", "systemd-repart", "systemd-ukify",
    "init", "dbus",
    "locales", "tzdata", "sudo", "openssh-server", "openssh-client", "ca-certificates", "curl",
    "less", "vim", "vim-tiny", "nano", "zstd", "initramfs-tools", "grub-pc", "grub-pc-bin",
    "grub-efi-amd64", "grub-efi-amd64-bin", "grub-efi-amd64-signed", "grub-cloud-amd64",
    "grub2-common", "shim-signed", "xfsprogs", "btrfs-progs", "cloud-guest-utils", "nginx",
    "nginx-*", "python3", "python3-pip", "python3-venv", "git", "wget", "htop", "tmux", "rsync",
    "jq", "zip", "unzip", "xz-utils", "gnupg", "iproute2", "iputils-ping", "netbase",
    "bash-completion", "file", "lsof", "strace", "procps", "psmisc", "make", "gcc",
    "build-essential", "parted", "gdisk", "dosfstools", "nftables", "sqlite3",
)  # fmt: skip


# Packages whose units have aliases that people use.
WITH_ALIASES = (
    "openssh-server", "rsyslog", "mariadb-server", "network-manager", "bluez", "avahi-daemon",
    "lightdm", "sddm", "gdm3", "chrony", "ntpsec", "openntpd", "systemd", "systemd-timesyncd",
    "systemd-resolved", "redis-server", "bind9", "nfs-kernel-server", "dbus-broker",
)  # fmt: skip
HEAD = '"""{}\n\n`make debian-facts` writes this file.\n"""\n\n'
RECIPE = Path(__file__).parents[1] / "host/particle_os/recipe"
UNITS, USER_UNITS = RECIPE / "units.txt", RECIPE / "user_units.txt"
UNIT = re.compile(
    r"(?:usr/)?lib/systemd/system/([^/]+\.(?:service|socket|timer|path|target|mount|automount|slice))"
    r"|etc/init\.d/([^/]+)"
)
USER_UNIT = re.compile(r"(?:usr/)?lib/systemd/user/([^/]+\.(?:service|socket|timer|path|target))()")


def bringers(paragraphs: Iterable[Mapping[str, str]], goals: Iterable[str]) -> set[str]:
    """The packages that bring one of `goals` through any alternative of their dependencies."""
    above: dict[str, set[str]] = {}
    provided: dict[str, set[str]] = {}
    for fields in paragraphs:
        relations = f"{fields.get('Pre-Depends', '')}, {fields.get('Depends', '')}"
        for name in re.findall(r"(?:^|[,|]) *([a-z0-9][a-z0-9+.-]+)", relations):
            above.setdefault(name, set()).add(fields["Package"])
        for name in re.findall(r"(?:^|,) *([a-z0-9][a-z0-9+.-]+)", fields.get("Provides", "")):
            provided.setdefault(fields["Package"], set()).add(name)
    found, left = set(goals), list(goals)
    while left:
        one = left.pop()
        more = set().union(*(above.get(name, set()) for name in {one, *provided.get(one, ())}))
        left += more - found
        found |= more
    return found


def facts(indexes: Mapping[str, list[dict[str, str]]]) -> dict[str, dict[str, set[str]]]:
    """The content of particle_agent/contract/debian.py for the indexes of all suites together."""
    of_suite = {
        suite: {goal: bringers(index, [goal]) - {goal} for goal in FEW}
        for suite, index in indexes.items()
    }
    brings = {goal: set().union(*(each[goal] for each in of_suite.values())) for goal in FEW}
    exceptions: dict[str, set[str]] = {}
    without = {what: set(COMMON) for what in MANY}
    for suite, index in indexes.items():
        if suite not in RELEASED:
            continue
        there = {fields["Package"] for fields in index}
        for goal in FEW:
            if others := (brings[goal] & there) - of_suite[suite][goal]:
                exceptions[f"{suite}: package {goal}"] = others
        for what, goals in MANY.items():
            without[what] -= {pattern for name in bringers(index, goals) for pattern in _of(name)}
    return {"BRINGS": brings, "EXCEPTIONS": exceptions, "WITHOUT": without}


def _of(name: str) -> list[str]:
    return [pattern for pattern in COMMON if fnmatchcase(name, pattern)][:1]


def scripts(suite: Suite) -> dict[str, set[str]]:
    """The SHA-256 of each script that a stand-in imitates, or that calls a stand-in."""
    found = {
        "update-initramfs": [suite.file("initramfs-tools", "usr/sbin/update-initramfs")],
        "locales": [suite.script("locales", "postinst")],
        "udev": [suite.script("udev", "postinst")],
        "linux": [_kernel_script(suite, package) for package in KERNELS],
    }
    return {
        kind: {sha256(text.encode()).hexdigest() for text in texts if text}
        for kind, texts in found.items()
    }


def _kernel_script(suite: Suite, package: str) -> str | None:
    """A kernel's script that calls depmod, with @ instead of the kernel's version."""
    image = next(name for name in suite.depends(package) if name.startswith("linux-image-"))
    version = image.removeprefix("linux-image-")
    script = suite.script(image, "postinst") or ""
    return script.replace(version, "@") if "depmod" in script else None


def unit_files(suites: Iterable[Suite], pattern: re.Pattern[str] = UNIT) -> dict[str, set[str]]:
    """The packages of Debian that have each unit file of a pattern, by the unit's name."""
    found: dict[str, set[str]] = {}
    for suite in suites:
        for path, packages in suite.contents():
            if match := pattern.fullmatch(path):
                found.setdefault(match[1] or f"{match[2]}.service", set()).update(packages)
    return found


def aliases(suite: Suite, units: Mapping[str, set[str]]) -> dict[str, str]:
    """The aliases of the units in common packages."""
    found: dict[str, str] = {}
    for unit, packages in units.items():
        for package in packages & set(WITH_ALIASES):
            text = suite.file(package, f"usr/lib/systemd/system/{unit}") or ""
            for words in re.findall(r"(?m)^Alias=(.*)$", text):
                found |= dict.fromkeys(words.split(), unit)
    # A unit of that name in another package is no alias there.
    return {alias: unit for alias, unit in found.items() if alias not in units}


def write_units(suites: list[Suite]) -> None:
    """Writes the files of unit names for the host."""
    units = unit_files(suites)
    trixie = next(suite for suite in suites if suite.name == "trixie")
    lines = _unit_lines(units)
    lines += [f"{alias} = {unit}" for alias, unit in aliases(trixie, units).items()]
    head = "# The units of Debian's packages, and aliases. `make debian-facts` writes this file.\n"
    UNITS.write_text(head + "\n".join(sorted(lines)) + "\n")
    head = "# The units of users in Debian's packages. `make debian-facts` writes this file.\n"
    USER_UNITS.write_text(
        head + "\n".join(sorted(_unit_lines(unit_files(suites, USER_UNIT)))) + "\n"
    )


def _unit_lines(units: Mapping[str, set[str]]) -> list[str]:
    return [f"{unit} {' '.join(sorted(packages))}" for unit, packages in units.items()]


def _written(values: Mapping[str, Iterable[str]], name: str) -> str:
    lines = [f"{name}: dict[str, tuple[str, ...]] = {{\n"]
    for key, items in sorted(values.items()):
        lines += [
            f'    "{key}": (\n',
            *(f'        "{one}",\n' for one in sorted(items)),
            "    ),\n",
        ]
    return "".join([*lines, "}\n"])


def _date() -> str:
    return f'DATE = "{datetime.now(UTC):%Y-%m-%d}"\n'


def write(directory: Path) -> None:
    suites = [Suite(name, directory / name) for name in SUITES]
    write_units(suites)
    known = {kind: set(values) for kind, values in known_scripts.SCRIPTS.items()}
    for suite in suites:
        for kind, values in scripts(suite).items():
            known[kind] |= values
    doc = "The SHA-256 of each script of Debian 12 and later that the stand-ins know."
    (AGENT / "shortcuts/known_scripts.py").write_text(
        HEAD.format(doc) + _date() + _written(known, "SCRIPTS")
    )
    write_dependencies({suite.name: list(suite.paragraphs()) for suite in suites})


def write_dependencies(indexes: Mapping[str, list[dict[str, str]]]) -> None:
    """Writes the file of the packages that bring others."""
    found = facts(indexes)
    doc = "The packages of Debian 12 and later that bring others through their dependencies."
    (AGENT / "contract/debian.py").write_text(
        HEAD.format(doc) + _date()
        + f"RELEASED = {RELEASED!r}\n".replace("'", '"')
        + "# The packages that bring each package in any suite.\n"
        + _written(found["BRINGS"], "BRINGS")
        + "# By released suite and need, the packages of BRINGS that do not bring it there.\n"
        + _written(found["EXCEPTIONS"], "EXCEPTIONS")
        + "# The packages that recipes name most, as patterns, and those without each need.\n"
        + _written({"common": COMMON, **found["WITHOUT"]}, "WITHOUT")
    )  # fmt: skip


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        write(Path(temporary))
