"""The menus of boot loaders lead to a kernel; each step is broken once."""

import pytest
from particle_agent.verification import menus

from .boot_images import COMMAND_LINE, EXTLINUX, GRUB, OTHER, ROOT_UUID, change


def write_menus(image, **menus):
    for name, text in menus.items():
        image.write(image.root, f"boot/extlinux/{name.replace('_', '.')}", text)


def test_extlinux_includes_files(extlinux):
    write_menus(extlinux, extlinux_conf="include themes/x.cfg\n")
    extlinux.write(extlinux.root, "boot/extlinux/themes/x.cfg", "MENU INCLUDE linux.cfg Linux\n")
    write_menus(extlinux, linux_cfg=EXTLINUX)
    assert extlinux.judged() == [], "paths count from the directory of the menu"
    write_menus(extlinux, linux_cfg=EXTLINUX.replace("/initrd.img\n", "/gone.img\n"))
    assert extlinux.judged() == ["boot-menu-file-missing"]
    (extlinux.root / "boot/extlinux/linux.cfg").unlink()
    (extlinux.root / "boot/extlinux/linux.cfg").symlink_to("/../../../../../../etc/passwd")
    assert extlinux.judged() == ["boot-menu-missing"]


def test_extlinux_files_that_include_each_other_have_an_end(extlinux):
    write_menus(
        extlinux,
        extlinux_conf=f"INCLUDE a.cfg\n{EXTLINUX}",
        a_cfg="INCLUDE b.cfg\nINCLUDE ../extlinux/a.cfg\nINCLUDE b.cfg\n" * 40,
        b_cfg="INCLUDE a.cfg\nINCLUDE extlinux.conf\n" * 40,
    )
    assert extlinux.judged() == []
    write_menus(
        extlinux,
        extlinux_conf="DEFAULT a\nLABEL a\nCONFIG b.cfg\n",
        b_cfg="DEFAULT b\nLABEL b\nCONFIG extlinux.conf\n",
    )
    assert extlinux.judged() == ["boot-menu-missing"]


def test_extlinux_goes_on_with_another_configuration(extlinux):
    write_menus(extlinux, extlinux_conf="DEFAULT a\nLABEL a\n  CONFIG b.cfg /boot/\n")
    write_menus(extlinux, b_cfg=f"DEFAULT l\nLABEL l\nLINUX vmlinuz-1\nAPPEND {COMMAND_LINE}\n")
    assert extlinux.judged() == []
    write_menus(extlinux, b_cfg=f"DEFAULT x\nLABEL l\nLINUX vmlinuz-2\nAPPEND {COMMAND_LINE}\n")
    assert extlinux.judged() == ["boot-menu-default-missing", "boot-menu-file-missing"]
    write_menus(extlinux, extlinux_conf="UI vesamenu.c32 b.cfg ~\n", b_cfg=EXTLINUX)
    assert extlinux.judged() == []


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("DEFAULT nolabel\n", "boot-menu-default-missing"),
        ("", "boot-menu-default-missing"),
        ("DEFAULT linux quiet\n", None),
        ("default\tOld\n", "boot-menu-default-missing"),
        ("DEFAULT nolabel\nDEFAULT old\n", None),
        ("DEFAULT ../vmlinuz-1\n", None),
        ("DEFAULT vesamenu.c32\n", None),
        ("UI menu.c32\n", None),
        ("DEFAULT nolabel\nTIMEOUT 50\nONTIMEOUT linux\n", None),
        ("TEXT HELP\nDEFAULT linux\nENDTEXT\n", "boot-menu-default-missing"),
    ],
)
def test_extlinux_needs_a_default(extlinux, text, code):
    write_menus(extlinux, extlinux_conf=EXTLINUX.replace("DEFAULT linux\n", text))
    assert extlinux.judged() == ([code] if code else [])


def test_extlinux_command_lines(extlinux):
    """The APPEND before the labels applies to labels without an APPEND."""
    text = f"DEFAULT linux\nAPPEND {COMMAND_LINE}\nLABEL linux\n\tLINUX\t/vmlinuz quiet\n"
    write_menus(extlinux, extlinux_conf=text)
    assert extlinux.judged() == []
    write_menus(extlinux, extlinux_conf=text.replace(ROOT_UUID, OTHER))
    assert extlinux.judged() == ["root-missing"]
    write_menus(extlinux, extlinux_conf=text.replace(ROOT_UUID, OTHER) + "APPEND -\n")
    assert extlinux.judged() == []
    write_menus(extlinux, extlinux_conf=text.replace("LINUX\t/vmlinuz quiet", f"root=UUID={OTHER}"))
    assert extlinux.judged() == ["boot-menu-missing"], "there is no file named linux"
    write_menus(extlinux, extlinux_conf=f"DEFAULT /vmlinuz root=UUID={OTHER}\n")
    assert extlinux.judged() == ["root-missing"]


def test_grub_reads_the_menu_that_its_menu_names(grub_bios):
    """As on a disk of OSTree, which switches the second menu."""
    menu = "load_env\nif [ x ]; then\n\tset default=1\nfi\nsource /boot/loader/grub.cfg\n"
    grub_bios.write(grub_bios.root, "boot/grub/grub.cfg", menu)
    assert grub_bios.judged() == ["boot-menu-missing"]
    (grub_bios.root / "boot/loader").symlink_to("loader.1")
    second = grub_bios.write(grub_bios.root, "boot/loader.1/grub.cfg", GRUB)
    assert grub_bios.judged() == []
    change(second, "/boot/vmlinuz-1", "/boot/vmlinuz-2")
    assert grub_bios.judged() == ["boot-menu-file-missing"] * 2
    second.unlink()
    second.symlink_to("/../../../../../../etc/passwd")
    assert grub_bios.judged() == ["boot-menu-missing"]
    second.unlink()
    second.symlink_to("grub.cfg")
    assert grub_bios.judged() == ["boot-menu-missing"]


def test_menus_of_grub_that_read_each_other_have_an_end(grub_bios, monkeypatch):
    read = []
    lines = menus.lines
    monkeypatch.setattr(menus, "lines", lambda tree, path: read.append(path) or lines(tree, path))
    names = [f"/boot/grub/{name}.cfg" for name in ("grub", "a", "b", "c")]
    for name in names:
        text = "".join(f"source {other}\nconfigfile ($root){other}\n. {other}\n" for other in names)
        grub_bios.write(grub_bios.root, name.lstrip("/"), text * 50)
    assert grub_bios.judged() == ["boot-menu-missing"]
    assert sorted(read) == sorted(names), "each of them once"
    read.clear()
    grub_bios.write(
        grub_bios.root,
        "boot/grub/grub.cfg",
        "".join(f"source {'/' * n}boot/grub/grub.cfg\n" for n in range(1, 300)),
    )
    assert grub_bios.judged() == ["boot-menu-missing"]
    assert len(read) <= menus.MENUS_LIMIT


def test_grub_starts_the_init_of_the_deployment(grub_bios):
    menu = grub_bios.root / "boot/grub/grub.cfg"
    menu.write_text(GRUB.replace(COMMAND_LINE, f"{COMMAND_LINE} ostree=/ostree/boot.1/debian/a/0"))
    assert grub_bios.judged() == ["deployment-missing"]
    (grub_bios.root / "ostree/boot.1/debian/a").mkdir(parents=True)
    (grub_bios.root / "ostree/boot.1/debian/a/0").symlink_to("../../../deploy/debian/deploy/a.0")
    deployed = grub_bios.root / "ostree/deploy/debian/deploy/a.0"
    init = grub_bios.write(deployed, "usr/sbin/init", "program")
    (deployed / "sbin").symlink_to("usr/sbin")
    init.chmod(0o755)
    assert grub_bios.judged() == []
    init.chmod(0o644)
    assert grub_bios.judged() == ["init-missing"]
    init.unlink()
    init.symlink_to("/../../../../../../../../usr/bin/env")
    assert grub_bios.judged() == ["init-missing"], "the VM's own program is none of it"


def test_a_deployment_may_be_in_a_subvolume(grub_bios):
    menu = grub_bios.root / "boot/grub/grub.cfg"
    words = f"{COMMAND_LINE} rootflags=subvol=@ ostree=/deployed"
    menu.write_text(GRUB.replace(COMMAND_LINE, words))
    init = grub_bios.write(grub_bios.root, "@/deployed/sbin/init", "program")
    assert grub_bios.judged() == ["init-missing"]
    init.chmod(0o755)
    assert grub_bios.judged() == []
