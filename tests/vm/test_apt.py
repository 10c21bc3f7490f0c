"""Package sources and packages, from a signed archive on loopback and through apt-cacher-ng."""

from __future__ import annotations

import shutil
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from .. import acng
from ..archive import SUITE, Archive, build_deb, served
from .conftest import Account, Outcome
from .test_stages import on_disk

# What makes a disk of a system that has no kernel; nothing here boots.
NO_KERNEL = """\
  - type: run
    command: [touch, /boot/vmlinuz-0, /boot/initrd.img-0]
  - type: qemu
"""
ACCEPTED = "accepted-errors: [boot-menu-file-missing, init-missing]\n"
PACKAGES = (
    ("zz-tool", "1.0", "zz-library"),
    ("zz-tool", "2.0", "zz-library"),
    ("zz-library", "1.0", ""),
    ("zz-needed", "1.0", ""),
    ("zz-more", "1.0", ""),
)


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="particle-os-apt-", dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def archive(directory: Path) -> Iterator[Archive]:
    with served(directory / "archive", *PACKAGES) as served_archive:
        yield served_archive


def sources(archive: Archive, uri: str) -> str:
    key = textwrap.indent(archive.key, " " * 10)
    return f"""\
  - type: sources
    replace: true
    repositories:
      - name: extra
        mirrors: ["{uri}"]
        suites: [{SUITE}]
        key: |
{key}"""


def build(account: Account, name: str, stages: str, *options: str) -> Outcome:
    recipe = account.write(
        account.directory / f"{name}.yml", f"name: {name}\n{ACCEPTED}stages:\n{stages}{NO_KERNEL}"
    )
    output = account.make_directory(f"{name}-out")
    return account.run(
        *("build", recipe, "--output", output, "--no-boot-test", "--json"),
        *("--progress", "plain", "--max-age", "0", *options),
    )


def installed(image: Path) -> dict[str, str]:
    """Name and status of the test's packages in the image."""
    found = {}
    for stanza in on_disk(image, "cat /var/lib/dpkg/status").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line)
        if fields.get("Package", "").startswith("zz-"):
            found[fields["Package"]] = f"{fields['Version']} {fields['Status']}"
    return found


def test_sources_packages_pins_and_files_of_the_recipe(account: Account, archive: Archive) -> None:
    account.make_directory("debs")
    local = build_deb(archive.directory.parent, "zz-local", "3.0", "zz-needed")
    shutil.copy(local, account.directory / "debs/zz-local.deb")
    stages = f"""\
{sources(archive, f"http://10.0.2.2:{archive.port}")}
  - type: apt
    packages: [zz-tool]
    debs: [debs/zz-local.deb]
    hold: [zz-local]
    pins:
      - {{package: zz-tool, pin: version 1.*, priority: 1001}}
    debconf:
      - {{package: zz-tool, question: zz-tool/answer, type: string, value: forty two}}
  - type: run
    command: [rm, /etc/apt/preferences.d/recipe.pref]
  - type: apt
    upgrade: true
    remove: [zz-local, zz-absent]
    purge: true
    autoremove: true
    update: false
"""
    outcome = build(account, "packages", stages)
    assert outcome.status == 3, "what is held is not removed"
    assert "zz-local" in outcome.stderr + outcome.stdout
    outcome = build(account, "packages", stages.replace("    hold: [zz-local]\n", ""))
    assert outcome.status == 0, outcome.stderr
    assert [note for note in outcome.json()["notes"] if "apt" in note] == []
    image = account.directory / "packages-out/packages.raw"
    assert installed(image) == {
        "zz-tool": "2.0 install ok installed",
        "zz-library": "1.0 install ok installed",
    }
    assert on_disk(image, "cat /etc/apt/sources.list.d/extra.sources").splitlines() == [
        "Types: deb",
        f"URIs: http://10.0.2.2:{archive.port}",
        f"Suites: {SUITE}",
        "Components: main",
        "Signed-By: /etc/apt/keyrings/extra.asc",
    ]
    assert on_disk(image, "cat /etc/apt/keyrings/extra.asc") == archive.key
    assert "forty two" in on_disk(image, "cat /var/cache/debconf/config.dat")


@pytest.fixture(scope="module")
def proxy(account: Account, archive: Archive, directory: Path) -> Iterator[str]:
    """The archive has this name for the proxy alone."""
    remap = f"Remap-test: http://repository.test ; http://127.0.0.1:{archive.port}"
    with acng.running(directory, remap, user=account.uid) as url:
        yield url


def files_in(image: Path, place: str) -> str:
    return on_disk(image, f"ls -p {place}")


def test_packages_through_apt_cacher_ng(account: Account, archive: Archive, proxy: str) -> None:
    """By the host's apt, and by that in the VM: a password for a mirror stays there."""
    auth = """\
  - type: files
    files:
      - {path: /etc/apt/auth.conf, content: "", mode: "0600"}
"""
    stages = f"""\
{sources(archive, "http://repository.test")}
  - type: apt
    packages: [zz-more]
"""
    counted = []
    for name, before in (("first", ""), ("second", ""), ("in-the-vm", auth)):
        # What this cache has is not asked for.
        shutil.rmtree(account.cache / "packages", ignore_errors=True)
        outcome = build(account, name, before + stages, "--apt-proxy", proxy, "--refresh", "apt")
        assert outcome.status == 0, outcome.stderr
        counted.append(outcome.json()["apt_proxy"])
        _check_image(account.directory / f"{name}-out/{name}.raw", proxy)
    assert [told["url"] for told in counted] == [proxy] * 3
    assert not any(told["gone"] for told in counted)
    assert counted[1]["hits"] > 0
    assert counted[2]["hits"] > 0


def _check_image(image: Path, proxy: str) -> None:
    """The package is in the image, and nothing of the proxy is."""
    assert installed(image) == {"zz-more": "1.0 install ok installed"}
    found = on_disk(image, "cat /etc/apt/sources.list.d/extra.sources")
    assert "URIs: http://repository.test\n" in found
    assert proxy.rpartition(":")[2] not in found
    for place in ("/etc/apt", "/etc/apt/apt.conf.d", "/etc/apt/sources.list.d"):
        assert "particle" not in files_in(image, place)
        assert "proxy" not in files_in(image, place)
