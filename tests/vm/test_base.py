"""Bases from a registry are fetched once and applied in the VM; bad ones are refused early."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ..image_layout import Layout
from ..registry import address_of
from .conftest import CONFINE, Account, Outcome, leftovers, recipe_text

MIB = 1 << 20
REGISTRY = """
version: 0.1
log: {{accesslog: {{disabled: false}}}}
storage: {{filesystem: {{rootdirectory: {place}/data}}}}
http: {{addr: 127.0.0.1:0}}
"""


@dataclass
class Registry:
    """Debian's docker-registry, run by the ordinary user on a loopback port."""

    host: str
    log: Path

    def push(self, name: str, *layers: Path) -> str:
        """Pushes an image of tar archives, the lowest layer first; returns its reference."""
        return self.copy("tarball:" + ":".join(map(str, layers)), name)

    def copy(self, source: str, name: str) -> str:
        """Copies an image into the registry; returns the new reference."""
        reference = f"docker://{self.host}/{name}"
        argv = ["skopeo", "copy", "--quiet", "--dest-tls-verify=false", source, reference]
        subprocess.run(argv, check=True, timeout=120)
        return reference

    def downloads(self) -> list[str]:
        """The digests of the blobs that clients have read so far."""
        lines = self.log.read_text().splitlines()
        requests = [line.split('"')[1] for line in lines if ' "GET /v2/' in line]
        return [request.split()[1] for request in requests if "/blobs/" in request]


@pytest.fixture(scope="module")
def registry(account: Account) -> Iterator[Registry]:
    place = account.make_directory("registry")
    settings = account.write(place / "config.yml", REGISTRY.format(place=place))
    confined = [sys.executable, str(CONFINE), str(account.uid), str(account.gid)]
    with (place / "log").open("w") as log:
        process = subprocess.Popen(
            [*confined, "/usr/bin/docker-registry", "serve", str(settings)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=place,
            env=account.environment,
        )  # fmt: skip
        try:
            yield Registry(address_of(process, place / "log"), place / "log")
        finally:
            process.kill()
            process.wait(10)


def layer(place: Path, *members: tuple[str, bytes, dict[str, object]]) -> Path:
    with tarfile.open(place, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, content, fields in members:
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o644
            for field, value in fields.items():
                setattr(member, field, value)
            archive.addfile(member, io.BytesIO(content))
    return place


@pytest.fixture(scope="module")
def layers(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The tiny base and two layers above it, which use every feature of layers."""
    place = tmp_path_factory.mktemp("layers")
    # cap_net_raw=ep, as setcap(8) writes it. All its bytes are text, so tarfile can write it.
    capability = "\x01\x00\x00\x02\x00\x20\x00\x00" + "\x00" * 12
    middle = layer(
        place / "middle.tar",
        ("srv", b"", {"type": tarfile.DIRTYPE, "mode": 0o2775}),
        ("srv/gone", b"gone", {}),
        ("srv/kept", b"kept", {"uid": 12, "gid": 34, "mode": 0o4751}),
        ("opt", b"", {"type": tarfile.DIRTYPE, "mode": 0o755}),
        ("opt/old", b"old", {}),
        ("opt/null", b"", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3, "mode": 0o666}),
        ("out", b"", {"type": tarfile.SYMTYPE, "linkname": "/run/particle-os"}),
    )
    upper = layer(
        place / "upper.tar",
        ("srv/.wh.gone", b"", {}),
        ("srv/hard", b"", {"type": tarfile.LNKTYPE, "linkname": "srv/kept"}),
        ("opt/.wh..wh..opq", b"", {}),
        ("opt/new", b"new", {}),
        ("bin/through-the-link", b"tool", {"mode": 0o755}),
        # In the VM, the agent lies in /run/particle-os.
        ("out/agent.pyz", b"evil", {}),
        ("srv/ping", b"", {"pax_headers": {"SCHILY.xattr.security.capability": capability}}),
    )
    return [tiny_base, middle, upper]


def debugfs(image: Path, command: str) -> str:
    argv = ["/sbin/debugfs", "-R", command, f"{image}?offset={MIB}"]
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout


def build(account: Account, name: str, base: str, output: Path) -> Outcome:
    recipe = account.write(account.directory / f"{name}.yml", recipe_text(name, base))
    return account.run(
        "build", recipe, "--output", output, "--no-boot-test", "--accel", "tcg", "--json",
        "--progress", "plain",
    )  # fmt: skip


@pytest.fixture(scope="module")
def built(account: Account, registry: Registry, layers: list[Path]) -> tuple[Outcome, Path, str]:
    reference = registry.push("tiny:three", *layers)
    output = account.make_directory("image-base")
    outcome = build(account, "layered", reference, output)
    assert outcome.status == 0, outcome.stderr
    return outcome, output, reference


Built = tuple[Outcome, Path, str]


def test_the_layers_are_applied_as_the_specification_says(account: Account, built: Built) -> None:
    image = built[1] / "layered.raw"
    assert debugfs(image, "cat /srv/kept") == "kept"
    assert debugfs(image, "cat /opt/new") == "new"
    assert debugfs(image, "cat /usr/bin/through-the-link") == "tool"
    assert debugfs(image, "cat /run/particle-os/agent.pyz") in ("evil", "")
    names = {place: debugfs(image, f"ls -p {place}") for place in ("/srv", "/opt")}
    assert "/gone/" not in names["/srv"]
    assert "/.wh." not in names["/srv"] + names["/opt"]
    assert "/old/" not in names["/opt"]
    assert "/null/" not in names["/opt"]
    kept = debugfs(image, "stat /srv/kept")
    assert "Links: 2" in kept
    assert "Mode:  04751" in kept
    assert "User:    12   Group:    34" in kept
    assert debugfs(image, "stat /srv").count("Mode:  02775") == 1
    assert "security.capability" in debugfs(image, "ea_list /srv/ping")
    assert leftovers(account, built[1]) == []


def test_the_result_names_the_digest_of_the_manifest(registry: Registry, built: Built) -> None:
    outcome, _, reference = built
    raw = subprocess.run(
        ["skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}", reference],
        check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert outcome.json()["base"] == reference
    assert outcome.json()["base_digest"] == raw.stdout.strip()


def test_what_was_fetched_is_not_fetched_again(
    account: Account, registry: Registry, built: Built
) -> None:
    """A rebuild without a change and a build from another name of the image fetch nothing."""
    before = registry.downloads()
    assert before, "the first build fetched the base from this registry"
    again = build(account, "layered", built[2], built[1])
    assert again.status == 0, again.stderr
    assert "nothing has changed" in again.stderr
    pinned = f"docker://{registry.host}/tiny@{built[0].json()['base_digest']}"
    other = build(account, "pinned", pinned, account.make_directory("image-base-pinned"))
    assert other.status == 0, other.stderr
    assert "push base" not in other.stderr, "the build reuses the checkpoint of the base"
    assert registry.downloads() == before


def test_another_architecture_is_refused_before_any_vm(
    account: Account, registry: Registry, tmp_path: Path
) -> None:
    layout = Layout(tmp_path / "layout")
    image = layout.image(b"no layer is looked at", architecture="arm64")
    reference = registry.copy(layout.name(image), "tiny:arm")
    output = account.make_directory("image-base-arm")
    outcome = build(account, "arm-image", reference, output)
    assert outcome.status == 2
    assert f"{reference} is for arm64, and amd64 is wanted" in outcome.stderr
    assert "start VM" not in outcome.stderr
    assert list(output.iterdir()) == []


def test_a_base_that_is_no_debian_is_refused_before_the_first_stage(
    account: Account, registry: Registry, layers: list[Path], tmp_path: Path
) -> None:
    alpine = layer(tmp_path / "alpine.tar", ("etc/os-release", b"ID=alpine\n", {}))
    reference = registry.push("tiny:alpine", layers[0], alpine)
    output = account.make_directory("image-base-alpine")
    outcome = build(account, "alpine", reference, output)
    assert outcome.status == 2
    assert "the base is no Debian, nor like one: alpine" in outcome.stderr
    assert "stage 1" not in outcome.stderr
    assert leftovers(account, output) == []


def test_what_the_stages_need_is_looked_for_before_the_first_stage(
    account: Account, tiny_base: Path
) -> None:
    text = recipe_text("needy", f"tar:{tiny_base}").replace(
        "stages:\n",
        "stages:\n  - {type: hostname, hostname: box}\n  - {type: locale, default: de_DE.UTF-8}\n"
        "  - {type: users, users: [{name: a, groups: [docker]}]}\n",
    )
    recipe = account.write(account.directory / "needy.yml", text)
    output = account.make_directory("needy")
    outcome = account.run("build", recipe, "--output", output, "--accel", "tcg", "--json")
    assert outcome.status == 3
    error = json.loads(outcome.stderr.splitlines()[-1])
    assert error["where"] == f"stage 2 (locale), {recipe}:5"
    assert "locale de_DE.UTF-8 needs the package 'locales'" in error["error"]
    assert error["tail"] == ["users: user a: no stage before makes the group 'docker'"]
    stages = json.loads((output / "needy.failed/needy.result.json").read_text())["stages"]
    assert [stage["status"] for stage in stages] == ["not-run", "failed", "not-run", "not-run"]
    assert leftovers(account, output) == []


def test_what_is_fetched_is_in_the_cache_and_whole(account: Account, built: Built) -> None:
    listed = account.run("cache", "list", "--json").json()
    assert {entry["kind"] for entry in listed} >= {"image", "checkpoint", "helper"}
    names = {entry["name"] for entry in listed if entry["kind"] == "image"}
    assert built[0].json()["base_digest"].removeprefix("sha256:") in names
    assert account.run("cache", "verify").status == 0


def test_a_registry_without_tls_elsewhere_is_not_talked_to(account: Account) -> None:
    """Any name other than loopback's needs a certificate, even if it resolves to loopback."""
    host = socket.gethostname()
    output = account.make_directory("image-base-elsewhere")
    outcome = build(account, "elsewhere", f"docker://{host}:9/tiny:three", output)
    assert outcome.status == 5
    assert "https://" in outcome.stderr or "lookup" in outcome.stderr
    assert "http://" not in outcome.stderr
