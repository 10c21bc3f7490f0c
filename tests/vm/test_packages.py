"""The wheel and the Debian package, installed in fresh systems, as users install them."""

from __future__ import annotations

import os
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import TOP
from .fresh_root import FreshRoot

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root makes a system in a directory")
BUILD = ("debhelper", "dh-python", "lintian", "make", "pybuild-plugin-pyproject", "python3-all",
         "python3-hatchling", "build-essential")  # fmt: skip
MOST_BYTES = 2 << 20


def version() -> str:
    text = (TOP / "host/particle_os/__init__.py").read_text()
    return text.partition('__version__ = "')[2].partition('"')[0]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The Debian package, as `make deb` makes it on Debian 13."""
    root = FreshRoot.make(tmp_path_factory.mktemp("build") / "root", BUILD)
    root.copy_tree(TOP, "/srv/particle-os")
    # `make deb` also runs lintian, and fails when it warns.
    root.run("make", "-C", "/srv/particle-os", "deb")
    yield root.directory / f"srv/particle-os/out/deb/particle-os_{version()}_all.deb"
    root.remove()


@pytest.fixture(scope="module")
def installed(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FreshRoot]:
    """A fresh system with the package and what it depends on, and without pip."""
    root = FreshRoot.make(tmp_path_factory.mktemp("install") / "root", [])
    root.install(package)
    yield root
    root.remove()


def test_the_debian_package_is_small_and_has_its_sum(package: Path) -> None:
    assert package.stat().st_size < MOST_BYTES
    subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=package.parent, check=True)


def test_the_debian_package_works_for_an_ordinary_user(installed: FreshRoot) -> None:
    assert installed.attempt("pip", "--version").returncode != 0
    assert installed.run("particle-os", "version", user=True).stdout.split()[-1] == version()
    installed.run("particle-os", "doctor", user=True)
    installed.run("particle-os", "init", "minimal", "-o", "my.yml", user=True)
    installed.run("particle-os", "validate", "my.yml", user=True)
    # They are what depends most on the versions of libraries.
    schema = installed.run("particle-os", "schema", user=True).stdout
    assert schema == (TOP / "recipes/schema.json").read_text()
    assert "uid" in installed.run("particle-os", "explain", "users.users", user=True).stdout
    listed = installed.run("particle-os", "list", "recipes", user=True).stdout
    assert "minimal-test" in listed


def test_the_debian_package_brings_manual_pages_and_completions(installed: FreshRoot) -> None:
    for path in (
        "man/man1/particle-os-build.1.gz",
        "bash-completion/completions/particle-os",
        "fish/vendor_completions.d/particle-os.fish",
        "zsh/vendor-completions/_particle-os",
        "doc/particle-os/README.md.gz",
    ):
        assert (installed.directory / "usr/share" / path).is_file(), path


def test_a_removed_package_leaves_nothing(package: Path, installed: FreshRoot) -> None:
    """It is installed again for the tests that follow."""
    installed.run("apt-get", "purge", "--yes", "particle-os")
    left = [p for p in (installed.directory / "usr").rglob("*particle*") if "doc" not in p.parts]
    assert left == []
    installed.install(package)


@pytest.mark.weekly
def test_the_debian_package_builds_and_boots_an_image(installed: FreshRoot) -> None:
    """As `make demo` does, in a system that has nothing else."""
    built = installed.run(
        "particle-os", "build", "minimal-test", "--output", "out", "--progress", "plain", user=True
    )
    assert "passed" in built.stdout + built.stderr
    assert (installed.directory / "home/builder/out/minimal-test.qcow2").is_file()


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheel and the sdist of `make wheel`."""
    place = tmp_path_factory.mktemp("wheel")
    subprocess.run(["make", "-C", TOP, "wheel", f"OUT={place}"], check=True, timeout=900)
    (wheel,), (sdist,) = (place / "dist").glob("*.whl"), (place / "dist").glob("*.tar.gz")
    return {"wheel": wheel, "sdist": sdist}


def test_the_wheel_and_the_sdist_are_small_and_complete(distributions: dict[str, Path]) -> None:
    """The wheel is built from the sdist. The tests of builds install a wheel of the same files."""
    assert max(path.stat().st_size for path in distributions.values()) < MOST_BYTES
    with zipfile.ZipFile(distributions["wheel"]) as wheel:
        names = set(wheel.namelist())
    for name in (
        "recipes/templates/server.yml",
        "vm-templates/debian-trixie.yml",
        "recipes/schema.json",
    ):
        assert f"particle_os/data/{name}" in names
    shared = {name.partition(".data/data/")[2] for name in names}
    assert "share/man/man1/particle-os-build.1" in shared
    assert "share/bash-completion/completions/particle-os" in shared


@pytest.mark.weekly
@pytest.mark.parametrize(("tool", "kind"), [("pipx", "wheel"), ("uv", "wheel"), ("pipx", "sdist")])
def test_an_installed_program_builds_and_boots_an_image(
    tool: str, kind: str, distributions: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Installed by a tool for programs of Python."""
    root = FreshRoot.make(tmp_path_factory.mktemp("root") / "root", ["pipx"])
    try:
        _check_installed(root, distributions[kind], tool)
    finally:
        root.remove()


def _check_installed(root: FreshRoot, file: Path, tool: str) -> None:
    root.take_network_settings()
    root.install("ca-certificates")
    place = f"/tmp/{file.name}"
    (root.directory / place.lstrip("/")).write_bytes(file.read_bytes())
    if tool == "uv":
        root.run("pipx", "install", "uv", user=True)
        # uv has certificates of its own, and those of the system are others on some networks.
        uv = ("env", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt", ".local/bin/uv")
        root.run(*uv, "tool", "install", "--no-python-downloads", place, user=True)
    else:
        root.run("pipx", "install", place, user=True)
    program = ".local/bin/particle-os"
    # `doctor` names what is missing, and this installs it.
    told = root.attempt(program, "doctor", user=True)
    line = next(line for line in told.stdout.splitlines() if line.startswith("all that is missing"))
    root.install(*line.partition("apt install")[2].split())
    built = root.run(program, "build", "minimal-test", "--output", "out", user=True)
    assert "passed" in built.stdout + built.stderr
    assert (root.directory / "home/builder/out/minimal-test.qcow2").is_file()
