"""A commit as the base image: what is refused when the recipe is read."""

import io
import tarfile

import pytest
from particle_os.errors import InvalidDocument
from particle_os.ostree.deployable import deployable
from particle_os.recipe import loading

from ...ostree.bootable import KEY, bootable

EDGE = "ostree:edge.ostree.tar#debian/edge"
DISK = "stages:\n  - type: qemu\n    boot-loader: grub\n"
SECRET = "-----BEGIN PGP PRIVATE KEY BLOCK-----\n"


@pytest.fixture
def load(tmp_path):
    """A function that loads a recipe whose base image is a commit; the repository lies beside."""
    (tmp_path / "edge.ostree.tar").write_bytes(bootable())
    (tmp_path / "edge.gpg").write_text(KEY)

    def loaded(text=DISK, reference=EDGE, **options):
        recipe = tmp_path / "disk.yml"
        recipe.write_text(f"name: disk\nbase-image: {reference}\n{text}")
        return loading.load(recipe, **options)

    return loaded


@pytest.fixture
def problems(load):
    """A function that returns the problems of such a recipe: line, code, message and hint."""

    def found(text=DISK, reference=EDGE, **options):
        with pytest.raises(InvalidDocument) as raised:
            load(text, reference, **options)
        return [(p.line, p.code, p.message, p.hint or "") for p in raised.value.problems]

    return found


def unpack(place):
    with tarfile.open(fileobj=io.BytesIO(bootable())) as tar:
        tar.extractall(place, filter="data")


def notes(loaded):
    return [note.code for note in loaded.notes]


def test_a_commit_with_its_key_is_accepted(load):
    loaded = load(f"base-image-key: edge.gpg\n{DISK}")
    assert loaded.base_image_key == KEY.encode()
    assert notes(loaded) == []


def test_a_note_says_that_a_signature_is_not_checked(load):
    (note,) = load().notes
    assert (note.code, note.line) == ("signature-not-checked", 2)
    assert "no 'base-image-key' names its key" in note.message


def test_a_note_says_that_a_commit_has_no_signature(load):
    assert notes(load(reference="ostree:edge.ostree.tar#unsigned")) == ["no-signature"]


def test_a_commit_of_another_program_is_noted(load):
    assert "foreign-commit" in notes(load(reference="ostree:edge.ostree.tar#foreign"))


def test_a_repository_may_be_a_directory(load, tmp_path):
    unpack(tmp_path / "repository")
    assert notes(load(reference="ostree:repository#debian/edge")) == ["signature-not-checked"]


def test_the_base_may_be_on_the_command_line(load, tmp_path):
    base = f"ostree:{tmp_path}/edge.ostree.tar#debian/edge"
    loaded = load(f"base-image-key: edge.gpg\n{DISK}", "mmdebstrap:trixie", base=base)
    assert loaded.base_image_key == KEY.encode()


@pytest.mark.parametrize(
    ("reference", "message", "hint"),
    [
        ("ostree:edge.ostree.tar", "names no ref", "Write ostree:REPOSITORY#REF"),
        ("ostree:edge.ostree.tar#", "names no ref", "Write ostree:REPOSITORY#REF"),
        ("ostree:#debian/edge", "names no repository", "Write ostree:REPOSITORY#REF"),
        ("ostree:edge.ostree.tar#--verbose", "expected a ref", "'particle-os ostree log"),
        ("ostree:edge.ostree.tar#../../etc", "expected a ref", "'particle-os ostree log"),
        ("ostree:edge.ostree.tar#other", "has no ref 'other'", "It has: arm, bad-stateroot"),
        (
            "ostree:https://example.org/edge#debian/edge",
            "ostree:https://example.org/edge#debian/edge is a URL",
            "Download NAME.ostree.tar",
        ),
        ("ostree:none.tar#debian/edge", "cannot be read: No such file", ""),
        ("ostree:edge.gpg#debian/edge", "cannot be read as a tar archive", ""),
        ("ostree:.#debian/edge", "no repository of OSTree: it has no file 'config'", ""),
    ],
)
def test_a_reference_that_names_no_commit_is_refused(problems, reference, message, hint):
    ((line, code, found, advice),) = problems(reference=reference)
    assert (line, code) == (2, "no-file")
    assert found.startswith("base-image: ")
    assert message in found
    assert hint in advice


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("no-kernel", "has no kernel"),
        ("no-initramfs", "has no initramfs.img"),
        ("two-kernels", "has several kernels, and OSTree boots one: 6.12, 6.13"),
        ("no-etc", "is no system: it has no /usr/etc"),
        ("bad-stateroot", "names the stateroot '../../etc', which is none"),
    ],
)
def test_a_commit_that_no_disk_can_boot_is_refused(problems, ref, message):
    ((line, code, found, hint),) = problems(reference=f"ostree:edge.ostree.tar#{ref}")
    assert (line, code, hint) == (2, "bad-file", "name a commit of the stage 'ostree'")
    assert message in found


def test_a_commit_that_lacks_the_boot_loader_is_refused(problems):
    ((line, code, message, hint),) = problems(reference="ostree:edge.ostree.tar#no-grub")
    assert (line, code) == (5, "missing-need")
    assert message == "the commit of the base image lacks the package grub-pc-bin"
    assert "build the commit again" in hint


@pytest.mark.parametrize(
    ("ref", "options", "message"),
    [
        ("composefs", "", "composefs: the OSTree of the helper VM cannot"),
        ("transient", "    mounts: [{where: /data, what: LABEL=x, type: ext4}]\n", "mounts: each"),
        ("debian/edge", "    file-system: btrfs\n", "GRUB cannot write its counter"),
    ],
)
def test_options_that_the_disk_of_the_commit_cannot_have(problems, ref, options, message):
    found = problems(DISK + options, f"ostree:edge.ostree.tar#{ref}")
    assert [code for _, code, text, _ in found if message in text] == ["bad-value"]


def test_another_boot_loader_is_refused_once(problems):
    ((_, code, message, _),) = problems("stages:\n  - type: qemu\n")
    assert (code, message.partition(":")[0]) == ("bad-value", "boot-loader")


@pytest.mark.parametrize(
    "stage",
    [
        "{type: hostname, hostname: a}",
        "{type: run, script: 'true'}",
        "{type: ostree, ref: other}",
    ],
)
def test_no_other_stage_may_change_the_commit(problems, stage):
    text = DISK.replace("stages:\n", f"stages:\n  - {stage}\n")
    ((line, code, message, hint),) = problems(text)
    assert (line, code) == (4, "bad-order")
    assert "cannot change the commit of the base image" in message
    assert "only 'qemu' may follow" in hint


def test_an_upgrade_needs_a_version_before_it(problems):
    ((line, code, message, hint),) = problems(f"{DISK}boot-test:\n  upgrade: {{from: parent}}\n")
    assert (line, code) == (7, "bad-value")
    assert message.startswith("upgrade: the commit of the base image is no update")
    assert "'parent'" in hint


def test_a_commit_that_counts_boots_can_leave_a_bad_update(load, problems):
    text = f"{DISK}boot-test:\n  fallback: true\n"
    assert load(text).recipe.boot_test.fallback
    ((line, _, message, _),) = problems(text, "ostree:edge.ostree.tar#uncounted")
    assert (line, message) == (7, "fallback: the commit of the base image counts no boots")


@pytest.mark.parametrize(
    ("text", "reference", "message"),
    [
        ("base-image-key: edge.gpg\n", "ostree:edge.ostree.tar#unsigned", "has no signature"),
        ("base-image-key: edge.gpg\n", "mmdebstrap:trixie", "only a base image 'ostree:"),
        ("base-image-key: none.gpg\n", EDGE, "No such file"),
        ("base-image-key: disk.yml\n", EDGE, "is no OpenPGP public key"),
        ("base-image-key: secret.asc\n", EDGE, "holds a private key"),
        ("base-image-key: .\n", EDGE, "regular file"),
        ("base-image-key: ../x\n", EDGE, "outside"),
    ],
)
def test_a_key_that_checks_nothing_is_refused(problems, tmp_path, text, reference, message):
    (tmp_path / "secret.asc").write_text(SECRET)
    found = problems(text + DISK, reference)
    assert [line for line, _, told, _ in found if message in told] == [3]


@pytest.mark.parametrize("kind", ["filez", "dirtree", "dirmeta", "commit"])
def test_a_missing_object_is_found_before_anything_starts(problems, tmp_path, kind):
    unpack(tmp_path / "repository")
    with deployable(tmp_path / "repository", "debian/edge") as found:
        name = next(name for name in found.objects() if name.endswith(f".{kind}"))
    (tmp_path / "repository" / name).unlink()
    ((line, code, message, _),) = problems(reference="ostree:repository#debian/edge")
    assert (line, code) == (2, "bad-file")
    assert "lacks the object" in message
    assert name[-30:] in message


def test_a_damaged_tree_is_found_before_anything_starts(problems, tmp_path):
    (tmp_path / "edge.ostree.tar").write_bytes(bootable().replace(b"vmlinuz\0", b"vmlinux\0"))
    assert [(line, code) for line, code, _, _ in problems()] == [(2, "bad-file")]


def test_an_archive_that_is_cut_off_is_refused(problems, tmp_path):
    (tmp_path / "edge.ostree.tar").write_bytes(bootable()[:70_000])
    ((line, _, message, _),) = problems()
    assert line == 2
    assert message.startswith("base-image: ")


def test_a_single_stage_cannot_run_on_a_commit(load, tmp_path):
    load()
    options = tmp_path / "hostname.yml"
    options.write_text("hostname: a\n")
    base = f"ostree:{tmp_path}/edge.ostree.tar#debian/edge"
    with pytest.raises(InvalidDocument) as raised:
        loading.load_stage("hostname", options, base=base, allow_outside=False)
    (problem,) = raised.value.problems
    assert "cannot change the commit" in problem.message


@pytest.mark.parametrize(
    ("reference", "expected", "message"),
    [
        (EDGE, "{ref: debian/other}", "ref: the commit is one of 'debian/edge'"),
        (EDGE, '{version: "9"}', "version: the commit has the version '7'"),
        ("ostree:edge.ostree.tar#unsigned", "{signed: true}", "signed: the commit of the base"),
    ],
)
def test_a_check_that_contradicts_the_commit_is_refused(problems, reference, expected, message):
    text = f"{DISK}boot-test:\n  checks:\n    - ostree: {expected}\n"
    ((line, code, found, hint),) = problems(text, reference)
    assert (line, code, found.startswith(message)) == (8, "bad-value", True)
    assert "leave" in hint


def test_a_check_that_agrees_with_the_commit_is_accepted(load):
    test = "boot-test:\n  checks:\n    - ostree: {ref: debian/edge, signed: true}\n"
    assert notes(load(f"{DISK}{test}")) == ["signature-not-checked"]
