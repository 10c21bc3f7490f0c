"""The records of architectures are complete, and no two of them are alike."""

import re
from pathlib import Path

import pytest
from particle_os.architecture import AMD64, ARCHITECTURES, ARM64, native, of_uname, usual
from particle_os.errors import UsageError
from particle_os.sandbox.template import template_for

TOP = Path(__file__).parents[2]
# Names that only the record of an architecture may have. The facts about Debian's packages are of
# amd64, and texts for people have examples.
OWN = re.compile(
    r"qemu-system-|\bq35\b|pc-q35|BOOT(?:X64|AA64)|(?:linux|systemd-boot|shim|grub|mm)x64|"
    r"x86_64-efi|4f68bce3|b921b045|ttyAMA|/usr/share/(?:OVMF|AAVMF)",
    re.IGNORECASE,
)
RECORDS = "contract/architectures/"


@pytest.mark.parametrize(
    "fact",
    [
        lambda each: each.name,
        lambda each: each.uname,
        lambda each: each.elf_machine,
        lambda each: each.template,
        lambda each: each.image.efi,
        lambda each: each.image.pe_machine,
        lambda each: each.image.root_type,
        lambda each: each.image.grub,
        lambda each: each.vm.qemu,
        lambda each: each.vm.target,
    ],
)
def test_no_two_architectures_share_a_fact_that_tells_them_apart(fact):
    found = [fact(each) for each in ARCHITECTURES.values()]
    assert len(set(found)) == len(found) > 1


@pytest.mark.parametrize("each", ARCHITECTURES.values(), ids=list(ARCHITECTURES))
def test_each_architecture_has_its_template_and_its_firmware(each):
    template = template_for(None, each.name)
    assert (template.name, template.architecture) == (each.template, each.name)
    assert template.kernel == each.image.kernels[0]
    assert set(each.vm.firmware_files) == set(each.image.firmwares) - {"bios"}


def test_a_template_of_another_architecture_is_refused():
    with pytest.raises(UsageError, match="'debian-trixie' is for amd64, but arm64 is needed") as e:
        template_for("debian-trixie", ARM64.name)
    assert "--template debian-trixie-arm64" in e.value.hint


def test_a_machine_has_its_own_architecture(monkeypatch):
    assert of_uname("aarch64") is ARM64
    assert of_uname("riscv64") is None
    monkeypatch.setattr("os.uname", lambda: type("U", (), {"machine": "riscv64"}))
    assert native() is None
    assert usual() is AMD64


def test_facts_of_one_architecture_are_in_its_record_and_nowhere_else():
    found = []
    for package in ("host/particle_os", "guest-agent/particle_agent"):
        for path in sorted((TOP / package).rglob("*.py")):
            for number, line in enumerate(path.read_text().splitlines(), start=1):
                code = line.partition("#")[0]
                is_text = re.match(r'\s*("""|[A-Z][a-z]+ )', line) is not None
                if RECORDS not in str(path) and not is_text and OWN.search(code):
                    found.append(f"{path.relative_to(TOP)}:{number}: {line.strip()}")
    assert found == []
