"""The command line of skopeo, and its share of the user's environment and files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from particle_os.base import oci
from particle_os.errors import InfrastructureError
from particle_os.system import host_packages
from particle_os.system.confinement import GIB, Confinement
from particle_os.system.workspace import Workspace

SKOPEO = "skopeo"
# Variables with the path of a file or directory: containers-auth.json(5), containers.conf(5),
# containers-registries.conf(5), and those of Go's crypto/x509.
PATHS = (
    "REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "CONTAINERS_CONF", "CONTAINERS_REGISTRIES_CONF",
    "CONTAINERS_POLICY", "SSL_CERT_FILE", "SSL_CERT_DIR",
)  # fmt: skip
RUNTIME = "XDG_RUNTIME_DIR"
DIRECTORIES = ("HOME", RUNTIME, "XDG_CONFIG_HOME")
# Configuration, certificates and credentials of the host.
CREDENTIALS = Path("/run/containers")
HOST_FILES = (CREDENTIALS, Path("/var/lib/containers/sigstore"))
# Programs in Go reserve addresses generously.
MEMORY = 8 * GIB


def command(architecture: str, work: Workspace) -> list[str]:
    """The start of each command line. Raises InfrastructureError when skopeo is not installed."""
    if shutil.which(SKOPEO) is None:
        raise InfrastructureError(
            "bases from container images need the program 'skopeo', which is not installed",
            hint=f"Install it: {host_packages.advice(SKOPEO)}.",
        )
    platform = oci.platform_of(architecture)
    chosen = [f"--override-os={platform.os}", f"--override-arch={platform.architecture}"]
    return [SKOPEO, *chosen, f"--tmpdir={work.path}"]


def environment(work: Workspace) -> dict[str, str]:
    """The variables that skopeo gets; it keeps its notes on registries in the workspace."""
    proxies = [name for name in os.environ if name.lower().endswith("_proxy")]
    names = [name for name in (*PATHS, *DIRECTORIES, *proxies) if name in os.environ]
    given = {name: os.environ[name] for name in names}
    if RUNTIME not in given and not os.access(f"{CREDENTIALS}/{os.getuid()}", os.R_OK | os.X_OK):
        # Without the variable, skopeo looks there. If podman of root has made the directory, no
        # other user may look into it, and skopeo would end.
        given[RUNTIME] = str(work.path)
    return {**given, "XDG_DATA_HOME": str(work.path / "data"), "TMPDIR": str(work.path)}


def confinement(
    work: Workspace, sources: Sequence[Path], *stores: Path, file_size: int | None = None
) -> Confinement:
    """Access to registries, skopeo's configuration and credentials, and our directories.

    `file_size` limits each file that skopeo writes, in bytes.
    """
    given = [Path(os.environ[name]) for name in PATHS if os.environ.get(name)]
    # Paths of a variable that is not set lead nowhere.
    home, runtime = (Path(os.environ.get(name) or "/nonexistent") for name in DIRECTORIES[:2])
    settings = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    own = (home / ".docker", settings / "containers", runtime / "containers")
    return Confinement(
        reads=(*given, *own, *HOST_FILES, *sources),
        writes=(work.path, *stores),
        tcp="any",
        memory=MEMORY,
        file_size=file_size,
    )
