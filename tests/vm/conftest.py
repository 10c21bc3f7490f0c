"""Fixtures of the VM tests: an ordinary user, an installed wheel, a tiny base, a built image.

The program under test is the wheel. It is installed outside the clone and run by a user that can
gain no privileges (see confine.py). All files lie in one directory, which is removed at the end.
The directory that PARTICLE_OS_TEST_DIRECTORY names stays, so that the helper VM is made only once.

With pytest-xdist each worker has its own home, cache and outputs in that directory, so that a test
only sees what builds of its worker leave behind. The workers share slow and constant results
(helpers, bases, checkpoints, the wheel, the built image): the first worker that needs one makes it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import io
import json
import os
import pwd
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from particle_os.system.deadline import Deadline
from particle_os.system.workspace import locked

from .processor_time import ProcessorTime

TOP = Path(__file__).parents[2]
CONFINE = Path(__file__).with_name("confine.py")
USER = "particle-os-test"
# Long, because the emulated machines of CI are slow; the limit only ends a hang.
COMMAND_SECONDS = 3000.0
# The sign of a kernel of arm64 (Documentation/arch/arm64/booting.rst in Linux).
ARM64_MAGIC = b"ARM\x64"
FIRST = (
    "build", "base", "ostree", "arm64", "debian_12", "packages", "warm", "secrets", "apt",
    "large_layer", "boot_loaders", "boot_test", "mutations", "stages", "faults",
)  # fmt: skip
DIRECTORY = "PARTICLE_OS_TEST_DIRECTORY"


@dataclass
class Outcome:
    """The exit status and the output of a command."""

    status: int
    stdout: str
    stderr: str
    seconds: float

    def json(self) -> Any:
        return json.loads(self.stdout)


@dataclass
class Account:
    """The ordinary user: its ids, its directories, and the way to run particle-os as this user."""

    uid: int
    gid: int
    directory: Path
    venv: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def cache(self) -> Path:
        return Path(self.environment["XDG_CACHE_HOME"]) / "particle-os"

    def start(
        self,
        *arguments: str | Path,
        program: str = "particle-os",
        stdin: int = subprocess.DEVNULL,
        **environment: str,
    ) -> subprocess.Popen[str]:
        """Starts a program of the user's venv, confined, and does not wait for its end."""
        confined = [sys.executable, str(CONFINE), str(self.uid), str(self.gid)]
        return subprocess.Popen(
            [*confined, str(self.venv / "bin" / program), *map(str, arguments)],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.directory / "home",
            env={**self.environment, **environment},
        )

    def run(
        self,
        *arguments: str | Path,
        program: str = "particle-os",
        text: str = "",
        **environment: str,
    ) -> Outcome:
        """Runs a program of the user's venv, confined, to its end; `text` is its standard input."""
        started = time.monotonic()
        process = self.start(*arguments, program=program, stdin=subprocess.PIPE, **environment)
        try:
            stdout, stderr = process.communicate(text, timeout=COMMAND_SECONDS)
        finally:
            process.kill()
        return Outcome(process.returncode, stdout, stderr, time.monotonic() - started)

    def make_directory(self, name: str) -> Path:
        path = self.directory / name
        path.mkdir(exist_ok=True)
        os.chown(path, self.uid, self.gid)
        return path

    def write(self, path: Path, text: str) -> Path:
        path.write_text(text)
        os.chown(path, self.uid, self.gid)
        return path


def _make_user() -> tuple[int, int]:
    """Returns uid and gid: of the user USER when root runs the tests, else of the caller."""
    if os.getuid() != 0:
        return os.getuid(), os.getgid()
    with contextlib.suppress(KeyError):
        entry = pwd.getpwnam(USER)
        return entry.pw_uid, entry.pw_gid
    subprocess.run(["useradd", "--no-create-home", "--system", USER], check=True)
    entry = pwd.getpwnam(USER)
    return entry.pw_uid, entry.pw_gid


def _python_for_all() -> str:
    """A Python that an ordinary user may run: that of the tests may lie in root's home."""
    return "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable


def pytest_configure(config: pytest.Config) -> None:
    """Makes the directory of this session, which the workers share."""
    config.pluginmanager.register(ProcessorTime())
    if hasattr(config, "workerinput") or DIRECTORY in os.environ:
        return
    os.environ[DIRECTORY] = tempfile.mkdtemp(prefix="particle-os-", dir="/var/tmp")
    config.add_cleanup(lambda: shutil.rmtree(os.environ.pop(DIRECTORY), ignore_errors=True))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Orders the modules: while one worker makes the shared image, others run tests without it."""
    names = [f"test_{name}" for name in FIRST]
    items.sort(key=lambda item: names.index(n) if (n := item.path.stem) in names else len(names))


@pytest.fixture(scope="session")
def session(testrun_uid: str) -> Path:
    """The directory that the workers share; the user cannot write to the clone."""
    directory = Path(os.environ[DIRECTORY])
    directory.mkdir(exist_ok=True)
    directory.chmod(0o755)
    with once(directory / "venv", testrun_uid) as missing:
        if missing:
            install_wheel(directory)
    return directory


@contextlib.contextmanager
def once(path: Path, session: str) -> Iterator[bool]:
    """Yields whether the caller must make `path` in this session; other workers wait meanwhile."""
    mark = path.with_name(f"{path.name}.made")
    with locked(path.with_name(f"{path.name}.lock"), Deadline.after(COMMAND_SECONDS, "the test")):
        missing = not mark.exists() or mark.read_text() != session
        yield missing
        if missing:
            mark.write_text(session)


def make_account(session: Path, name: str) -> Account:
    """The ordinary user, with home and cache in the directory `name` of the session."""
    uid, gid = _make_user()
    directory = session / name
    directory.mkdir(exist_ok=True)
    user = Account(uid, gid, directory, session / "venv")
    os.chown(directory, uid, gid)
    home = user.make_directory("home")
    user.environment = {
        "HOME": str(home),
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "XDG_CACHE_HOME": str(user.make_directory("cache")),
        **{k: v for k, v in os.environ.items() if k.lower().endswith("_proxy")},
    }
    _share_cache(user, session / "shared")
    return user


@pytest.fixture(scope="session")
def account(session: Path, worker_id: str) -> Iterator[Account]:
    """The ordinary user, with the wheel of this tree installed in its own venv."""
    user = make_account(session, worker_id)
    try:
        yield user
        assert user_qemus(user) == [], "a test left QEMU processes behind"
    finally:
        for pid in user_qemus(user):
            os.kill(pid, 9)


def _share_cache(user: Account, shared: Path) -> None:
    user.cache.mkdir(exist_ok=True, mode=0o700)
    os.chown(user.cache, user.uid, user.gid)
    for name in ("helpers", "bases", "checkpoints"):
        directory = shared / name
        directory.mkdir(exist_ok=True, parents=True, mode=0o700)
        os.chown(directory, user.uid, user.gid)
        if not (user.cache / name).is_symlink():
            (user.cache / name).symlink_to(directory)


def install_wheel(directory: Path) -> None:
    """Installs the wheel outside the clone."""
    venv, source = directory / "venv", directory / "source"
    shutil.rmtree(source, ignore_errors=True)
    ignore = shutil.ignore_patterns(
        ".venv", ".git", "__pycache__", "out", ".*_cache", ".hypothesis"
    )
    shutil.copytree(TOP, source, ignore=ignore)
    if not venv.exists():
        subprocess.run([_python_for_all(), "-m", "venv", venv], check=True)
    pip = [venv / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, f"{source}[testinfra]"], check=True, timeout=600)
    subprocess.run([*pip, "--force-reinstall", "--no-deps", source], check=True, timeout=600)
    shutil.rmtree(source)


def user_qemus(account: Account) -> list[int]:
    """The QEMU processes that run in the account's directories."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if not entry.name.isdigit() or not (entry / "exe").readlink().name.startswith("qemu"):
                continue
            if str(account.directory) in (entry / "cwd").readlink().as_posix():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def leftovers(account: Account, *outputs: Path) -> list[Path]:
    """Files that no build may leave: private work, hidden staging directories, sockets."""
    work = account.cache / "work"
    found = [path for path in work.iterdir() if path.name != ".lock"] if work.exists() else []
    for output in outputs:
        found += list(output.glob(".particle-os-*"))
    return found


def example(account: Account, name: str) -> Path:
    """The path of a recipe that comes with the program."""
    found = account.run("list", "recipes", "--json").json()
    return next(Path(row["path"]) for row in found if row["name"] == name)


@pytest.fixture(scope="session")
def built(account: Account, session: Path, testrun_uid: str) -> tuple[Outcome, Path]:
    """recipes/minimal-test.yml, built and boot-tested by the ordinary user without /dev/kvm.

    Each worker has its own copy.
    """
    original, told = session / "shared" / "out", session / "built.json"
    with once(session / "built", testrun_uid) as missing:
        if missing:
            told.write_text(json.dumps(dataclasses.asdict(_build_minimal(account, original))))
    output = account.make_directory("out")
    subprocess.run(["cp", "-a", "--sparse=always", f"{original}/.", output], check=True)
    return Outcome(**json.loads(told.read_text())), output


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.fixture
def copy(account: Account, built: tuple[Outcome, Path]) -> Path:
    """A copy of the built raw image, for tests that break it."""
    directory = account.make_directory("broken")
    image = directory / "image.raw"
    subprocess.run(["cp", "--sparse=always", built[1] / "minimal-test.raw", image], check=True)
    os.chown(image, account.uid, account.gid)
    return image


def _build_minimal(account: Account, output: Path) -> Outcome:
    output.mkdir(exist_ok=True)
    os.chown(output, account.uid, account.gid)
    recipe = example(account, "minimal-test")
    assert account.venv in recipe.parents, "the recipe must come from the wheel"
    outcome = account.run("build", recipe, "--output", output, "--json", "--progress", "plain")
    assert outcome.status == 0, outcome.stderr
    return outcome


def _busybox(initrd: Path) -> bytes:
    """The static busybox in the helper's initrd (cpio "newc")."""
    data = gzip.decompress(initrd.read_bytes())
    position = 0
    while True:
        fields = [int(data[position + 6 + 8 * i : position + 14 + 8 * i], 16) for i in range(13)]
        size, name_size = fields[6], fields[11]
        name = data[position + 110 : position + 109 + name_size].decode()
        start = (position + 110 + name_size + 3) & ~3
        if name == "bin/busybox":
            return data[start : start + size]
        assert name != "TRAILER!!!"
        position = (start + size + 3) & ~3


APT_GET = """#!/bin/sh
# Stands for apt where a test needs a stage that does what the test says, at once.
for argument; do package=$argument; done
case $package in
hang) echo "hanging now"; exec sleep 600 ;;
evil) printf 'red \\033[31m bell \\007 bidi\\n' ;;
said-*) echo "installing $package" ;;
flood) yes "a line of output that repeats itself" | head -n 200000 ;;
esac
exit 0
"""
ENV = """#!/bin/sh
# Stands for coreutils' env(1), as the stage `run` calls it; that of busybox lacks --chdir.
cd "${1#--chdir=}" && [ "$2" = -- ] && shift 2 && exec "$@"
"""


@pytest.fixture(scope="session")
def tiny_base(account: Account) -> Path:
    """A base of a few megabytes with busybox, stand-ins for apt and env, and a false kernel."""
    return make_tiny_base(account)


def _helpers(account: Account) -> list[Path]:
    """The directories of the helpers of amd64 in the cache."""
    found = [initrd.parent for initrd in account.cache.glob("helpers/*/initrd")]
    return [p for p in found if (p / "kernel").read_bytes()[0x38:0x3C] != ARM64_MAGIC]


def make_tiny_base(account: Account) -> Path:
    """Makes the base `tiny_base`."""
    account_path = account.directory / "tiny.tar"
    # Any build makes the helper; a build that fails immediately is the cheapest.
    missing = account.write(account.directory / "none.yml", recipe_text("none", "mmdebstrap:none"))
    if not _helpers(account):
        account.run("build", missing, "--output", account.make_directory("none"))
    initrd = _helpers(account)[0] / "initrd"
    applets = "sh sleep yes head printf cat chroot true mkdir rm sync ls".split()
    with tarfile.open(account_path, "w") as archive:

        def add(name: str, data: bytes = b"", mode: int = 0o755, link: str = "") -> None:
            member = tarfile.TarInfo(f"./{name}")
            member.mode, member.size = mode, len(data)
            if link:
                member.type, member.linkname = tarfile.SYMTYPE, link
            elif name.endswith("/"):
                member.type = tarfile.DIRTYPE
            archive.addfile(member, io.BytesIO(data))

        for directory in ("etc/", "usr/", "usr/bin/", "usr/sbin/", "boot/", "var/", "tmp/"):
            add(directory)
        add("bin", link="usr/bin")
        add("sbin", link="usr/sbin")
        add("usr/bin/busybox", _busybox(initrd))
        for applet in applets:
            add(f"usr/bin/{applet}", link="busybox")
        add("usr/sbin/init", link="../bin/busybox")
        add("usr/bin/apt-get", APT_GET.encode())
        add("usr/bin/env", ENV.encode())
        add("usr/bin/dpkg-divert", b"#!/bin/sh\nexit 0\n")
        add("boot/vmlinuz-0", b"not a kernel" * 1000)
        add("boot/initrd.img-0", b"not an initramfs" * 1000)
        add("etc/os-release", b"ID=debian\n", 0o644)
        add("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n", 0o644)
        add("etc/group", b"root:x:0:\n", 0o644)
    os.chown(account_path, account.uid, account.gid)
    return account_path


def recipe_text(name: str, base: str, *packages: str) -> str:
    """A recipe with a raw disk, and with an apt stage when `packages` has names."""
    apt = f"  - type: apt\n    update: false\n    packages: [{', '.join(packages)}]\n"
    stages = (apt if packages else "") + "  - type: qemu\n"
    return f"name: {name}\nbase-image: {base}\nstages:\n{stages}"
