"""The needs of stages in the suites of Debian, whose packages differ."""

import pytest

from .test_dependencies import KERNEL, LOCALE, apt, load, problems

GRUB = "    boot-loader: grub\n"


@pytest.mark.parametrize("suite", ["bookworm", "oldstable", "trixie", "stable"])
def test_in_a_released_suite_only_its_own_dependencies_count(tmp_path, suite):
    """In forky, unlike here, grub-pc-bin and grub-efi-amd64-bin depend on grub2-common."""
    base, few = f"mmdebstrap:{suite}", apt("grub-pc-bin", "grub-efi-amd64-bin")
    for packages in (few, few + apt("grub-efi-amd64-signed")):
        (problem,) = problems(tmp_path, packages, disk=GRUB, base=base)
        assert "needs the package 'grub2-common'" in problem.message
    for name in ("grub2-common", "grub-pc", "grub-efi-amd64"):
        load(tmp_path, few + apt(name), disk=GRUB, base=base)


def test_a_later_package_that_does_not_bring_it_in_this_suite_is_not_proposed(tmp_path):
    """In bookworm and trixie, orthanc-wsi does not depend on locales."""
    later = LOCALE + apt("orthanc-wsi")
    for base, hint in (("trixie", "add 'locales'"), ("forky", "put this stage after the 'apt'")):
        (problem, *_) = problems(tmp_path, later, base=f"mmdebstrap:{base}")
        assert hint in problem.hint


@pytest.mark.parametrize(
    "base", ["mmdebstrap:forky", "mmdebstrap:sid", "docker://debian:13", "tar:base.tar"]
)
def test_elsewhere_the_dependencies_of_any_suite_count(tmp_path, base):
    loaded = load(tmp_path, apt("grub-pc-bin", "grub-efi-amd64-bin"), disk=GRUB, base=base)
    assert "missing-need" not in {note.code for note in loaded.notes}


def test_debian_12_has_other_packages(tmp_path):
    disk = "    grow: true\n"
    bookworm, trixie = (f"base-image: mmdebstrap:{name}\n" for name in ("bookworm", "trixie"))
    assert load(tmp_path, KERNEL, top=bookworm, disk=disk).notes == ()
    assert problems(tmp_path, KERNEL, top=trixie, disk=disk)


@pytest.mark.parametrize("suite", ["oldstable", "stable", "testing", "unstable", "sid"])
def test_suites_have_other_names(tmp_path, suite):
    assert problems(tmp_path, LOCALE, top=f"base-image: mmdebstrap:{suite}\n")
