"""Needs that any stage may meet: of an initramfs, and of the boot test."""

import pytest
from particle_os.errors import InvalidDocument

from .test_dependencies import KERNEL, load

GOSS = "boot-test: {goss: g.yaml}\n"
USER_DATA = "boot-test: {user-data: '#cloud-config'}\n"
PACKAGE = "boot-test: {checks: [{package: nginx-common}]}\n"
USER = "boot-test: {checks: [{user: deploy}]}\n"


def compression(name):
    return f"  - {{type: kernel, compression: {name}}}\n"


def later(tmp_path, stages, top=""):
    """The kind, place and message of each need that no stage of a recipe meets."""
    (tmp_path / "g.yaml").write_text("file: {}\n")
    try:
        found = load(tmp_path, stages, top).notes
        kind = "note"
    except InvalidDocument as invalid:
        found, kind = invalid.problems, "error"
    return [(kind, each.line, each.message) for each in found if each.code == "missing-need"]


@pytest.mark.parametrize(
    ("stages", "top", "line", "kind", "message"),
    [
        (KERNEL + compression("zstd"), "", 4, "error", "the initramfs needs the package 'zstd'"),
        (compression("lz4") + KERNEL, "", 3, "error", "the initramfs needs the package 'lz4'"),
        (KERNEL, GOSS, 2, "error", "the program 'goss', which no stage installs"),
        (KERNEL, USER_DATA, 2, "note", "no stage installs 'cloud-init'"),
        (KERNEL, PACKAGE, 2, "note", "no stage names the package 'nginx-common'"),
        (KERNEL, USER, 2, "note", "no stage makes the user 'deploy'"),
    ],
)
def test_what_no_stage_of_the_recipe_brings_is_seen_before_the_build(
    tmp_path, stages, top, line, kind, message
):
    ((found, at, text),) = later(tmp_path, stages, top)
    assert (found, at, message in text) == (kind, line, True)


@pytest.mark.parametrize(
    ("stages", "top"),
    [
        (compression("gzip"), ""),
        (compression("zstd") + "  - {type: apt, packages: [zstd]}\n", ""),
        ("  - {type: apt, packages: [lz4]}\n" + compression("lz4"), ""),
        ("  - {type: apt, packages: [build-essential]}\n" + compression("xz"), ""),
        (compression("zstd") + "  - {type: run, command: [make-zstd]}\n", ""),
        ("  - {type: apt, packages: [goss]}\n", GOSS),
        ("  - {type: files, files: [{path: /usr/local/bin/goss, content: x}]}\n", GOSS),
        ("  - {type: apt, packages: [cloud-init]}\n", USER_DATA),
        ("  - {type: apt, packages: [nginx]}\n", PACKAGE),
        ("  - {type: users, users: [{name: deploy}]}\n", USER),
        ("", "boot-test: {checks: [{user: www-data}, {package: systemd}]}\n"),
    ],
)
def test_what_some_stage_brings_is_not_missed(tmp_path, stages, top):
    assert later(tmp_path, KERNEL + stages, top) == []


def test_a_recipe_of_another_base_may_have_everything(tmp_path):
    (tmp_path / "base.tar").write_text("")
    top = "base-image: tar:base.tar\n" + GOSS
    assert later(tmp_path, compression("zstd"), top) == []


def test_what_an_unknown_package_may_bring_is_only_noted(tmp_path):
    ((kind, _, message),) = later(tmp_path, KERNEL + "  - {type: apt, packages: [htopp]}\n", GOSS)
    assert (kind, "it seems" in message) == ("note", True)
