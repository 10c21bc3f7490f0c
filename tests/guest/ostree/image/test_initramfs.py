"""The scripts of initramfs-tools that mount a deployment, run by a shell."""

import subprocess

import pytest
from particle_agent.ostree.image import initramfs
from particle_agent.ostree.image.choices import RootSettings


@pytest.fixture
def script(tmp_path):
    """A function that runs the script of the initramfs with a command line of the kernel."""

    def script(words, *arguments):
        (tmp_path / "cmdline").write_text(words)
        prepare = tmp_path / "prepare-root"
        prepare.write_text('#!/bin/sh\necho "prepare $*"\n')
        prepare.chmod(0o755)
        text = initramfs.SCRIPT.replace("/proc/cmdline", str(tmp_path / "cmdline"))
        text = text.replace(initramfs.PREPARE_ROOT, str(prepare))
        argv = ["sh", "-c", text, "ostree", *arguments]
        env = {"rootmnt": "/root", "PATH": "/usr/bin:/bin"}
        done = subprocess.run(argv, capture_output=True, text=True, check=True, env=env)
        assert done.stderr == ""
        return done.stdout

    return script


@pytest.mark.parametrize(
    ("words", "prepared"),
    [
        ("root=UUID=1 rw ostree=/ostree/boot.1/debian/a/0 quiet\n", True),
        ("ostree=/ostree/boot.1/debian/a/0\n", True),
        ("root=UUID=1 rw quiet\n", False),
        ("root=UUID=1 noostree=1 x-ostree=2\n", False),
        ("a=* b=$(echo) \\ 'c ostree=/x\n", True),
    ],
)
def test_a_deployment_is_mounted_when_the_command_line_names_one(script, words, prepared):
    assert script(words) == ("prepare /root\n" if prepared else "")


def test_the_script_has_no_predecessors(script):
    assert script("ostree=/x\n", "prereqs") == ""


def test_the_hook_copies_the_program_and_its_configuration(tmp_path):
    tools, image = tmp_path / "tools", tmp_path / "image"
    for place in (tools, image):
        place.mkdir()
    (tools / "hook-functions").write_text('copy_exec() { echo "copy $*"; }\n')
    configuration = tmp_path / "prepare-root.conf"
    configuration.write_text(RootSettings().text)
    text = initramfs.HOOK.replace(initramfs.TOOLS, str(tools))
    text = text.replace(f"cp {initramfs.CONFIGURATION}", f"cp {configuration}")
    argv = ["sh", "-e", "-c", text, "ostree"]
    env = {"DESTDIR": str(image), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env=env)
    assert done.stdout == f"copy {initramfs.PREPARE_ROOT}\n"
    found = image / initramfs.CONFIGURATION.lstrip("/")
    assert found.read_text() == "[sysroot]\nreadonly = true\n"


def test_the_needs_name_the_packages():
    packages = [need.packages[0] for need in initramfs.package_needs()]
    assert packages == ["ostree-boot", "initramfs-tools"]


@pytest.mark.parametrize("path", [initramfs.CONFIGURATION, initramfs.OTHER_CONFIGURATION])
@pytest.mark.parametrize(
    ("value", "noted"), [("yes", True), ("signed", True), ("no", False), ("maybe", False)]
)
def test_the_composefs_of_a_bootc_image_is_replaced(target, path, value, noted):
    target.write(path, f"[composefs]\nenabled = {value}\n[sysroot]\nreadonly = true\n")
    initramfs.make(target, "6.12", RootSettings())
    assert target.read(initramfs.CONFIGURATION) == "[sysroot]\nreadonly = true\n"
    assert not target.exists(initramfs.OTHER_CONFIGURATION)
    assert any("asks for a composefs" in note for note in target.report.notes) == noted
