"""A system that is an OSTree commit: its disk boots, and its repository is published."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pytest

from .breaking import BLOCK, debugfs, partition
from .conftest import Account, example, leftovers, sha256

REF = "debian/13/amd64/edge"


# A signed commit, and a server.
SIGNED = """\
    secrets: [{name: signing-key, file: secret.gpg}]
    sign: {gpg-secret: signing-key}
    remote: {url: "https://updates.example.org/edge"}
"""
OTHER_KEY = """\
-----BEGIN PGP PUBLIC KEY BLOCK-----

mDMEawyC3BYJKwYBBAHaRw8BAQdAkDlTEtREf0dvgDUSbk/Hv9CmCbZplIjMEiAB
2hMIN+u0GU90aGVyIDxvdGhlckBleGFtcGxlLm9yZz6IkAQTFggAOBYhBJPOxWOw
EfYp2wklNYSpVZoukExVBQJrDILcAhsDBQsJCAcCBhUKCQgLAgQWAgMBAh4BAheA
AAoJEISpVZoukExVbUsA/A2MvebzRZvVIBdETppiKcoYGctMgHJBM/2SUYa7OqUK
AP9DX6DrYAXtRd5Vfc3uJJ8tfnllmQex3EUzoGP0n/1WBw==
=s/pT
-----END PGP PUBLIC KEY BLOCK-----
"""
SWAP = "    - command: [swapon, --show=NAME, --noheadings]\n      contains: /var/swapfile\n"
# A disk for Secure Boot that grows, with room for the checks of a larger disk.
SECURE = ("grub-efi-amd64-signed", "shim-signed", "systemd-repart")
GROWN = """\
- unit: particle-os-grow-file-system.service
- command: [sh, -c, 'test "$(df --output=size --block-size=1M /sysroot | tail -n 1)" -gt 5000']
- command: [sh, -c, '! touch /sysroot/new']
"""
# The packages of the first version come from its checkpoint.
NEW_FILE = "  - type: files\n    files: [{path: /usr/share/edge/new, content: new}]\n\n"
Built = tuple[Path, dict[str, Any]]


def build(account: Account, recipe: Path, name: str, *more: str) -> Built:
    """The directory and the result of a build with its boot test."""
    output, options = account.make_directory(name), ("--json", "--progress", "plain", *more)
    outcome = account.run("build", recipe, "--output", output, *options)
    assert outcome.status == 0, outcome.stderr
    assert leftovers(account, output) == []
    return output, outcome.json()


@pytest.fixture(scope="module")
def signed(account: Account, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The text of recipes/edge.yml, with a signature and a server; the key lies beside it."""
    # The path of gpg-agent's socket is short.
    with tempfile.TemporaryDirectory(dir="/tmp") as home:
        gpg = ["gpg", "--homedir", home, "--batch", "--quiet", "--passphrase", ""]
        key = ["--quick-gen-key", "Edge <edge@example.org>", "ed25519", "sign", "never"]
        subprocess.run([*gpg, *key], check=True, capture_output=True)
        secret = subprocess.run(
            [*gpg, "--armor", "--export-secret-keys"], check=True, capture_output=True
        )
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False)
    account.write(account.directory / "secret.gpg", secret.stdout.decode())
    text = example(account, "edge").read_text()
    assert '    version: "1"\n' in text
    text = text.replace('    version: "1"\n', f'    version: "1"\n{SIGNED}')
    text = text.replace('version: "1"}', 'version: "1", signed: true}')
    text = text.replace("boot-test:\n", "boot-test:\n  firmware: [bios]\n")
    return text.replace("    formats: [qcow2]\n", "    formats: [qcow2]\n    swap: 64M\n") + SWAP


@pytest.fixture(scope="module")
def edge(account: Account, signed: str) -> Built:
    """The repository of recipes/edge.yml, signed. The next version makes a disk of it, too."""
    stages = signed.partition("  - type: qemu")[0]
    return build(account, account.write(account.directory / "edge.yml", stages), "edge")


@pytest.fixture(scope="module")
def edge_disk(account: Account, signed: str) -> Built:
    """The disk of recipes/edge.yml."""
    recipe = account.write(account.directory / "edge.yml", signed)
    return build(account, recipe, "edge-disk", "--no-boot-test")


def test_the_verification_of_the_disk_finds_nothing(update: Built) -> None:
    assert update[1]["verification"]["findings"] == []


def test_the_repository_is_published_with_its_sum(update: Built) -> None:
    output, result = update
    archive = output / "edge.ostree.tar"
    sums = dict(
        line.split("  ")[::-1] for line in (output / "SHA256SUMS").read_text().split("\n")[:-1]
    )
    assert set(sums) == {"edge.qcow2", "edge.ostree.tar", "edge.ostree.gpg", "edge.delta"}
    assert sums["edge.ostree.tar"] == sha256(archive)
    assert {image["format"] for image in result["artifacts"]} == {
        "qcow2",
        "ostree-repository",
        "ostree-delta",
        "gpg-key",
    }
    with tarfile.open(archive) as tar:
        names = set(tar.getnames())
        ref = tar.extractfile(f"./refs/heads/{REF}")
        assert ref is not None
        commit = ref.read().decode().strip()
    assert f"./objects/{commit[:2]}/{commit[2:]}.commit" in names
    assert "./summary" in names


def test_the_inspection_shows_the_system_of_the_deployment(account: Account, update: Built) -> None:
    outcome = account.run("inspect", update[0] / "edge.qcow2", "--json")
    assert outcome.status == 0, outcome.stderr
    system = outcome.json()["system"]
    assert system["hostname"] == "edge"
    assert "ostree-boot" in {package["name"] for package in system["packages"]}
    assert system["kernels"]
    (deployment,) = outcome.json()["deployments"]
    commit = update[1]["commit"]
    assert (deployment["checksum"], deployment["version"]) == (commit["checksum"], "2")
    assert (deployment["origin"], deployment["default"]) == (f"origin:{REF}", True)


@pytest.fixture(scope="module")
def update(account: Account, signed: str, edge: Built) -> Built:
    """The next version, which the first one updates to and returns from."""
    text = signed.replace('version: "1"', 'version: "2"')
    text = text.replace("    sign:", "    parent: edge/edge.ostree.tar\n    sign:")
    text = text.replace("  - type: ostree\n", f"{NEW_FILE}  - type: ostree\n")
    text = text.replace("    sign:", "    publish: [repository, delta]\n    sign:")
    text = text.replace("  firmware: [bios]\n", "  firmware: [bios]\n  upgrade: {from: parent}\n")
    return build(account, account.write(account.directory / "edge.yml", text), "update")


def test_the_parent_updates_to_the_new_version_and_returns(update: Built) -> None:
    """The new version passes all checks of the recipe: what is read-only, its signature, swap."""
    output, result = update
    found = [(boot["step"], boot["status"], len(boot["checks"])) for boot in result["boot"]]
    assert found == [
        (None, "passed", 5),
        ("parent", "passed", 0),
        ("upgrade", "passed", 5),
        ("rollback", "passed", 0),
    ]
    for step in ("parent", "upgrade", "rollback"):
        assert (output / f"edge.evidence/bios-{step}/console.log").stat().st_size > 0


def test_the_repository_of_an_update_has_the_parent_too(edge: Built, update: Built) -> None:
    def commit(output: Path) -> tuple[str, set[str]]:
        with tarfile.open(output / "edge.ostree.tar") as tar:
            ref = tar.extractfile(f"./refs/heads/{REF}")
            assert ref is not None
            return ref.read().decode().strip(), set(tar.getnames())

    (first, _), (second, names) = commit(edge[0]), commit(update[0])
    assert first != second
    assert {f"./objects/{each[:2]}/{each[2:]}.commit" for each in (first, second)} <= names


def test_the_result_has_the_difference_to_the_parent(
    account: Account, edge: Built, update: Built
) -> None:
    output, result = update
    found, first = result["commit"], edge[1]["commit"]
    assert (found["parent"], found["version"]) == (first["checksum"], "2")
    assert found["signer"] == first["signer"]
    assert found["packages"] == []
    assert "/usr/share/edge/new" in found["files"]["names"]
    log = account.run("ostree", "log", output / "edge.ostree.tar", "--json").json()
    assert [each["version"] for each in log] == ["2", "1"]
    sizes = {image["path"]: image["bytes"] for image in result["artifacts"]}
    assert sizes["edge.delta"] < sizes["edge.ostree.tar"] / 4


@pytest.mark.weekly
def test_the_container_image_is_the_same_system(account: Account, signed: str) -> None:
    """skopeo accepts it, and our own builder takes it as a base."""
    text = signed.replace("    sign:", "    publish: [repository, oci-archive]\n    sign:")
    recipe = account.write(account.directory / "edge.yml", text)
    output, result = build(account, recipe, "container", "--no-boot-test")
    archive, found = output / "edge.oci.tar", result["container"]
    argv = ["skopeo", "--override-arch=amd64", "inspect", f"oci-archive:{archive}"]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    shown = json.loads(done.stdout)
    assert shown["Digest"] == found["digest"]
    assert shown["Layers"] == [layer["digest"] for layer in found["layers"]]
    labels = shown["Labels"]
    assert labels == found["labels"]
    assert (labels["containers.bootc"], labels["ostree.bootable"]) == ("1", "true")
    assert labels["particle-os.commit"] == result["commit"]["checksum"]
    sums = (output / "SHA256SUMS").read_text()
    assert f"{sha256(archive)}  edge.oci.tar\n" in sums
    warned = [note for note in result["notes"] if "bootc container lint" in note]
    assert [note.split()[5].rstrip(":") for note in warned] == ["baseimage-composefs"]
    outcome = account.run("inspect", f"oci-archive:{archive}", "--json")
    assert outcome.status == 0, outcome.stderr
    system = outcome.json()["system"]
    assert system["hostname"] == "edge"
    assert "ostree-boot" in {package["name"] for package in system["packages"]}


@pytest.mark.weekly
def test_an_image_leaves_an_update_that_is_bad(account: Account, edge_disk: Built) -> None:
    checks = account.write(account.directory / "fallback.yml", "fallback: true\n")
    outcome = account.run("boot-test", edge_disk[0] / "edge.qcow2", "--checks", checks, "--json")
    assert outcome.status == 0, outcome.stderr
    found = [(boot["step"], boot["status"]) for boot in outcome.json()]
    assert found == [(None, "passed"), ("bad-update", "passed"), ("fallback", "passed")]


@pytest.mark.weekly
def test_a_build_from_checkpoints_makes_the_commit_of_a_cold_one(account: Account) -> None:
    """The second build begins after the packages, and the third one without anything."""
    text = example(account, "edge").read_text().partition("boot-test:")[0]
    sums = []
    for number, (version, more) in enumerate((("0", ()), ("1", ()), ("1", ("--no-cache",)))):
        recipe = account.write(
            account.directory / "edge.yml", text.replace('version: "1"', f'version: "{version}"')
        )
        output = account.make_directory(f"edge-{number}")
        arguments = ("--output", output, "--source-date", "1790000000", "--no-boot-test", *more)
        outcome = account.run("build", recipe, *arguments, "--progress", "plain")
        assert outcome.status == 0, outcome.stderr
        sums.append(sha256(output / "edge.ostree.tar"))
        assert ("apt: cached" in outcome.stderr) == (number == 1)
    assert sums[0] != sums[1] == sums[2]


@pytest.mark.weekly
def test_a_repository_alone_continues_the_first_version(account: Account, edge: Built) -> None:
    """It is built without a disk, and has one more package."""
    output, first = edge
    text = Path(example(account, "edge")).read_text()
    stages = text[: text.index("  - type: qemu")]
    stages = stages.replace('version: "1"', 'version: "2"\n    parent: edge.ostree.tar')
    stages = stages.replace("      - dbus\n", "      - dbus\n      - nano\n")
    stages += "    publish: [repository, delta]\n"
    recipe = account.write(output / "next.yml", stages.replace("name: edge", "name: next"))
    arguments = ("--output", output, "--json", "--progress", "plain")
    outcome = account.run("build", recipe, *arguments)
    assert outcome.status == 0, outcome.stderr
    result = outcome.json()
    assert result["status"] == "not-tested"
    assert [image["path"] for image in result["artifacts"]] == ["next.ostree.tar", "next.delta"]
    found = result["commit"]
    assert (found["parent"], found["version"]) == (first["commit"]["checksum"], "2")
    assert "nano:amd64" in [package["name"] for package in found["packages"]]
    assert found["files"]["added"] > 10
    assert "/usr/bin/nano" in found["files"]["names"]
    log = account.run("ostree", "log", output / "next.ostree.tar", "--json").json()
    assert [each["version"] for each in log] == ["2", "1"]
    sizes = {image["path"]: image["bytes"] for image in result["artifacts"]}
    assert sizes["next.delta"] < sizes["next.ostree.tar"] / 4


@pytest.mark.weekly
def test_planted_defects_of_a_disk_are_told_by_their_codes(
    account: Account, edge_disk: Built
) -> None:
    image = account.make_directory("broken-edge") / "edge.raw"
    argv = ["qemu-img", "convert", "-O", "raw", edge_disk[0] / "edge.qcow2", image]
    subprocess.run(argv, check=True)
    deployment = f"/ostree/deploy/debian/deploy/{edge_disk[1]['commit']['checksum']}.0"
    told = debugfs(image, f"blocks {deployment}/usr/bin/dpkg", write=False)
    block = re.search(r"^(\d+) ", told, re.MULTILINE)
    assert block is not None
    with image.open("r+b") as disk:
        disk.seek(partition(image, -1) + int(block[1]) * BLOCK)
        disk.write(b"damaged")
    (kernels,) = re.findall(r"/(debian-[0-9a-f]{64})/", debugfs(image, "ls -p /boot/ostree"))
    (kernel,) = re.findall(r"/(vmlinuz-[^/]+)/", debugfs(image, f"ls -p /boot/ostree/{kernels}"))
    text = image.with_name("text")
    text.write_text("menuentry x {\n}\n")
    debugfs(
        image,
        f"rm {deployment}.origin",
        f"rm /boot/ostree/{kernels}/{kernel}",
        "rm /boot/loader.1/grub.cfg",
        f"write {text} /boot/loader.1/grub.cfg",
    )
    os.chown(image, account.uid, account.gid)
    outcome = account.run("inspect", "--verify", image, "--json")
    assert outcome.status == 4, outcome.stderr
    findings = outcome.json()["verification"]["findings"]
    assert {(finding["code"], finding["severity"]) for finding in findings} == {
        ("boot-menu-differs", "error"),
        ("boot-menu-file-missing", "error"),
        ("boot-menu-missing", "error"),
        ("deployment-origin-missing", "warning"),
        ("ostree-repository-broken", "error"),
    }
    assert "/usr/bin/dpkg" in [finding["message"] for finding in findings]


@pytest.mark.weekly
def test_an_image_for_secure_boot_grows_and_leaves_an_update_that_is_bad(account: Account) -> None:
    """GRUB counts the boots under Secure Boot, too."""
    text = example(account, "edge").read_text().replace("name: edge", "name: secure")
    packages = "".join(f"      - {name}\n" for name in SECURE)
    text = text.replace("    packages:\n", f"    packages:\n{packages}", 1)
    text = text.replace("    formats: [qcow2]\n", "    formats: [raw]\n    grow: true\n")
    test = "boot-test:\n  firmware: [uefi-secure]\n  fallback: true\n"
    recipe = account.write(account.directory / "secure.yml", text.replace("boot-test:\n", test))
    output, result = build(account, recipe, "secure")
    assert [(boot["step"], boot["firmware"], boot["status"]) for boot in result["boot"]] == [
        (None, "uefi-secure", "passed"),
        ("bad-update", "uefi-secure", "passed"),
        ("fallback", "uefi-secure", "passed"),
    ]
    os.truncate(output / "secure.raw", 6 << 30)
    checks = account.write(account.directory / "grown.yml", f"checks:\n{GROWN}")
    arguments = ["boot-test", output / "secure.raw", "--firmware", "uefi-secure"]
    outcome = account.run(*arguments, "--checks", checks, "--json")
    assert outcome.status == 0, outcome.stdout


def disk_of(account: Account, output: Path, repository: str, key: str = "edge.ostree.gpg") -> Path:
    """A recipe, beside the published files of a build, for a disk of the commit."""
    text = f"name: disk\nbase-image: ostree:{repository}#{REF}\nbase-image-key: {key}\n"
    text += "stages: [{type: qemu, boot-loader: grub, formats: [qcow2]}]\n"
    text += "boot-test:\n  fallback: true\n  checks:\n"
    text += f"    - ostree: {{ref: {REF}, version: '1', signed: true}}\n"
    return account.write(output / "disk.yml", text)


@pytest.mark.weekly
def test_a_disk_is_made_of_a_published_commit(account: Account, edge: Built) -> None:
    """It boots the same commit from BIOS and UEFI, and leaves an update that is bad."""
    recipe = disk_of(account, edge[0], "edge.ostree.tar")
    result = build(account, recipe, "disk")[1]
    found = [(boot["firmware"], boot["step"], boot["status"]) for boot in result["boot"]]
    assert found == [
        ("bios", None, "passed"),
        ("uefi", None, "passed"),
        ("bios", "bad-update", "passed"),
        ("bios", "fallback", "passed"),
    ]
    commit = edge[1]["commit"]
    assert result["base_digest"] == f"sha256:{commit['checksum']}"
    assert result["base_signature"] == "good"
    assert (result["commit"]["checksum"], result["commit"]["signer"]) == (
        commit["checksum"],
        commit["signer"],
    )
    assert [image["path"] for image in result["artifacts"]] == ["disk.qcow2"]
    shown = account.run("inspect", f"ostree:{edge[0]}/edge.ostree.tar#{REF}", "--json").json()
    assert shown["commit"]["checksum"] == commit["checksum"]
    assert "ostree-boot" in {package["name"] for package in shown["system"]["packages"]}


@pytest.mark.weekly
def test_no_disk_is_made_of_a_damaged_commit_or_of_another_signer(
    account: Account, edge: Built
) -> None:
    output = edge[0]
    damaged = bytearray((output / "edge.ostree.tar").read_bytes())
    with tarfile.open(output / "edge.ostree.tar") as tar:
        largest = max((m for m in tar if m.name.endswith(".filez")), key=lambda m: m.size)
    damaged[largest.offset_data + largest.size // 2] ^= 1
    (output / "damaged.ostree.tar").write_bytes(damaged)
    os.chown(output / "damaged.ostree.tar", account.uid, account.gid)
    account.write(output / "other.asc", OTHER_KEY)
    for arguments, message in (
        (("damaged.ostree.tar",), "the base's repository is damaged"),
        (("edge.ostree.tar", "other.asc"), "the commit has no good signature of the key"),
    ):
        recipe = disk_of(account, output, *arguments)
        outcome = account.run("build", recipe, "--output", account.make_directory("refused"))
        assert outcome.status == 2, outcome.stderr
        assert message in outcome.stderr
