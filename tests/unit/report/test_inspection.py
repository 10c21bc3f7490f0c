from dataclasses import replace

from particle_agent.contract.inspection import (
    Account,
    Deployment,
    Inspection,
    OsReleaseField,
    Package,
    Partition,
    System,
)
from particle_agent.verification.inspection import FileSystem
from particle_os.report.inspection import InspectionReport, described
from particle_os.sandbox.verification import FindingResult, Verification

SYSTEM = System(
    os_release=(OsReleaseField(key="PRETTY_NAME", value="Evil\x1b[31m 1"),),
    hostname="box",
    kernels=("6.1",),
    packages=(Package(name="a", version="1", architecture="all"),) * 3,
    accounts=(Account(name="root", uid=0, shell="/bin/sh", password="empty"),),
)


def test_a_disk_is_told_in_lines_and_nothing_reaches_the_terminal():
    partition = Partition(
        number=1, start=1 << 20, size=1 << 30, type="t", name="root",
        file_system=FileSystem(kind="ext4", label="", uuid="u-1", size=1 << 30, used=5 << 20),
    )  # fmt: skip
    unknown = Partition(number=2, start=0, size=1 << 20, type="t", name="", file_system=None)
    found = Inspection(
        size=2 << 30, table="gpt", partitions=(partition, unknown), boot_loaders=(), system=SYSTEM
    )
    lines = list(described(found))
    assert ("disk", "2.0 GiB, gpt") in lines
    assert ("partition", "1: 1.0 GiB 'root' ext4 u-1 5 MiB used") in lines
    assert ("partition", "2: 1 MiB no file system that is known") in lines
    assert ("boot loader", "none that is known") in lines
    assert ("packages", "3") in lines
    assert ("user", "root (0), /bin/sh, NO PASSWORD NEEDED") in lines
    assert not any("\x1b" in text for _, text in lines)


def test_what_is_no_file_system_is_named():
    def line(kind, table):
        held = FileSystem(kind=kind, label="", uuid="u-1")
        part = Partition(number=1, start=0, size=1 << 20, type="", name="", file_system=held)
        found = Inspection(
            size=1 << 20, table=table, partitions=(part,), boot_loaders=(), system=None
        )
        return list(described(found))[1]

    sealed = "crypto_LUKS u-1: a LUKS container (encrypted), whose content is not read"
    assert line("crypto_LUKS", "gpt") == ("partition", f"1: 1 MiB {sealed}")
    assert line("crypto_LUKS", None) == ("content", f"1 MiB {sealed}")
    assert line("swap", "gpt") == ("partition", "1: 1 MiB swap u-1: swap space")
    assert line("xfs", "gpt") == ("partition", "1: 1 MiB xfs u-1")


def test_the_versions_of_a_disk_are_shown():
    first = Deployment(
        path="/ostree/deploy/debian/deploy/x.0",
        checksum="0123456789abcdef" * 4,
        version="2\x1b[31m",
        origin="origin:debian/13",
        default=True,
    )
    second = replace(first, version=None, origin=None, default=False)
    found = Inspection(
        size=1 << 20, table="gpt", partitions=(), boot_loaders=(), system=SYSTEM,
        deployments=(first, second),
    )  # fmt: skip
    assert [text for word, text in described(found) if word == "deployment"] == [
        "version 2\\x1b[31m: 0123456789ab of origin:debian/13 (the default)",
        "0123456789ab of no branch",
    ]


def test_unusual_sectors_are_shown():
    found = Inspection(
        size=1 << 20, table="gpt", partitions=(), boot_loaders=(), system=None, sector_size=4096
    )
    assert next(described(found)) == ("disk", "1 MiB, gpt, sectors of 4096 bytes")


def test_a_base_has_no_disk_and_an_empty_disk_no_system():
    base = Inspection(size=0, table=None, partitions=(), boot_loaders=(), system=SYSTEM)
    assert not {"disk", "boot loader"} & {word for word, _ in described(base)}
    empty = Inspection(size=1 << 20, table=None, partitions=(), boot_loaders=(), system=None)
    assert list(described(empty))[-1] == ("system", "none found")


def test_a_container_image_stands_before_its_contents():
    container = {
        "digest": "sha256:1",
        "architecture": "amd64",
        "layers": [{"digest": "sha256:2", "size": 5 << 20}],
        "config": {"Env": ["A=\x1b[31m"]},
    }
    found = Inspection(size=0, table="", partitions=(), boot_loaders=(), system=SYSTEM)
    report = InspectionReport(found, container)
    assert list(report.lines(packages=True)) == [
        "container    sha256:1, amd64, 1 layers",
        "layer        sha256:2, 5 MiB",
        'config       Env: ["A=\\u001b[31m"]',
        *(f"{word:<12} {text}" for word, text in described(found)),
        *["package      a 1 all"] * 3,
    ]
    assert report.data()["container"] == container
    assert report.error() is None


def test_a_verification_says_that_nothing_is_wrong_or_what_is():
    found = Inspection(size=0, table="", partitions=(), boot_loaders=(), system=None)
    good = InspectionReport(found, verification=Verification(seconds=1, findings=()))
    assert list(good.lines())[-1] == "verified     nothing is wrong with it"
    assert good.error() is None
    finding = FindingResult(code="x", severity="error", place="", message="it is broken")
    bad = InspectionReport(found, verification=Verification(seconds=1, findings=(finding,)))
    assert list(bad.lines())[-1] == "error        it is broken [x]"
    assert bad.data()["verification"]["findings"][0]["code"] == "x"
    assert bad.error().tail == ("it is broken [x]",)


def lines_of(system=SYSTEM, **changes):
    found = Inspection(size=1 << 30, table=None, partitions=(), boot_loaders=(), system=system)
    return list(described(replace(found, **changes)))


def test_the_lines_for_a_system_with_and_without_its_parts():
    accounts = tuple(
        Account(name=word, uid=number, shell="/bin/sh", password=word)
        for number, word in enumerate(("set", "empty", "locked"))
    )
    system = replace(SYSTEM, kernels=("6.1", "6.2"), accounts=accounts)
    partition = Partition(
        number=1, start=1 << 20, size=1 << 30, type="t", name="",
        file_system=FileSystem(kind="swap", label="", uuid="u-2", size=1 << 30, used=None),
    )  # fmt: skip
    assert lines_of(system, boot_loaders=("grub", "x"), partitions=(partition,)) == [
        ("disk", "1.0 GiB, no partition table"),
        ("content", "1.0 GiB swap u-2: swap space"),
        ("boot loader", "grub, x"),
        ("system", "Evil\\x1b[31m 1"),
        ("host name", "box"),
        ("kernel", "6.1, 6.2"),
        ("packages", "3"),
        ("user", "set (0), /bin/sh, a password"),
        ("user", "empty (1), /bin/sh, NO PASSWORD NEEDED"),
        ("user", "locked (2), /bin/sh, password locked"),
    ]
    bare = System(os_release=(), hostname="", kernels=(), packages=(), accounts=())
    assert lines_of(bare)[2:] == [
        ("system", "unknown: there is no os-release"),
        ("kernel", "none"),
        ("packages", "0"),
    ]


def test_packages_are_listed_on_request_only():
    found = Inspection(size=0, table="", partitions=(), boot_loaders=(), system=SYSTEM)
    assert not [line for line in InspectionReport(found).lines() if line.startswith("package ")]
    empty = replace(found, system=None)
    assert list(InspectionReport(empty).lines(packages=True)) == ["system       none found"]
    assert "container" not in InspectionReport(found).data()
    assert "verification" not in InspectionReport(found).data()


def test_a_commit_is_told_with_its_signature():
    about = {"ref": "debian/edge", "checksum": "0" * 64, "version": "7", "signature": "not-checked"}
    empty = Inspection(size=0, table=None, partitions=(), boot_loaders=(), system=None)
    report = InspectionReport(empty, about)
    lines = list(report.lines())
    assert f"commit       {'0' * 64} of debian/edge, version 7" in lines
    assert "signature    not-checked" in lines
    assert report.data()["commit"] == about
    assert "container" not in report.data()
