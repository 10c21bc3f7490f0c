import pytest
from particle_agent.disk import copied, extlinux

from .built_disk import GRUB_FILES, SYSTEMD_BOOT_FILES, make_image


@pytest.fixture
def debian(target, tmp_path, monkeypatch):
    """A target with a kernel and every boot loader, in a helper VM with syslinux."""
    for name in ("vmlinuz", "initrd.img"):
        target.write(f"/boot/{name}-6.12", name)
        target.symlink(f"/{name}", f"boot/{name}-6.12")
    for path, text in (GRUB_FILES | SYSTEMD_BOOT_FILES).items():
        target.write(path, text)
    for kind in copied.PACKAGES:
        target.write(f"/usr/sbin/mkfs.{kind}", "")
    target.modules = []
    monkeypatch.setattr(copied.modules, "load", target.modules.append)
    monkeypatch.setattr(copied, "copy_data", lambda file, device: None)
    target.captured["lsinitramfs"] = "usr/lib/modules/6.12/xfs.ko usr/lib/modules/6.12/btrfs.ko.xz"
    for table in extlinux.MBR_CODE:
        code = tmp_path / f"{table}.bin"
        code.write_bytes(table.encode().ljust(440, b"\0"))
        monkeypatch.setitem(extlinux.MBR_CODE, table, code)
    target.when("grub-mkimage", lambda command: make_image(target, command))
    return target
