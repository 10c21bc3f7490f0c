"""A physical root that the real ostree(1) has made: one deployment, and GRUB's menu of it."""

import os
import shutil
import subprocess
from pathlib import Path

from particle_agent.contract.findings import Findings
from particle_agent.disk.reading import Tree
from particle_agent.ostree import boot_menu
from particle_agent.ostree.reading import systems
from particle_agent.verification import deployments, objects
from particle_agent.verification.volumes import FoundVolume

ROOT_UUID = "a6cdd9c7-f5cb-4d61-aed1-5b849a34a970"
REF = "debian/13/amd64/edge"
FILES = {
    "usr/bin/su": "program",
    "usr/bin/empty": "",
    "usr/etc/fstab": "",
    "usr/etc/ostree/remotes.d/origin.conf": '[remote "origin"]\nurl=https://u.example.org\n',
    "usr/lib/modules/6.12/initramfs.img": "initramfs",
    "usr/lib/modules/6.12/vmlinuz": "kernel",
    "usr/lib/os-release": "NAME=Debian\nID=debian\n",
    "usr/share/ä file": "text",
}


def ostree(*words, **variables):
    env = os.environ | {"LC_ALL": "C.UTF-8"} | variables
    subprocess.run(["ostree", *map(str, words)], env=env, check=True, capture_output=True)


def commit(directory, version):
    """A commit in the repository of a directory, with a file that names its version."""
    tree = directory / "tree"
    for path, text in {**FILES, "usr/share/version": version}.items():
        file = tree / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    for name in ("boot", "dev", "proc", "run", "sys", "sysroot", "tmp", "var"):
        (tree / name).mkdir(exist_ok=True)
    for path, to in {"ostree": "sysroot/ostree", "sbin": "usr/bin", "usr/bin/init": "su",
                     "usr/bin/a -> b": "c -> d"}.items():  # fmt: skip
        if not (tree / path).is_symlink():
            (tree / path).symlink_to(to)
    (tree / "usr/bin/su").chmod(0o755)
    repository = directory / "repository"
    if not repository.exists():
        ostree("init", f"--repo={repository}", "--mode=bare")
    ostree(
        "commit", f"--repo={repository}", f"--branch={REF}", "--bootable",
        f"--add-metadata-string=version={version}", tree,
    )  # fmt: skip


def deploy(directory, remote="origin"):
    """Deploys the newest commit to the physical root of a directory."""
    root = directory / "root"
    repository = root / "ostree/repo"
    if not root.exists():
        root.mkdir()
        ostree("admin", "init-fs", "--modern", root)
        for key, value in (("bootloader", "grub2"), ("bootprefix", "true")):
            ostree("config", f"--repo={repository}", "set", f"sysroot.{key}", value)
        (root / "boot/grub").mkdir()
        (root / "boot/grub/grub.cfg").touch()
        ostree("admin", "os-init", f"--sysroot={root}", "debian")
    generator = directory / "generator"
    generator.write_text(boot_menu.GENERATOR_TEXT)
    generator.chmod(0o755)
    pull = [f"--remote={remote}"] if remote else []
    name = f"{remote}:{REF}" if remote else REF
    ostree("pull-local", f"--repo={repository}", *pull, directory / "repository", REF)
    words = (f"root=UUID={ROOT_UUID}", "rw", "console=tty0", "console=ttyS0,115200", "x=a(b)")
    arguments = [f"--karg-append={word}" for word in words] if not is_deployed(root) else []
    ostree(
        "admin", "deploy", f"--sysroot={root}", "--os=debian", "--retain", *arguments, name,
        **{boot_menu.VARIABLE: str(generator)},
    )  # fmt: skip
    for place in (root / "boot/loader/grub.cfg", *(root / "boot/loader/entries").iterdir()):
        # An older ostree(1) does not know the option `bootprefix`.
        place.write_text(place.read_text().replace(" /ostree/debian-", " /boot/ostree/debian-"))
    for place in places(root):
        subprocess.run(["chattr", "-i", place], check=False, capture_output=True)
    return root


def is_deployed(root):
    return (root / "boot/loader").is_symlink()


def places(root):
    """The directories of the deployments."""
    return sorted(p for p in (root / "ostree/deploy/debian/deploy").iterdir() if p.is_dir())


class Disk:
    """A copy of a physical root, to be broken."""

    def __init__(self, made, directory):
        subprocess.run(["cp", "-a", made, directory / "disk"], check=True)
        self.root = directory / "disk"

    @property
    def deployment(self):
        return places(self.root)[0]

    @property
    def entry(self):
        return next((self.root / "boot/loader/entries").iterdir())

    @property
    def menu(self):
        return self.root / "boot/loader/grub.cfg"

    @property
    def origin(self):
        return Path(f"{self.deployment}.origin")

    @property
    def kernel(self):
        """The kernel that the entry starts."""
        return next((self.root / "boot/ostree").glob("*/vmlinuz-*"))

    def object_of(self, path):
        """The object of a file of the deployment."""
        inode = (self.deployment / path).lstat().st_ino
        objects = (self.root / "ostree/repo/objects").glob("*/*.file")
        return next(each for each in objects if each.lstat().st_ino == inode)

    def write(self, place, text):
        """Writes to a file, and to no other file that it shares its inode with."""
        place.unlink(missing_ok=True)
        place.write_text(text)

    def volume(self, tree=None):
        tree = tree or Tree(self.root)
        return FoundVolume(
            number=3, kind="ext4", uuid=ROOT_UUID, label="", entry=None, tree=tree,
            systems=tuple(systems(tree, "ext4")),
        )  # fmt: skip

    def found(self):
        """The findings about entries, menus and deployments."""
        reported = []
        findings = Findings(reported.append)
        deployments.check([self.volume()], findings)
        findings.finish()
        return [(finding.code, finding.place, finding.message) for finding in reported]

    def codes(self):
        return [code for code, _, _ in self.found()]

    def objects(self):
        """The findings about objects and the files of deployments."""
        return objects.check(Tree(self.root))


def make(directory, remote="origin", versions=("1",)):
    for version in versions:
        commit(directory, version)
        root = deploy(directory, remote)
    return root


HAVE_OSTREE = shutil.which("ostree") is not None
