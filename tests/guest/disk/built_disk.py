"""The disk that the qemu stage makes in the tests of its boot loaders."""

MIB = 1 << 20
SECTOR = 512
GRUB_FILES = {
    "/usr/sbin/update-grub": "#!/bin/sh\n",
    "/usr/lib/grub/i386-pc/normal.mod": "module",
    "/usr/lib/grub/i386-pc/boot.img": "\x01" * 512,
    "/usr/lib/grub/x86_64-efi/moddep.lst": "normal:\n",
}
SYSTEMD_BOOT_FILES = {
    "/usr/bin/bootctl": "program",
    "/usr/lib/systemd/boot/efi/linuxx64.efi.stub": "stub",
    "/usr/lib/systemd/boot/efi/systemd-bootx64.efi": "systemd-boot",
    "/usr/lib/systemd/boot/efi/systemd-bootx64.efi.signed": "signed systemd-boot",
}


def make_image(target, command):
    """Imitates grub-mkimage: the image contains the arguments that it was made from."""
    argv = command.argv
    early = target.read(argv[argv.index("-c") + 1])
    output = argv[argv.index("-o") + 1]
    target.write(output, f"{argv[2]} {early} {' '.join(argv[argv.index('-o') + 2 :])}".ljust(1500))


def table(target):
    return target.only("sfdisk").stdin.splitlines()


def disk(target):
    return (target.directory / "disk").read_bytes()


def esp(target):
    """The files for the EFI system partition, by their path on it."""
    place = target.directory / "particle-os-esp"
    return {
        str(p.relative_to(place)): p.read_text() for p in sorted(place.rglob("*")) if p.is_file()
    }
