"""Recipes for arm64: what boots there is accepted, and what cannot is refused with a way out."""

import pytest
from particle_os.errors import InvalidDocument, UsageError
from particle_os.recipe import loading

APT = "  - {type: apt, packages: [linux-image-cloud-arm64, systemd-sysv, systemd-boot]}\n"
DISK = "  - {type: qemu, boot-loader: systemd-boot}\n"


def load(tmp_path, stages, top="architecture: arm64\n", more="", **options):
    path = tmp_path / "recipe.yml"
    path.write_text(f"name: x\n{top}stages:\n{stages}{more}")
    return loading.load(path, **options)


def problems(tmp_path, stages, **options):
    with pytest.raises(InvalidDocument) as raised:
        load(tmp_path, stages, **options)
    return list(raised.value.problems)


def apt(*packages):
    return f"  - {{type: apt, packages: [{', '.join(packages)}]}}\n"


def test_a_recipe_for_arm64_boots_from_uefi(tmp_path):
    loaded = load(tmp_path, APT + DISK)
    assert loaded.architecture.name == "arm64"
    assert loaded.firmwares == ("uefi",)


@pytest.mark.parametrize(
    ("disk", "message", "hint"),
    [
        ("", "boot-loader: extlinux starts from bios, and arm64 has uefi", "write 'systemd-boot'"),
        ("    boot-loader: extlinux\n", "boot-loader: extlinux starts from bios", "or 'grub'"),
        ("    boot-loader: grub\n    partition-table: msdos\n", "partition-table: ", "write 'gpt'"),
    ],
)
def test_a_disk_that_no_machine_boots_is_refused(tmp_path, disk, message, hint):
    packages = apt("linux-image-arm64", "systemd-sysv", "grub-efi-arm64-bin", "grub2-common")
    (problem,) = problems(tmp_path, f"{packages}  - type: qemu\n{disk}")
    assert message in problem.message
    assert hint in problem.hint


def test_a_boot_test_under_bios_is_refused(tmp_path):
    (problem,) = problems(tmp_path, APT + DISK, more="boot-test: {firmware: [bios]}\n")
    assert problem.message == ("firmware: machines of arm64 have uefi and uefi-secure, no bios")


@pytest.mark.parametrize(
    "package", ["raspi-firmware", "u-boot-rpi", "flash-kernel", "arm-trusted-firmware-tools"]
)
def test_boards_without_uefi_are_refused_with_what_is_missing(tmp_path, package):
    (problem,) = problems(tmp_path, APT + apt(package) + DISK)
    assert problem.message == (
        f"'{package}' is for boards without UEFI: they start from files and sectors that their own "
        "firmware knows, and particle-os writes neither"
    )
    assert "machines with UEFI" in problem.hint


@pytest.mark.parametrize(
    ("package", "right"),
    [
        ("linux-image-cloud-amd64", "linux-image-cloud-arm64"),
        ("linux-headers-amd64", "linux-headers-arm64"),
        ("grub-efi-amd64-signed", "grub-efi-arm64-signed"),
        ("systemd-boot-efi-amd64-signed", "systemd-boot-efi-arm64-signed"),
    ],
)
def test_a_package_of_another_architecture_is_refused_with_its_name_here(tmp_path, package, right):
    (problem,) = problems(tmp_path, APT + apt(package) + DISK)
    assert problem.message == f"'{package}' is a package for amd64, and the image is for arm64"
    assert f"write '{right}'" in problem.hint
    assert "when: {architecture: amd64}" in problem.hint


def test_the_name_of_another_architecture_is_right_in_its_own_stage_and_in_a_cross_compiler(
    tmp_path,
):
    own = "  - type: apt\n    packages: [linux-image-amd64]\n    when: {architecture: amd64}\n"
    loaded = load(tmp_path, own + APT + apt("libc6-dev-amd64-cross") + DISK)
    assert [stage.type for stage in loaded.recipe.stages] == ["apt", "apt", "qemu"]


def test_grub_for_bios_is_refused(tmp_path):
    (problem,) = problems(tmp_path, APT + apt("grub-pc-bin") + DISK)
    assert "starts machines with a BIOS" in problem.message
    assert "'grub-efi-arm64-bin'" in problem.hint


def test_what_is_missing_has_the_name_of_the_architecture(tmp_path):
    (problem,) = problems(tmp_path, apt("systemd-sysv", "systemd-boot") + DISK)
    assert "add 'linux-image-cloud-arm64' (for virtual machines)" in problem.hint


def test_the_facts_about_packages_of_amd64_hold_for_their_twins(tmp_path):
    stages = apt("linux-image-arm64", "systemd-sysv", "grub-efi-arm64")
    loaded = load(tmp_path, f"{stages}  - {{type: qemu, boot-loader: grub}}\n")
    assert loaded.disk.boot_loader == "grub"


def test_secure_boot_needs_the_signed_packages_of_the_architecture(tmp_path):
    stages = apt("linux-image-arm64", "systemd-sysv", "grub-efi-arm64-bin", "grub2-common")
    found = problems(
        tmp_path,
        f"{stages}  - {{type: qemu, boot-loader: grub}}\n",
        more="boot-test: {firmware: [uefi-secure]}\n",
    )
    assert any("grub-efi-arm64-signed" in problem.message for problem in found)


AMD64 = "  - {type: apt, packages: ['linux-image-cloud-${arch}', systemd-sysv, systemd-boot]}\n"
VARIABLE = "variables: {arch: {default: amd64}}\narchitecture: ${arch}\n"


def test_the_command_line_replaces_the_architecture(tmp_path):
    loaded = load(tmp_path, APT + DISK, top="architecture: amd64\n", architecture="arm64")
    assert loaded.recipe.architecture == "arm64"
    loaded = load(tmp_path, APT + DISK, top="", architecture="arm64")
    assert loaded.recipe.architecture == "arm64"


def test_the_command_line_sets_the_variable_that_the_architecture_comes_from(tmp_path):
    loaded = load(tmp_path, AMD64 + DISK, top=VARIABLE, architecture="arm64")
    assert loaded.recipe.architecture == "arm64"
    assert "linux-image-cloud-arm64" in loaded.recipe.stages[0].packages


def test_an_architecture_is_an_axis_of_a_matrix(tmp_path):
    top = f"{VARIABLE}matrix: {{arch: [amd64, arm64]}}\n"
    path = tmp_path / "recipe.yml"
    path.write_text(f"name: 'x-${{arch}}'\n{top}stages:\n{AMD64}{DISK}")
    assert loading.images(path) == ({"arch": "amd64"}, {"arch": "arm64"})
    assert loading.images(path, {}, "arm64") == ({"arch": "arm64"},)
    names = {
        loading.load(path, values).recipe.name: loading.load(path, values).firmwares
        for values in loading.images(path)
    }
    assert names == {"x-amd64": ("uefi",), "x-arm64": ("uefi",)}
    with pytest.raises(UsageError, match="has no image with arch=s390x"):
        loading.images(path, {"arch": "s390x"})


def test_an_architecture_that_no_image_is_made_for_is_refused(tmp_path):
    found = problems(tmp_path, APT + DISK, top="architecture: riscv64\n")
    assert any("architecture" in problem.message for problem in found)


def test_a_single_stage_is_for_the_architecture_of_the_command_line(tmp_path):
    path = tmp_path / "options.yml"
    path.write_text("hostname: box\n")
    options = {"base": "tar:base.tar", "allow_outside": False}
    loaded = loading.load_stage("hostname", path, architecture="arm64", **options)
    assert loaded.recipe.architecture == "arm64"
    assert loading.load_stage("hostname", path, **options).recipe.architecture == "amd64"
