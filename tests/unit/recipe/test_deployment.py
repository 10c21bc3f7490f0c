"""The stages of an image that OSTree updates: what is refused when the recipe is read."""

import pytest
from particle_os.errors import InvalidDocument
from particle_os.recipe import loading

PACKAGES = (
    "[linux-image-cloud-amd64, systemd-sysv, ostree-boot, gpg, grub-pc-bin, grub-efi-amd64-bin, "
    "grub2-common]"
)
GRUB = "  - type: qemu\n    boot-loader: grub\n"


def load(tmp_path, stages, base="mmdebstrap:trixie"):
    path = tmp_path / "recipe.yml"
    path.write_text(f"name: x\nstages:\n  - type: apt\n    packages: {PACKAGES}\n{stages}")
    return loading.load(path, base=base)


def problems(tmp_path, stages, base="mmdebstrap:trixie"):
    with pytest.raises(InvalidDocument) as raised:
        load(tmp_path, stages, base)
    return [(p.line, p.column, p.code, p.message, p.hint) for p in raised.value.problems]


def ostree(text=""):
    return f"  - type: ostree\n    ref: edge\n{text}"


@pytest.mark.parametrize(
    ("options", "line", "message"),
    [
        ("    file-system: btrfs\n", 9, "GRUB cannot write its counter to btrfs"),
        ("    file-system: xfs\n", 9, "no test has shown that GRUB's counter is safe on xfs"),
        (
            "    installer: bootc\n    bootc: {target-imgref: example.org/edge}\n",
            9,
            "bootc installs no commit",
        ),
        ("    first-boot: true\n", 9, "is the same for each boot"),
    ],
)
def test_options_of_a_disk_that_cannot_be_with_a_commit(tmp_path, options, line, message):
    found = problems(tmp_path, ostree() + GRUB + options)
    assert [(each[0], each[2]) for each in found if message in each[3]] == [(line, "bad-value")]


@pytest.mark.parametrize("kind", ["btrfs", "xfs"])
def test_a_commit_that_counts_no_boots_may_have_a_successor_that_does(tmp_path, kind):
    stages = ostree("    boot-counting: 0\n") + GRUB + f"    file-system: {kind}\n"
    (found,) = problems(tmp_path, stages)
    assert found[3].endswith("; a later update may count its boots")


def test_other_stages_stand_before_the_commit(tmp_path):
    (found,) = problems(tmp_path, ostree() + "  - type: hostname\n    hostname: a\n" + GRUB)
    assert found[2:] == (
        "bad-order",
        "the stage 'hostname' cannot change the commit of the stage 'ostree'",
        "put it before the stage 'ostree'",
    )


@pytest.mark.parametrize(
    ("base", "option", "message", "hint"),
    [
        ("bookworm", "etc: transient", "etc: the OSTree of bookworm keeps", "use trixie or later"),
        ("oldstable", "etc: transient", "etc: the OSTree of oldstable", "use trixie or later"),
        ("trixie", "composefs: true", "composefs: the OSTree of trixie is", "use forky or later"),
        ("bookworm", "composefs: true", "composefs: the OSTree of bookworm", "use forky or later"),
    ],
)  # fmt: skip
def test_options_that_the_suite_does_not_know(tmp_path, base, option, message, hint):
    found = problems(tmp_path, ostree(f"    {option}\n") + GRUB, f"mmdebstrap:{base}")
    assert [(each[:3], each[4]) for each in found if message in each[3]] == [
        ((7, found[0][1], "bad-value"), hint)
    ]


@pytest.mark.parametrize(
    ("base", "option"),
    [
        ("mmdebstrap:trixie", "etc: transient"),
        ("mmdebstrap:trixie", "var: initial"),
        ("tar:base.tar", "etc: transient"),
    ],
)
def test_options_that_the_suite_knows_or_that_the_stage_itself_checks(tmp_path, base, option):
    assert load(tmp_path, ostree(f"    {option}\n") + GRUB, base)


def test_no_disk_of_a_composefs_can_be_written(tmp_path):
    (found,) = problems(tmp_path, ostree("    composefs: true\n") + GRUB, "tar:base.tar")
    assert found[0] == 8
    assert "the helper VM cannot write a disk" in found[3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", "boot-loader: extlinux cannot count the boots of an update"),
        (
            "    boot-loader: systemd-boot\n",
            "boot-loader: OSTree switches versions with a link in /boot, and systemd-boot reads "
            "only FAT, which has no links",
        ),
    ],
)
def test_boot_loaders_that_cannot_start_a_commit(tmp_path, options, message):
    found = problems(tmp_path, ostree() + f"  - type: qemu\n{options}")
    assert [each[4] for each in found if each[3] == message] == ["write 'boot-loader: grub'"]


NEED_ETC = {
    "mounts: [{what: LABEL=data, where: /srv, type: ext4}]": "mounts: each boot starts with",
    "swap: 1G": "swap: each boot starts with the /etc of the commit, which has no fstab",
    "grow: true": "grow: each boot starts with the /etc of the commit, which has no unit for it",
}


@pytest.mark.parametrize(("option", "message"), NEED_ETC.items())
def test_options_of_a_disk_that_need_an_etc_that_stays(tmp_path, option, message):
    found = problems(tmp_path, ostree("    etc: transient\n") + GRUB + f"    {option}\n")
    hints = [(each[0], each[4]) for each in found if message in each[3]]
    assert [line for line, _ in hints] == [10]
    assert "'etc: persistent'" in hints[0][1]


@pytest.mark.parametrize("option", ["swap: 1G", "partition-table: msdos"])
def test_options_of_a_disk_that_a_commit_can_have(tmp_path, option):
    assert load(tmp_path, ostree() + GRUB + f"    {option}\n")


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/etc/fstab", "name the mounts in the option 'mounts' of the stage 'qemu'"),
        ("/media/x", "put it into another directory, such as /srv: a commit has a link there"),
        ("/usr/etc/x", "put it into /etc"),
        ("/usr/lib/ostree/prepare-root.conf", "set 'etc' or 'composefs' in the stage 'ostree'"),
        ("/etc/machine-id", "leave it out: each machine makes its own"),
    ],
)
def test_files_that_the_commit_would_lose(tmp_path, path, hint):
    files = f"  - type: files\n    files: [{{path: {path}, content: x}}]\n"
    found = problems(tmp_path, files + ostree() + GRUB)
    assert (found[0][2], found[0][4]) == ("overwritten", hint)


OTHER = """\
  - type: org.osbuild.ostree.commit
    options: {ref: edge, os_version: "13"}
"""
DEBOS = """\
  - action: ostree-commit
    branch: edge
    subject: First
    collection-id: org.example.Edge
    ref-binding: [stable]
    metadata: {org.example.build: "1"}
"""


@pytest.mark.parametrize(
    ("stage", "notes"),
    [
        (OTHER, ["'org.osbuild.ostree.commit' is", "'os_version' is called", "stand beside"]),
        (DEBOS, ["'ostree-commit' is called 'ostree'", "'branch' is called 'ref' here"]),
        ("  - type: org.osbuild.debian.ostree\n    options: {ref: edge, collection_id: a.b}\n",
         ["'org.osbuild.debian.ostree' is called", "stand beside", "'collection_id' is called"]),
    ],
)  # fmt: skip
def test_the_names_of_other_programs_are_understood_and_noted(tmp_path, stage, notes):
    loaded = load(tmp_path, stage + GRUB)
    assert loaded.recipe.stages[1].type == "ostree"
    assert loaded.recipe.stages[1].ref == "edge"
    found = [note.message for note in loaded.notes if note.code == "older-form"]
    assert len(found) == len(notes)
    assert all(part in message for part, message in zip(notes, found, strict=True))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("ostree-deploy", "the stage 'qemu' after a stage 'ostree'"),
        ("org.osbuild.ostree.deploy", "the stage 'qemu' after a stage 'ostree'"),
        ("org.osbuild.ostree.init-fs", "the stage 'qemu' after a stage 'ostree'"),
        ("org.osbuild.ostree.preptree", "the stage 'ostree' does it"),
        ("org.osbuild.ostree.sign", "write 'sign' in the stage 'ostree'"),
        ("org.osbuild.ostree.remotes", "write 'remote' in the stage 'ostree'"),
        ("org.osbuild.ostree.encapsulate", "write 'publish: [oci-archive]'"),
        ("org.osbuild.bootc.install-to-filesystem", "write 'installer: bootc'"),
    ],
)
def test_a_step_of_other_programs_names_what_does_it(tmp_path, name, hint):
    found = problems(tmp_path, f"{ostree()}  - type: {name}\n{GRUB}")
    assert [each[2] for each in found if hint in (each[4] or "")] == ["unknown-stage"]


def test_the_repository_of_debos_is_that_of_the_build(tmp_path):
    (found,) = problems(tmp_path, f"{DEBOS}    repository: repo\n{GRUB}")
    assert found[2:] == (
        "unknown-key",
        "unknown key 'repository'",
        "the build publishes the repository as NAME.ostree.tar",
    )
