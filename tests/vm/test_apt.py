"""Package sources and packages, from a signed archive on loopback and through apt-cacher-ng."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .. import acng
from ..acng import free_port
from ..archive import SUITE, Archive, build_deb, served
from .conftest import Account, Outcome
from .test_stages import on_disk

# The last stage makes a disk of a system without a kernel; no test here boots it.
NO_KERNEL = """\
  - type: run
    command: [touch, /boot/vmlinuz-0, /boot/initrd.img-0]
  - type: qemu
"""
SNAPSHOT = "20200102T030405Z"
ACCEPTED = "accepted-errors: [boot-menu-file-missing, init-missing]\n"
PASSWORDS = "/etc/apt/auth.conf"
STATES = "/var/lib/apt/extended_states"
LOADER = ("/boot/extlinux/extlinux.conf", "/boot/extlinux/ldlinux.sys")
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


def sources(archive: Archive, uri: str, more: str = "", suites: str = SUITE) -> str:
    key = textwrap.indent(archive.key, " " * 10)
    return f"""\
  - type: sources
    replace: true
    {more}
    repositories:
      - name: extra
        mirrors: ["{uri}"]
        suites: [{suites}]
        key: |
{key}"""


def build(account: Account, name: str, stages: str, *options: str, **environment: str) -> Outcome:
    recipe = account.write(
        account.directory / f"{name}.yml", f"name: {name}\n{ACCEPTED}stages:\n{stages}{NO_KERNEL}"
    )
    output = account.make_directory(f"{name}-out")
    return account.run(
        *("build", recipe, "--output", output, "--no-boot-test", "--json"),
        *("--progress", "plain", "--max-age", "0", *options),
        **environment,
    )


def installed(image: Path) -> dict[str, str]:
    """Version and status of the test's packages in the image, by name."""
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
  - type: run
    name: The name that packages see
    command: [sh, -c, '[ "$(uname -n)" = localhost ]']
  - type: apt
    upgrade: true
    remove: [zz-local, zz-absent]
    purge: true
    autoremove: true
    update: false
"""
    outcome = build(account, "packages", stages)
    assert outcome.status == 3, "a held package is not removed"
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


def test_a_repository_with_a_password_and_an_older_version(
    account: Account, archive: Archive
) -> None:
    port = free_port()
    stages = f"""\
{sources(archive, f"http://10.0.2.2:{port}")}
  - type: apt
    packages: [zz-tool]
    secrets: [{{name: login, env: LOGIN}}]
    credentials: [{{machine: "http://10.0.2.2:{port}", secret: login}}]
  - type: apt
    packages: [zz-tool=1.0]
    allow-downgrades: true
    secrets: [{{name: login, env: LOGIN}}]
    credentials: [{{machine: "http://10.0.2.2:{port}", secret: login}}]
"""
    with archive.at("127.0.0.1", port, login="me:one-word"):
        outcome = build(account, "password", stages, "--allow-env", "LOGIN", LOGIN="me:one-word")
        assert outcome.status == 0, outcome.stderr
        wrong = build(account, "wrong", stages, "--allow-env", "LOGIN", LOGIN="me:another")
    image = account.directory / "password-out/password.raw"
    assert installed(image)["zz-tool"] == "1.0 install ok installed"
    assert b"one-word" not in image.read_bytes()
    assert wrong.status != 0
    assert "asks for a password (401)" in wrong.stderr
    assert "another" not in wrong.stderr + wrong.stdout


@pytest.fixture(scope="module")
def proxy(account: Account, archive: Archive, directory: Path) -> Iterator[str]:
    """An apt-cacher-ng; only this proxy can resolve the archive's name repository.test."""
    remap = f"Remap-test: http://repository.test ; http://127.0.0.1:{archive.port}"
    with acng.running(directory, remap, user=account.uid) as url:
        yield url


def test_a_snapshot_and_a_target_release(account: Account, archive: Archive) -> None:
    """The snapshot's indexes have expired, and the other suite has a newer version."""
    snapshot = f"snapshot/{SNAPSHOT}"
    archive.publish(SUITE, *PACKAGES, below=snapshot, expired=True)
    archive.publish("newer", ("zz-tool", "3.0", "zz-library"), below=snapshot, expired=True)
    uri = f"http://10.0.2.2:{archive.port}/snapshot/{{date}}"
    first = sources(archive, uri, f"snapshot: {SNAPSHOT}", suites=f"{SUITE}, newer")
    apt = "  - type: apt\n    packages: [zz-tool]\n"
    outcome = build(account, "dated", f"{first}\n{apt}    target-release: {SUITE}\n")
    assert outcome.status == 0, outcome.stderr
    assert [note for note in outcome.json()["notes"] if "apt" in note] == []
    image = account.directory / "dated-out/dated.raw"
    assert installed(image)["zz-tool"] == "2.0 install ok installed"
    written = on_disk(image, "cat /etc/apt/sources.list.d/extra.sources")
    assert f"/snapshot/{SNAPSHOT}\n" in written
    assert "Check-Valid-Until: no\n" in written
    assert build(account, "dated", f"{first}\n{apt}").status == 0
    assert installed(image)["zz-tool"] == "3.0 install ok installed"


def test_apt_goes_on_without_a_proxy_that_dies(account: Account, archive: Archive) -> None:
    """The proxy dies during a build, as soon as apt has requested the first package.

    The archive listens on port 80, the port that apt-cacher-ng serves, of a loopback address.
    """
    stages = f"""\
{sources(archive, "http://127.0.0.2")}
  - type: apt
    packages: [zz-needed]
  - type: apt
    packages: [zz-more]
"""
    shutil.rmtree(account.cache / "packages", ignore_errors=True)
    archive.asked.clear()
    place = account.make_directory("dying")
    with archive.at("127.0.0.2", 80), contextlib.ExitStack() as stack:
        url = stack.enter_context(acng.running(place, user=account.uid))

        def kill() -> None:
            while not any(path.endswith(".deb") for path in archive.asked):
                time.sleep(0.005)
            stack.close()

        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        outcome = build(account, "dying", stages, "--apt-proxy", url, "--refresh", "apt")
        killer.join(10)
    assert outcome.status == 0, outcome.stderr
    told = outcome.json()
    assert (told["apt_proxy"]["url"], told["apt_proxy"]["gone"]) == (url, True)
    gone = f"the apt proxy {url} has gone away; apt goes on without it"
    assert told["notes"].count(gone) == 1
    image = account.directory / "dying-out/dying.raw"
    assert installed(image).keys() == {"zz-needed", "zz-more"}
    assert list((place / "acng/cache").rglob("InRelease")), "apt used the proxy until it died"


def files_in(image: Path, place: str) -> str:
    return on_disk(image, f"ls -p {place}")


@pytest.mark.weekly
def test_packages_through_apt_cacher_ng(account: Account, archive: Archive, proxy: str) -> None:
    """The host's apt uses the proxy; so does the VM's apt, which passwords for a mirror need."""
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
        # apt does not request packages that this cache holds.
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
    """Checks that the image has the package and no trace of the proxy."""
    assert installed(image) == {"zz-more": "1.0 install ok installed"}
    found = on_disk(image, "cat /etc/apt/sources.list.d/extra.sources")
    assert "URIs: http://repository.test\n" in found
    assert proxy.rpartition(":")[2] not in found
    for place in ("/etc/apt", "/etc/apt/apt.conf.d", "/etc/apt/sources.list.d"):
        assert "particle" not in files_in(image, place)
        assert "proxy" not in files_in(image, place)


@pytest.mark.weekly
def test_what_is_unpacked_at_once_is_what_dpkg_unpacks(account: Account) -> None:
    """The packages have users, conffiles, alternatives, byte code, and a trigger for pages."""
    packages = "[man-db, sudo, openssh-client, python3-yaml, ca-certificates, nano]"
    # The second stage names a package that the first has brought, and finds no upgrades.
    more = "[libyaml-0-2, grub-pc-bin, logrotate]"
    stages = f"""\
  - {{type: apt, packages: {packages}}}
  - {{type: apt, packages: {more}, upgrade: true}}
"""
    # With passwords for a mirror, the host does not fetch packages, so dpkg unpacks them.
    passwords = f"  - {{type: files, files: [{{path: {PASSWORDS}, content: ''}}]}}\n"
    trees = {}
    for name, text in (("at-once", stages), ("by-dpkg", passwords + stages)):
        outcome = build(account, name, text, "--source-date", "1700000000")
        assert outcome.status == 0, outcome.stderr
        output = account.directory / f"{name}-out"
        log = (output / f"{name}.log").read_text()
        assert log.count("packages at once ...") == (2 if name == "at-once" else 0)
        trees[name] = tree(output / f"{name}.raw")
    ours, theirs = trees["at-once"], trees["by-dpkg"]
    states = [sorted(found.pop(STATES)[-1].split("\n\n")) for found in (ours, theirs)]
    assert states[0] == states[1]
    assert "Auto-Installed: 1" in states[0][-1]
    # The name of the recipe and the first stage make these files differ.
    for name in (PASSWORDS, "/etc/hostname", "/etc/hosts", "/etc/fstab", *LOADER):
        ours.pop(name, None)
        theirs.pop(name, None)
    assert ours == theirs


def tree(image: Path) -> dict[str, tuple[int, int, str, str]]:
    """Owner, group, mode and content of each file of the root file system, by path."""
    found = {}
    with tempfile.TemporaryDirectory(prefix="particle-os-tree-", dir="/var/tmp") as name:
        on_disk(image, f"rdump / {name}")
        for path in Path(name).rglob("*"):
            content = ""
            if path.is_symlink():
                content = str(path.readlink())
            elif path.is_file():
                content = path.read_bytes().decode("latin-1")
            status = path.lstat()
            where = str(path).removeprefix(name)
            found[where] = (status.st_uid, status.st_gid, oct(status.st_mode), content)
    return found
