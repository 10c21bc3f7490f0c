"""The recipe around a commit: what cannot be is refused when the recipe is read."""

import pytest
from particle_os.errors import InvalidDocument
from particle_os.recipe import loading
from particle_os.recipe.checks.ostree import OstreeCheck

PACKAGES = (
    "[linux-image-cloud-amd64, systemd-sysv, ostree-boot, gpg, grub-pc-bin, grub-efi-amd64-bin, "
    "grub2-common]"
)
GRUB = "  - type: qemu\n    boot-loader: grub\n"
SIGNED = """\
    secrets: [{name: key, env: SIGNING_KEY}]
    sign: {gpg-secret: key}
"""
REMOTE = '    remote: {url: "https://u.example.org"}\n'
VERSION = '    version: "1"\n'


@pytest.fixture
def load(tmp_path, monkeypatch):
    """A function that loads a recipe with these options of `ostree`, stages and tests."""
    monkeypatch.setenv("SIGNING_KEY", "x")

    def load(options="", *, commit=True, after=GRUB, test="", packages=PACKAGES):
        text = f"name: x\nstages:\n  - type: apt\n    packages: {packages}\n"
        text += f"  - type: ostree\n    ref: edge\n{options}" if commit else ""
        path = tmp_path / "recipe.yml"
        path.write_text(f"{text}{after}boot-test:\n{test}" if test else text + after)
        return loading.load(path)

    return load


@pytest.fixture
def refused(load):
    """A function that does the same; returns the text, the message and the hint of problems."""

    def refused(options="", **given):
        with pytest.raises(InvalidDocument) as raised:
            load(options, **given)
        found = raised.value
        return [(problem.code, problem.message, problem.hint) for problem in found.problems]

    return refused


NO_DISK = "the recipe ends with the stage 'ostree', so no disk boots"


@pytest.mark.parametrize(
    ("test", "names"),
    [
        ("  upgrade: {from: parent}\n  fallback: true\n", ["upgrade", "fallback"]),
        ("  fallback: true\n", ["fallback"]),
        ("  checks:\n    - unit: ssh.service\n", ["checks"]),
        ("  checks:\n    - ostree: {ref: edge}\n", ["checks"]),
    ],
)
def test_a_test_that_needs_a_disk_is_refused_where_none_is_made(refused, test, names):
    hint = "add a stage 'qemu' with 'boot-loader: grub', or remove it"
    assert refused(REMOTE.replace('"}', '", verify: false}'), after="", test=test) == [
        ("bad-value", f"{name}: {NO_DISK}", hint) for name in names
    ]


@pytest.mark.parametrize("test", ["", "  firmware: [uefi]\n", "  checks: []\n"])
def test_a_repository_alone_that_asks_for_no_boot_is_valid(load, test):
    assert "no-disk" in [note.code for note in load(after="", test=test).notes]


@pytest.mark.parametrize(
    ("options", "expected", "message", "hint"),
    [
        ("", "{ref: other/ref}", "ref: the commit is one of 'edge'",
         "write 'edge', or leave it out"),
        ("", '{version: "9"}', "version: the commit has no version",
         "change one of the two, or leave it out"),
        (VERSION, '{version: "9"}', "version: the commit has the version '1'",
         "change one of the two, or leave it out"),
        (VERSION, "{signed: true}", "signed: the stage 'ostree' has no 'sign'",
         "sign the commit, or leave 'signed' out"),
        (SIGNED, "{signed: true}",
         "signed: machines verify no signature: the stage 'ostree' has no 'remote' with 'verify'",
         "sign the commit, or leave 'signed' out"),
    ],
)  # fmt: skip
def test_a_check_that_contradicts_the_commit_is_refused(refused, options, expected, message, hint):
    assert refused(options, test=f"  checks:\n    - ostree: {expected}\n") == [
        ("bad-value", message, hint)
    ]


def test_each_contradiction_is_told(refused):
    test = '  checks:\n    - ostree: {ref: a, version: "9", signed: true}\n'
    assert [m.split(":")[0] for _, m, _ in refused(test=test)] == ["ref", "version", "signed"]


def test_a_system_that_is_no_commit_has_no_version_of_ostree(refused):
    found = refused(commit=False, test="  checks:\n    - ostree: {ref: edge}\n")
    assert found == [
        (
            "bad-value",
            "ostree: only the system of a stage 'ostree' runs a version of OSTree",
            "add the stage 'ostree', or remove the check",
        )
    ]


def test_bootc_makes_a_version_of_ostree_too(load):
    disk = f"{GRUB}    installer: bootc\n    bootc: {{target-imgref: example.org/edge}}\n"
    assert load(commit=False, after=disk, test="  checks:\n    - ostree: {ref: edge}\n")


@pytest.mark.parametrize(
    ("options", "expected", "signed"),
    [
        (SIGNED + REMOTE, "{}", True),
        (SIGNED + REMOTE, "{signed: false}", False),
        (SIGNED + REMOTE, "{signed: true}", True),
        (SIGNED + REMOTE.replace('"}', '", verify: false}'), "{}", False),
        (SIGNED, "{}", False),
        ("", "{}", False),
    ],
)
def test_the_check_asks_for_a_signature_where_machines_verify_it(load, options, expected, signed):
    loaded = load(options, test=f"  checks:\n    - ostree: {expected}\n")
    (check,) = loaded.recipe.boot_test.checks
    assert isinstance(check, OstreeCheck)
    assert check.ostree.signed is signed


def test_machines_that_verify_need_gpg(load):
    without = PACKAGES.replace("gpg, ", "")
    for packages, options, known in (
        (without, SIGNED + REMOTE, ["the signature that machines verify needs the package 'gpg'"]),
        (without, SIGNED, []),
        (PACKAGES, SIGNED + REMOTE, []),
        (PACKAGES.replace("gpg, ", "gnupg, "), SIGNED + REMOTE, []),
    ):
        notes = [note.message for note in load(options, packages=packages).notes]
        found = [note.partition(",")[0] for note in notes if "signature" in note]
        assert found == known


AGAIN = "  - type: apt\n    packages: [initramfs-tools]\n"


def with_dracut(load, packages, more):
    """Loads a recipe with these packages; `more` stages follow the one that installs them."""
    wanted = PACKAGES.replace("]", f", {packages}]")
    return load(packages=f"{wanted}\n{more}".rstrip("\n"))


@pytest.mark.parametrize("packages", ["dracut", "dracut=106-6", "initramfs-tools, dracut"])
def test_dracut_conflicts_with_what_makes_the_initramfs(load, packages):
    with pytest.raises(InvalidDocument) as raised:
        with_dracut(load, packages, "")
    (problem,) = raised.value.problems
    assert (problem.line, problem.code, problem.hint) == (4, "bad-value", "remove 'dracut'")
    message = "packages: 'dracut' conflicts with 'initramfs-tools', with which the stage 'ostree'"
    assert problem.message.startswith(message)


@pytest.mark.parametrize(
    ("packages", "more"),
    [
        ("dracut-core", ""),
        ("dracut", AGAIN),
        ("initramfs-tools", "  - type: apt\n    remove: [dracut]\n"),
    ],
)
def test_packages_that_leave_initramfs_tools_in_place(load, packages, more):
    assert with_dracut(load, packages, more)


def test_a_parent_on_a_server_is_named_with_its_digest(refused):
    url = "https://example.org/edge.ostree.tar"
    message = f"{url}: a URL; write 'parent-download' with its 'url' and 'sha256'"
    assert refused(f'    parent: "{url}"\n') == [
        ("bad-value", message, "see 'particle-os explain ostree'")
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("files\n    files: [{path: /x, source: 'http://e.org/x'}]", "write 'download' with"),
        ("apt\n    debs: ['https://e.org/x.deb']", "write 'downloads' with its"),
        ("files\n    secrets: [{name: a, env: A}]\n    files: [{path: /x, source: none}]",
         "No such file"),
    ],
)  # fmt: skip
def test_a_url_in_place_of_a_file_is_told_with_what_to_write(refused, options, message):
    found = refused(after=f"  - type: {options}\n{GRUB}", commit=False)
    assert [message in told for _, told, _ in found if "names no" not in told] == [True]
