"""Errors of everyday recipes say the next step, and not only where an explanation is."""

import pytest
from particle_os.errors import InvalidDocument
from particle_os.recipe import loading

KERNEL = "  - {type: apt, packages: [linux-image-amd64, systemd-sysv]}\n"
SOURCES = "  - {type: sources, components: [non-free-firmware]}\n"
FIRMWARE = "  - {type: apt, packages: [firmware-iwlwifi, nvidia-driver, intel-microcode:amd64]}\n"
ETC = "  - {type: files, files: [{path: /etc/apt/sources.list, content: x}]}\n"


def load(tmp_path, stages, top=""):
    path = tmp_path / "r.yml"
    path.write_text(f"name: x\n{top}stages:\n{KERNEL}{stages}  - {{type: qemu}}\n")
    return loading.load(path)


@pytest.mark.parametrize(
    ("stage", "hint"),
    [
        ("{type: apt, components: [contrib]}",
         "'components' is an option of the stage 'sources': see 'particle-os explain sources'"),
        ("{type: hostname, hostname: a, packages: [vim]}", "'packages' is an option of the stage "
         "'apt': see 'particle-os explain apt'"),
        ("{type: apt, recomends: true}", "did you mean 'recommends'?"),
        ("{type: services, service: nginx}", "did you mean 'enable'?"),
        ("{type: services, units: [nginx]}", "did you mean 'enable'?"),
        ("{type: users, users: [{name: a, gid: 5000, group: adm}]}",
         "remove 'gid', or remove 'group' to make a new group with this gid"),
        ("{type: run, command: [cd, /tmp]}",
         "write 'script: …' in place of 'command: […]': a shell reads it"),
        ("{type: run, command: cd /tmp}", 'write [sh, -c, "cd /tmp"], or one item for each word'),
    ],
)  # fmt: skip
def test_the_hint_is_the_next_step(tmp_path, stage, hint):
    with pytest.raises(InvalidDocument) as raised:
        load(tmp_path, f"  - {stage}\n")
    assert [problem.hint for problem in raised.value.problems] == [hint]


@pytest.mark.parametrize(
    ("devices", "hint"),
    [
        ("[scsi, foo]", "write 'devices: {disk: [scsi]}'"),
        ("nvme", "write 'devices: {disk: [nvme]}'"),
        ("[nvme, e1000e]", "write 'devices: {disk: [nvme], network-card: [e1000e]}'"),
    ],
)
def test_devices_without_their_kinds_are_sorted(tmp_path, devices, hint):
    with pytest.raises(InvalidDocument) as raised:
        load(tmp_path, "", f"boot-test: {{devices: {devices}}}\n")
    assert [problem.hint for problem in raised.value.problems] == [hint]


def missing(tmp_path, stages, top=""):
    notes = load(tmp_path, stages, top).notes
    return [(n.column, n.message) for n in notes if n.code == "missing-component"]


def test_a_package_of_another_component_is_noted_with_the_stage_that_adds_it(tmp_path):
    found = missing(tmp_path, FIRMWARE)
    assert [column for column, _ in found] == [28, 46, 61]
    for (_, message), wanted in zip(
        found, ("non-free-firmware", "contrib, non-free", "non-free-firmware"), strict=True
    ):
        assert f"put '- {{type: sources, components: [{wanted}]}}' before this stage" in message
    assert [column for column, _ in missing(tmp_path, SOURCES + FIRMWARE)] == [46]
    assert len(missing(tmp_path, FIRMWARE + SOURCES)) == 3
    users = "  - {type: users, users: [{name: a}]}\n"
    assert len(missing(tmp_path, users + FIRMWARE)) == 3
    assert missing(tmp_path, FIRMWARE.replace("type:", "when: {architecture: arm64}, type:")) == []


@pytest.mark.parametrize("stage", [ETC, "  - {type: run, script: x}\n"])
def test_what_may_bring_other_sources_brings_any_component(tmp_path, stage):
    assert missing(tmp_path, stage + FIRMWARE) == []
    assert missing(tmp_path, FIRMWARE, "base-image: tar:b.tar\n") == []
