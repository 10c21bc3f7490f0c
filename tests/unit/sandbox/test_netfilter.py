"""The index of the modules that the helper VM loads on demand."""

import lzma

from particle_os.sandbox.netfilter import index

TOP = "usr/lib/modules/6.12/kernel"
NFT, CT = f"{TOP}/net/netfilter/nf_tables.ko.xz", f"{TOP}/net/netfilter/nft_ct.ko.xz"
REJECT, CRC = f"{TOP}/net/ipv4/netfilter/nft-reject.ko", f"{TOP}/lib/libcrc32c.ko.xz"
TUN = f"{TOP}/drivers/net/tun.ko.xz"


def module(path, depends="", *aliases):
    """A module file; the section .modinfo lies between other bytes."""
    words = [f"depends={depends}", *(f"alias={alias}" for alias in aliases), "name=x"]
    data = b"\x7fELF\0" + "".join(f"{word}\0" for word in words).encode() + b"\xff"
    return lzma.compress(data) if path.endswith(".xz") else data


def test_what_a_module_needs_is_loaded_before_it():
    files = {
        CT: module(CT, "nf-tables", "nft-expr-ct", "nft-expr-notrack"),
        NFT: module(NFT, "libcrc32c", "nfnetlink-subsys-10"),
        CRC: module(CRC),
        TUN: module(TUN, "", "net-pf-1"),
        REJECT: module(REJECT, "nf_tables,not_there"),
    }
    crc, nft = f"libcrc32c {CRC}", f"nf_tables {NFT}"
    ct, reject = f"nft_ct {CT}", f"nft_reject {REJECT}"
    assert sorted(index(files, files.__getitem__).splitlines()) == [
        f"nf_tables {crc} {nft}",
        f"nfnetlink_subsys_10 {crc} {nft}",
        f"nft_ct {crc} {nft} {ct}",
        f"nft_expr_ct {crc} {nft} {ct}",
        f"nft_expr_notrack {crc} {nft} {ct}",
        f"nft_reject {crc} {nft} {reject}",
    ]


def test_modules_that_need_each_other_do_not_end_in_a_loop():
    files = {CT: module(CT, "nf_tables"), NFT: module(NFT, "nft_ct")}
    lines = index(files, files.__getitem__).splitlines()
    assert [line.split()[0] for line in lines] == ["nf_tables", "nft_ct"]


def test_only_what_is_asked_for_is_read():
    """The kernel has a thousand modules."""
    read = []
    files = {NFT: module(NFT), CRC: module(CRC), TUN: module(TUN)}
    index(files, lambda path: read.append(path) or files[path])
    assert read == [NFT]
