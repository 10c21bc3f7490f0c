"""Needs of stages that are certainly not met: the host reports them before a build starts."""

import pytest
from particle_agent.stages import RECIPE_STAGES
from particle_os.architecture import AMD64
from particle_os.errors import InvalidDocument
from particle_os.recipe import loading
from particle_os.system.workspace import data_directory

from tests.guest.contract.test_keys import BINARY
from tests.guest.disk.test_needs import combinations, label

KERNEL = "  - {type: apt, packages: [linux-image-cloud-amd64, systemd-sysv]}\n"
LOCALE = "  - type: locale\n    default: C.UTF-8\n    generate: [C, de_DE.UTF-8]\n"
GROUP = "  - type: users\n    users: [{name: a, groups: [adm, docker]}]\n"
SUDO = "  - type: users\n    users: [{name: a, sudo: password}]\n"
OWNER = "  - type: files\n    directories: [{path: /srv/a, owner: deploy}]\n"
RESOLVED = "  - type: network\n    interfaces: [{match: [en*]}]\n    resolved: true\n"
MEMBER = "  - type: groups\n    groups: [{name: web, members: [root, deploy]}]\n"


def load(tmp_path, stages, top="", disk="", **options):
    path = tmp_path / "recipe.yml"
    path.write_text(f"name: x\n{top}stages:\n{stages}  - type: qemu\n{disk}")
    return loading.load(path, **options)


def problems(tmp_path, stages, **options):
    with pytest.raises(InvalidDocument) as raised:
        load(tmp_path, stages, **options)
    return list(raised.value.problems)


# (stages, options of qemu, line, column, a part of the message, a part of the hint)
MISSING = [
    ("  - {type: apt, packages: [systemd-sysv]}\n", "", 4, 5, "no kernel for the boot loader",
     "add 'linux-image-cloud-amd64'"),
    ("  - {type: apt, packages: [linux-image-cloud-amd64, systemd, openssh-server]}\n", "", 4, 5,
     "there is no init that the kernel could start", "add 'systemd-sysv'"),
    (KERNEL + LOCALE, "", 6, 19, "locale de_DE.UTF-8 needs the package 'locales'", "add 'locales'"),
    (KERNEL + GROUP, "", 5, 37, "user a: no stage before makes the group 'docker'", "groups stage"),
    (KERNEL + SUDO, "", 5, 29, "needs the package 'sudo'", "add 'sudo' to the packages of an apt"),
    (KERNEL + OWNER, "", 5, 41, "/srv/a: no stage before makes the user 'deploy'", "users stage"),
    (KERNEL + MEMBER, "", 5, 42, "group web: no stage before makes the user 'deploy'", "users"),
    (KERNEL + RESOLVED, "", 6, 15, "'systemd-resolved'", "add 'systemd-resolved'"),
    ("  - {type: services, mask: [ssh]}\n" + KERNEL, "", 3, 5, "services needs the package",
     "put this stage after the 'apt' at line 4"),
    (LOCALE + "  - {type: apt, packages: [locales, linux-image-amd64, init]}\n", "", 5, 19,
     "'locales'", "put this stage after the 'apt' at line 6"),
    (KERNEL, "    mounts: [{where: /m, what: 'a:/x', type: nfs}]\n", 5, 46, "the type 'nfs' of /m",
     "add 'nfs-common'"),
    (KERNEL, "    mounts: [{where: /m, what: //a/x, type: cifs}]\n", 5, 45, "'cifs-utils'", "add"),
    (KERNEL, "    boot-loader: systemd-boot\n", 5, 18, "'systemd-boot'", "add 'systemd-boot'"),
    (KERNEL, "    file-system: btrfs\n", 5, 18, "'btrfs-progs'", "add 'btrfs-progs'"),
    (KERNEL, "    grow: true\n", 5, 11, "'systemd-repart'", "add 'systemd-repart'"),
    (KERNEL, "    grow: true\n    partition-table: msdos\n", 5, 11, "'cloud-guest-utils'", "add"),
]  # fmt: skip


@pytest.mark.parametrize(("stages", "disk", "line", "column", "message", "hint"), MISSING)
def test_a_need_that_no_stage_meets_is_an_error_at_its_place(
    tmp_path, stages, disk, line, column, message, hint
):
    (problem,) = problems(tmp_path, stages, disk=disk)
    assert (problem.line, problem.column, problem.code) == (line, column, "missing-need")
    assert message in problem.message
    assert hint in problem.hint


@pytest.mark.parametrize(
    "later",
    ["{type: files, files: [{path: /usr, source: tree}]}", "{type: apt, packages: [vim]}",
     "{type: run, script: x}", "{type: apt, upgrade: true}"],
)  # fmt: skip
def test_only_a_later_stage_that_names_the_package_is_proposed(tmp_path, later):
    (tmp_path / "tree").mkdir()
    (problem,) = problems(tmp_path, f"{KERNEL}{LOCALE}  - {later}\n")
    assert problem.hint == "add 'locales' to the packages of an apt stage before it"


@pytest.mark.parametrize("stage", list(combinations()), ids=label)
def test_each_package_that_an_image_needs_is_missed_when_it_alone_is_left_out(tmp_path, stage):
    disk = (
        f"    boot-loader: {stage.boot_loader}\n    partition-table: {stage.partition_table}\n"
        f"    file-system: {stage.file_system}\n    grow: {str(stage.grow).lower()}\n"
        f"    unified-kernel-image: {str(stage.unified_kernel_image).lower()}\n"
    )
    wanted = (*stage.boot_needs(AMD64), *stage.needs())
    needs = {need.hint.split("'")[1]: need.within("trixie") for need in wanted}
    packages = list(needs)
    install = "  - {{type: apt, packages: [{}]}}\n".format
    load(tmp_path, install(", ".join(packages)), disk=disk)
    for left_out in packages:
        others = [package for package in packages if package != left_out]
        if any(map(needs[left_out].is_brought_by, others)):
            continue
        (problem,) = problems(tmp_path, install(", ".join(others)), disk=disk)
        assert problem.code == "missing-need"
        assert left_out in problem.hint


def test_every_package_that_a_boot_loader_needs_is_reported(tmp_path):
    found = problems(tmp_path, KERNEL, disk="    boot-loader: grub\n")
    assert [p.hint.split("'")[1] for p in found] == [
        "grub-pc-bin", "grub-efi-amd64-bin", "grub2-common",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("loader", "signed"),
    [
        ("grub", ["shim-signed", "grub-efi-amd64-signed"]),
        # systemd-boot depends on the signed package or on an alternative.
        ("systemd-boot", ["shim-signed"]),
    ],
)
def test_secure_boot_needs_signed_packages(tmp_path, loader, signed):
    plain = apt("grub2-common", "grub-pc-bin", "grub-efi-amd64-bin", "systemd-boot")
    disk = f"    boot-loader: {loader}\nboot-test: {{firmware: [uefi, uefi-secure]}}\n"
    found = problems(tmp_path, plain, disk=disk)
    assert sorted(p.hint.split("'")[1] for p in found) == sorted(signed)
    load(tmp_path, plain, disk=disk.replace(", uefi-secure", ""))
    load(tmp_path, plain + apt(*signed), disk=disk)


def test_a_suite_without_a_signed_systemd_boot_is_told(tmp_path):
    """No package of Debian 12 would help."""
    stages = apt("linux-image-cloud-amd64", "systemd-sysv", "systemd-boot", "shim-signed")
    disk = "    boot-loader: systemd-boot\nboot-test: {firmware: [uefi-secure]}\n"
    top = "base-image: mmdebstrap:bookworm\n"
    (found,) = problems(tmp_path, stages, top=top, disk=disk)
    assert found.message.startswith("boot-loader: bookworm has no systemd-boot that is signed")
    assert found.hint == "write 'grub', or use trixie or later"
    load(tmp_path, stages, top=top, disk=disk.replace("[uefi-secure]", "[uefi]"))
    load(tmp_path, stages, disk=disk)


def test_a_package_with_any_name_may_bring_an_init(tmp_path):
    stages = "  - {{type: apt, packages: [linux-image-amd64, {}]}}\n".format
    notes = load(tmp_path, stages("some-package")).notes
    assert [note for note in notes if "there is no init" in note.message] == []
    (problem,) = problems(tmp_path, stages("curl"))
    assert "there is no init" in problem.message


@pytest.mark.parametrize(
    ("base", "stages"),
    [
        ("mmdebstrap:sid", KERNEL),
        ("mmdebstrap:testing", KERNEL),
        (None, "  - {type: apt, packages: [init, linux-image-amd64, some-package]}\n"),
        (None, "  - {type: apt, packages: [init, linux-image-amd64/trixie-backports]}\n"),
        (None, "  - {type: apt, packages: [init, linux-image-amd64], target-release: a}\n"),
        (None, "  - {type: sources, repositories: [{name: a, suites: [trixie-backports], "
               "mirrors: ['http://mirror.example.org/debian/']}]}\n" + KERNEL),
        (None, "  - {type: files, files: [{path: /etc/apt/sources.list.d/a.sources, "
               "content: 'Types: deb'}]}\n" + KERNEL),
    ],
)  # fmt: skip
def test_what_packages_may_bring_after_all_refuses_no_recipe(tmp_path, base, stages):
    (note,) = (n for n in load(tmp_path, stages + LOCALE, base=base).notes if "needs" in n.message)
    assert note.code == "missing-need"
    assert "needs the package 'locales'" in note.message
    assert "it seems: add 'locales' to the packages" in note.message


def test_packages_that_depend_on_another_bring_it(tmp_path):
    """The data of Debian's dependencies lists all packages that depend on `locales`."""
    for name in ("gnumed-server", "cloud-init", "gvmd"):
        assert load(tmp_path, apt(name) + LOCALE).notes == ()


def apt(*packages, more=""):
    names = ", ".join(("linux-image-amd64", "init", *packages))
    return f"  - {{type: apt, packages: [{names}]{more}}}\n"


@pytest.mark.parametrize(
    "stages",
    [
        apt("locales:amd64=2.41-1") + LOCALE,
        apt("cloud-init") + LOCALE,
        apt("task-german") + LOCALE,
        apt(more=", recommends: true") + LOCALE,
        apt() + "  - {type: run, command: [a]}\n" + LOCALE,
        apt() + LOCALE.replace("de_DE.UTF-8", "C.UTF-8"),
        apt("docker.io") + GROUP,
        apt() + GROUP.replace("docker", "render"),
        apt() + "  - {type: groups, groups: [{name: docker}]}\n" + GROUP,
        apt() + "  - type: users\n    users: [{name: docker}, {name: a, groups: [docker]}]\n",
        apt() + "  - type: users\n    users: [{name: deploy}]\n" + OWNER + MEMBER,
        apt("grub-cloud-amd64") + "  - {type: run, command: [a]}\n" + SUDO,
        apt().replace("image", "image-6.12+deb13") + apt("libnss-resolve") + RESOLVED,
    ],
)  # fmt: skip
def test_a_need_that_a_stage_may_meet_is_no_error(tmp_path, stages):
    assert load(tmp_path, stages).notes == ()


@pytest.mark.parametrize(
    "stage",
    [
        "{type: apt, packages: [network-manager]}",
        "{type: apt, packages: [systemd-cron]}",
        "{type: apt, packages: [vim], recommends: true}",
        "{type: kernel, command-line: [init=/usr/lib/systemd/systemd]}",
        "{type: files, links: [{path: /sbin/init, to: /usr/lib/systemd/systemd}]}",
        "{type: files, files: [{path: /sbin/init, content: '#!/bin/sh', mode: '0755'}]}",
        "{type: run, script: 'apt-get install -y init'}",
    ],
)
def test_an_init_may_come_in_many_ways(tmp_path, stage):
    kernel = "  - {type: apt, packages: [linux-image-cloud-amd64, systemd]}\n"
    assert load(tmp_path, f"{kernel}  - {stage}\n").notes == ()
    other = "{type: kernel, command-line: [quiet]}"
    assert len(problems(tmp_path, f"{kernel}  - {other}\n")) == 1


@pytest.mark.parametrize("name", ["python3", "vim-nox", "cloud-guest-utils", "postgresql"])
def test_the_time_zones_may_come_with_other_packages(tmp_path, name):
    zone = "  - {type: timezone, zone: Europe/Berlin}\n"
    assert load(tmp_path, apt(name) + zone).notes == ()
    for few in (apt(), apt("systemd-timesyncd", "curl", "grub-pc", "nginx-light")):
        (problem,) = problems(tmp_path, few + zone)
        assert "'tzdata'" in problem.hint


def test_what_is_copied_or_comes_from_elsewhere_may_hold_anything(tmp_path):
    for name in ("tree", "a.deb"):
        (tmp_path / name).write_text("")
    (tmp_path / "key.asc").write_bytes(BINARY)
    for place in ("/", "/usr", "/usr/local/share", "/lib/x"):
        copied = f"  - {{type: files, files: [{{path: {place}, source: tree}}]}}\n"
        load(tmp_path, copied + LOCALE)
    load(tmp_path, "  - {type: apt, debs: [a.deb]}\n" + LOCALE)
    theirs = "{name: a, mirrors: ['http://a.example.org'], suites: [b], key-file: key.asc}"
    load(tmp_path, f"  - {{type: sources, repositories: [{theirs}]}}\n" + LOCALE)
    written = "  - {type: files, files: [{path: /etc/motd, content: Hello}]}\n"
    assert len(problems(tmp_path, written + LOCALE)) == 3
    beside = "  - {type: files, files: [{path: /srv/site, source: tree}]}\n"
    assert len(problems(tmp_path, beside + LOCALE)) == 3


@pytest.mark.parametrize("base", ["tar:base.tar", "docker://debian:13", "mmdebstrap:bullseye"])
def test_of_other_bases_nothing_is_known(tmp_path, base):
    load(tmp_path, LOCALE, top=f"base-image: {base}\n")
    load(tmp_path, LOCALE, base=base)
    assert problems(tmp_path, LOCALE, top=f"base-image: {base}\n", base="mmdebstrap:trixie")


def test_what_was_removed_is_not_there(tmp_path):
    brings = "  - {type: apt, packages: [linux-image-cloud-amd64, init, locales]}\n"
    removes = "  - {type: apt, remove: [locales]}\n"
    load(tmp_path, brings + LOCALE)
    (problem,) = problems(tmp_path, brings + removes + LOCALE)
    assert "needs the package 'locales'" in problem.message
    load(tmp_path, brings + removes + brings + LOCALE)


def test_an_error_elsewhere_hides_nothing(tmp_path):
    wrong = "  - {type: timezone, zon: UTC}\n"
    copied = "  - {type: files, files: [{path: /a, source: not-there}]}\n"
    found = problems(tmp_path, KERNEL + wrong + LOCALE + copied)
    assert [(p.line, p.code) for p in found] == [
        (4, "missing-key"), (4, "unknown-key"), (7, "missing-need"), (8, "no-file"),
    ]  # fmt: skip
    # A stage with a mistake may bring anything.
    unknown = "  - {type: apt, packages: [locales], pakages: []}\n"
    assert [p.code for p in problems(tmp_path, unknown + LOCALE)] == ["unknown-key"]
    asked = "  - {type: files, files: [{path: /a, source: '${nowhere}/a'}]}\n"
    assert [p.code for p in problems(tmp_path, KERNEL + asked)] == ["unknown-variable"]


@pytest.mark.parametrize(
    ("stage", "found"),
    [
        ("{type: apt, recomends: true, debs: [nothere.deb]}",
         [(3, 17, "unknown-key"), (3, 41, "no-file")]),
        ("{type: files, files: [{path: /a, source: no}, {path: /a, content: a}]}",
         [(3, 46, "no-file"), (3, 58, "bad-value")]),
        ("{type: sources, snapshot: x, repositories: [{name: a, suites: [a], "
         "mirrors: ['http://a/'], key-file: nokey.asc}]}",
         [(3, 31, "bad-value"), (3, 106, "no-file")]),
        ("{type: apt, recomends: true, debs: [no.deb], when: {architecture: arm64}}",
         [(3, 17, "unknown-key")]),
    ],
)  # fmt: skip
def test_a_mistake_in_a_stage_hides_no_file_that_is_missing(tmp_path, stage, found):
    mistakes = problems(tmp_path, f"  - {stage}\n")
    assert [(p.line, p.column, p.code) for p in mistakes] == found


@pytest.mark.parametrize("wrong", ["{type: hostname, nam: a}", "{type: apt, debs: [nothere.deb]}"])
def test_an_error_hides_no_notes_and_no_needs(tmp_path, wrong):
    zone = "  - {type: timezone, zone: Moon/Tycho}\n"
    with pytest.raises(InvalidDocument) as raised:
        load(tmp_path, f"  - {wrong}\n{zone}", base="mmdebstrap:trixy")
    assert {note.code for note in raised.value.notes} >= {"unknown-suite"}
    with pytest.raises(InvalidDocument) as raised:
        load(tmp_path, f"{LOCALE}  - {wrong}\n")
    assert "missing-need" in [p.code for p in raised.value.problems]


def test_stages_for_other_architectures_bring_and_need_nothing(tmp_path):
    arm = "  - {type: apt, packages: [locales], when: {architecture: arm64}}\n"
    assert problems(tmp_path, KERNEL + arm + LOCALE)
    load(tmp_path, KERNEL + LOCALE + "    when: {architecture: arm64}\n")


def test_an_included_stage_is_reported_with_its_file(tmp_path):
    (tmp_path / "common.yml").write_text("- {type: locale, default: de_DE.UTF-8}\n")
    (problem,) = problems(tmp_path, f"{KERNEL}  - include: common.yml\n")
    assert (problem.path, problem.line) == (str(tmp_path / "common.yml"), 1)


@pytest.mark.parametrize("path", sorted(data_directory("recipes").rglob("*.yml")), ids=str)
def test_the_recipes_of_the_tree_have_what_they_need(path):
    assert {note.code for note in loading.load(path).notes} <= {"placeholder"}


def test_stages_that_only_configure_bring_nothing():
    configure = {kind.type for kind in RECIPE_STAGES if kind.only_configures}
    assert {"hostname", "locale", "services", "timezone"} <= configure
    assert configure.isdisjoint({"apt", "files", "groups", "run", "sources", "users"})


@pytest.mark.parametrize(
    ("suite", "notes"),
    [("trixi", ["unknown-suite"]), ("testing", []), ("trixie", []), ("company-1", [])],
)
def test_a_suite_that_looks_misspelt_is_reported(tmp_path, suite, notes):
    loaded = load(tmp_path, KERNEL, top=f"base-image: mmdebstrap:{suite}\n")
    assert [note.code for note in loaded.notes] == notes


def test_a_suite_of_the_command_line_is_reported_as_such(tmp_path):
    (note,) = load(tmp_path, KERNEL, base="mmdebstrap:trixy").notes
    assert note.message == "--base: is the suite 'trixy' meant to be 'trixie'?"
    assert note.line == 1


@pytest.mark.parametrize(
    ("suite", "meant"),
    [
        ("trixy", "trixie"),
        ("trixie-securty", "trixie-security"),
        ("bookwrom-backport", "bookworm-backports"),
        *((name, None) for name in ("trixie", "sid", "stable-updates", "trixie-backports-sloppy")),
        # Suites of other archives.
        *((name, None) for name in ("./", "nodistro", "noble", "questing", "squid", "trixie-pgdg")),
        *((name, None) for name in ("stable/", "experimental", "rc-buggy", "any-version")),
    ],
)
def test_a_suite_of_package_sources_that_looks_misspelt_is_reported(tmp_path, suite, meant):
    one = "name: a, mirrors: ['http://a.example.org']"
    sources = f"  - {{type: sources, repositories: [{{{one}, suites: [{suite}]}}]}}\n"
    for base in (None, "tar:base.tar"):
        notes = load(tmp_path, KERNEL + sources, base=base).notes
        messages = [f"is the suite '{suite}' meant to be '{meant}'?"] if meant else []
        assert [note.message for note in notes] == messages
        place = (4, sources.index(suite) + 1, "unknown-suite")
        assert all((n.line, n.column, n.code) == place for n in notes)


@pytest.mark.parametrize(
    ("kind", "package"),
    [("nfs", "nfs-common"), ("nfs4", "nfs-kernel-server, nfs-common"), ("exfat", "nano"),
     ("f2fs", "nano"), ("ext4", "nano"), ("fuse.sshfs", "sshfs")],
)  # fmt: skip
def test_a_mount_whose_program_is_there_or_in_the_kernel_needs_nothing(tmp_path, kind, package):
    mounts = f"    mounts: [{{where: /m, what: 'LABEL=x', type: {kind}}}]\n"
    kernel = KERNEL.replace("systemd-sysv", f"systemd-sysv, {package}")
    assert load(tmp_path, kernel, disk=mounts).notes == ()


def test_a_package_that_a_stage_removes_is_missing_afterwards(tmp_path):
    taken = "  - {type: apt, remove: [sudo]}\n"
    bring = KERNEL.replace("systemd-sysv", "systemd-sysv, sudo")
    (problem,) = problems(tmp_path, bring + SUDO + taken + SUDO)
    assert (problem.line, problem.code) == (8, "missing-need")
    assert load(tmp_path, bring + SUDO + taken + bring + SUDO).recipe.name == "x"
