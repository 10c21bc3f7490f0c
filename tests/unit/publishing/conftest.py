import hashlib
import json
import subprocess

import pytest
from click.testing import CliRunner
from particle_os.cli.publishing.pull import pull_command
from particle_os.cli.publishing.push import push_command
from particle_os.report.pages import POLICY
from particle_os.report.results import ArtifactResult

from ...registry import Small, debian_registry, serving
from ..registry.conftest import quickly  # noqa: F401 - fixture
from ..report.pages import result as sample

MIB = 1 << 20


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Published:
    """The files of a build in the directory `out`."""

    def __init__(self, directory, name="server"):
        self.out, self.name = directory, name
        directory.mkdir()

    def build(self, *formats, status="passed", created=1e9, text=b"the system"):
        """Writes images with the same content, and their result and report."""
        raw = self.out / f"{self.name}.raw"
        with raw.open("wb") as file:
            file.truncate(3 * MIB)
            file.seek(MIB)
            file.write(text * 1000)
        for name in formats:
            self._write(name, raw)
        if "raw" not in formats:
            raw.unlink()
        found = sample(
            "text", recipe=self.name, status=status, created=created, architecture="amd64",
            artifacts=tuple(map(self._artifact, formats)),
        )  # fmt: skip
        self.file("result.json").write_text(found.model_dump_json())
        self.file("report.html").write_text(f"{POLICY}<title>x</title></head></html>")
        return self

    def _write(self, name, raw):
        path = self.file(name)
        if name == "raw.zst":
            subprocess.run(["zstd", "-q", "-o", path, raw], check=True)
        elif name != "raw":
            kind = {"vhd": "vpc"}.get(name, name)
            argv = ["qemu-img", "convert", "-f", "raw", "-O", kind, raw, path]
            subprocess.run(argv, check=True)

    def _artifact(self, name):
        path = self.file(name)
        return ArtifactResult(
            path=path.name, format=name.partition(".")[0],
            compression="zstd" if name.endswith("zst") else None, bytes=path.stat().st_size,
            virtual_bytes=3 * MIB, allocated_bytes=MIB, sha256=sha256(path), tree_sha256="0",
        )  # fmt: skip

    def file(self, ending):
        return self.out / f"{self.name}.{ending}"


class Client:
    """The commands `push` and `pull`, and the reference that they use."""

    def __init__(self, host, directory, known=None):
        self.host, self.known = host, known
        self.place = f"docker://{host}/team/server:1"
        self.directory = directory

    def push(self, *words, status=0):
        return self._run(push_command, [*map(str, words)], status)

    def pull(self, *words, reference=None, status=0, into="pulled"):
        """The data that `pull` shows; its error if the exit status is another than 0."""
        words = [reference or self.place, "-o", str(self.directory / into), *words]
        return self._run(pull_command, words, status)

    def _run(self, command, words, status):
        done = CliRunner().invoke(command, [*words, "--json"])
        assert done.exit_code == status, done.output
        # JSON on standard error is the error.
        return json.loads(done.stdout if status == 0 else done.stderr.splitlines()[-1])


@pytest.fixture
def published(tmp_path):
    return Published(tmp_path / "out").build("qcow2")


@pytest.fixture
def known():
    return Small()


@pytest.fixture
def client(known, tmp_path):
    with serving(known) as host:
        yield Client(host, tmp_path, known)


@pytest.fixture
def debian(tmp_path):
    """A client of Debian's docker-registry."""
    place = tmp_path / "registry"
    place.mkdir()
    with debian_registry(place) as host:
        yield Client(host, tmp_path)
