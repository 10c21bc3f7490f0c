import pytest
from particle_os.errors import InvalidDocument
from particle_os.recipe import loading

RECIPE = """\
name: test
base-image: tar:base.tar
stages:
  - type: files
    files:
      - path: {path}
        content: x
    links: {links}
{stages}
  - type: qemu
    boot-loader: {loader}
"""


def noted(tmp_path, text):
    """The notes of a recipe without a defect."""
    (tmp_path / "r.yml").write_text(text)
    return [(p.line, p.code, p.message) for p in loading.load(tmp_path / "r.yml").notes]


def problems(tmp_path, path="/etc/motd", stages="", loader="extlinux", links="[]", text=None):
    recipe = tmp_path / "r.yml"
    stages = "\n".join(f"  - {stage}" for stage in stages.splitlines())
    recipe.write_text(text or RECIPE.format(path=path, stages=stages, loader=loader, links=links))
    try:
        loading.load(recipe)
    except InvalidDocument as invalid:
        return [(p.line, p.code, p.message, p.hint) for p in invalid.problems]
    return []


@pytest.mark.parametrize(
    ("path", "stages", "instead"),
    [
        ("/etc/fstab", "", "'mounts'"),
        ("/etc/machine-id", "", "each machine makes its own"),
        ("/etc/ssh/ssh_host_rsa_key", "", "each machine makes its own"),
        ("/usr/sbin/policy-rc.d", "", "no image contains it"),
        ("/var/cache/apt/archives/x.deb", "", "no image contains it"),
        ("/boot/extlinux/extlinux.conf", "", "'command-line'"),
        ("/etc/hostname", "{type: hostname, hostname: a}", "'hostname'"),
        ("/etc/localtime", "{type: timezone, zone: UTC}", "'zone'"),
        ("/etc/default/locale", "{type: locale, default: C.UTF-8}", "'default'"),
        ("/etc/default/keyboard", "{type: keyboard, layout: de}", "options of the stage"),
        ("/etc/systemd/network/10-en.network", "{type: network, interfaces: [{match: ['en*']}]}",
         "'interfaces'"),
        ("/etc/sudoers.d/ann", "{type: users, users: [{name: ann, sudo: password}]}",
         "another name"),
        ("/etc/systemd/system/a.timer",
         "{type: services, timers: [{name: a, on-calendar: daily, command: [x]}]}", "another name"),
        ("/etc/systemd/system/ssh.service.d/recipe.conf",
         "{type: services, drop-ins: [{unit: ssh, content: '[Unit]'}]}", "another name"),
        ("/etc/systemd/system/particle-os-ssh-host-keys.service", "", "another name"),
        ("/var/log/apt/history.log", "", "no image contains it"),
        ("/usr/share/doc/acme/README", "{type: cleanup}", "after the 'cleanup'"),
        ("/usr/share/man/man1/acme.1", "{type: cleanup}", "after the 'cleanup'"),
        ("/usr/share/locale/fr/acme.mo", "{type: cleanup, keep-languages: [de]}", "'cleanup'"),
        ("/root/.cache/seed", "{type: cleanup}", "after the 'cleanup'"),
        ("/etc/dpkg/dpkg.cfg.d/cleanup", "{type: cleanup, later: true}", "another name"),
        ("/usr/share/initramfs-tools/hooks/zz-particle-os", "{type: kernel, compression: gzip}",
         "another name"),
        ("/etc/apt/keyrings/acme.asc",
         "{type: sources, repositories: [{name: acme, mirrors: ['http://m.example'], suites: [s],"
         " key-file: key.asc}]}", "'keyring'"),
    ],
)  # fmt: skip
def test_a_file_that_a_later_stage_replaces_is_refused(tmp_path, path, stages, instead):
    found = [p for p in problems(tmp_path, path, stages) if p[1] == "overwritten"]
    ((line, _, message, hint),) = found
    assert line == 6
    assert f"{path} would be lost" in message
    assert instead in hint


@pytest.mark.parametrize("path", ["/etc/fstab", "/etc/machine-id"])
def test_a_directory_in_the_place_of_such_a_file_is_refused(tmp_path, path):
    text = f"""\
name: test
base-image: tar:base.tar
stages:
  - {{type: files, directories: [{{path: {path}}}]}}
  - {{type: qemu}}
"""
    (tmp_path / "recipe.yml").write_text(text)
    with pytest.raises(InvalidDocument) as raised:
        loading.load(tmp_path / "recipe.yml")
    assert "overwritten" in [problem.code for problem in raised.value.problems]


@pytest.mark.parametrize(
    ("path", "stage", "disk", "instead"),
    [
        ("/etc/repart.d/50-root.conf", "", "grow: true", "leave out 'grow'"),
        ("/etc/kernel-img.conf", "", "file-system: xfs", "links to the kernel in /boot"),
        ("/swapfile", "", "swap: 1G", "'swap'"),
        ("/etc/systemd/system-preset/10-disabled-in-the-image.preset", "", "first-boot: true",
         "another name"),
        ("/boot/efi/EFI/BOOT/BOOTX64.EFI", "", "boot-loader: grub", "programs"),
        ("/etc/resolv.conf", "{type: network, interfaces: [{match: ['en*']}]}", "swap: none",
         "'resolved: false'"),
    ],
)  # fmt: skip
def test_an_option_that_writes_the_file_is_named(tmp_path, path, stage, disk, instead):
    text = f"""\
name: test
base-image: tar:base.tar
stages:
  - {{type: apt, packages: [systemd-resolved]}}
  - {{type: files, files: [{{path: {path}, content: x}}]}}
  - {stage or "{type: timezone, zone: UTC}"}
  - {{type: qemu, {disk}}}
"""
    ((line, code, message, hint),) = problems(tmp_path, text=text)
    assert (line, code, instead in hint) == (5, "overwritten", True)
    assert message.startswith(f"{path} would be lost")
    # Without the option, the file stays.
    text = text.replace(disk, "swap: none").replace("systemd-resolved]", "curl]")
    assert problems(tmp_path, text=text) == []


def test_the_stage_apt_may_remove_what_would_replace_a_file(tmp_path):
    text = """\
name: test
base-image: tar:base.tar
stages:
  - {type: files, files: [{path: /etc/resolv.conf, content: x}]}
  - {type: apt, packages: [systemd-resolved]}
  - {type: apt, remove: [systemd-resolved]}
  - {type: network, interfaces: [{match: ['en*']}]}
  - {type: qemu}
"""
    assert problems(tmp_path, text=text) == []
    text = text.replace("remove: [systemd-resolved]", "packages: [curl]")
    assert [p[1] for p in problems(tmp_path, text=text)] == ["overwritten"]


@pytest.mark.parametrize(
    ("path", "cleanup"),
    [
        ("/usr/share/doc/acme/copyright", ""),
        ("/usr/share/doc/acme/README", "documentation: false"),
        ("/usr/share/man/man1/acme.1", "manual-pages: false"),
        ("/usr/share/locale/fr/acme.mo", "later: true"),
        ("/root/.cache/seed", "caches: false"),
        ("/etc/dpkg/dpkg.cfg.d/cleanup", "later: false"),
    ],
)
def test_a_file_that_a_cleanup_keeps_stays(tmp_path, path, cleanup):
    assert problems(tmp_path, path, f"{{type: cleanup, {cleanup}}}") == []


def test_a_directory_that_a_cleanup_keeps_stays(tmp_path):
    text = """\
name: test
base-image: tar:base.tar
stages:
  - type: files
    directories: [{path: /usr/share/man/man1}, {path: /usr/share/doc/acme}, {path: /root/.cache}]
    links: [{path: /usr/share/doc/other, to: acme}]
  - {type: cleanup}
  - {type: qemu}
"""
    assert problems(tmp_path, text=text) == []


def test_what_a_cleanup_removes_of_a_copied_directory_is_noted(tmp_path):
    for name in ("share/doc/acme/README", "share/man/man1/acme.1", "bin/acme"):
        place = tmp_path / "tree" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("")
    text = """\
name: test
base-image: tar:base.tar
stages:
  - {type: files, files: [{path: /usr, source: tree}]}
  - {type: cleanup}
  - {type: qemu}
"""
    message = "the stage 'cleanup' removes 2 of the copied files"
    assert noted(tmp_path, text) == [(4, "overwritten", message)]
    assert noted(tmp_path, text.replace("cleanup", "timezone, zone: UTC")) == []


def test_the_files_of_other_boot_loaders_are_free(tmp_path):
    path = "/boot/grub/grub.cfg"
    assert [p[1] for p in problems(tmp_path, path, loader="grub")] == ["overwritten"]
    assert problems(tmp_path, path) == []


def test_a_file_after_the_stage_that_owns_it_stays(tmp_path):
    text = """\
name: test
base-image: tar:base.tar
stages:
  - {type: hostname, hostname: a}
  - {type: files, files: [{path: /etc/hostname, content: b}]}
  - {type: qemu}
"""
    assert problems(tmp_path, text=text) == []


def test_a_link_counts_as_a_file(tmp_path):
    found = problems(tmp_path, links="[{path: /etc/fstab, to: x}]")
    assert [(p[0], p[1]) for p in found] == [(8, "overwritten")]


def test_what_a_copied_directory_would_lose_is_named(tmp_path):
    tree = tmp_path / "tree"
    for name in ("etc/fstab", "run/x", "var/run/y", "usr/bin/tool"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("")
    (tree / "tmp").mkdir()
    text = """\
name: test
base-image: tar:base.tar
stages:
  - {type: files, files: [{path: /, source: tree}]}
  - {type: qemu}
"""
    found = problems(tmp_path, text=text)
    assert {(p[1], p[2].split()[0]) for p in found} == {
        ("overwritten", "/etc/fstab"),
        ("overwritten", "/run/x"),
        ("overwritten", "/var/run/y"),
    }


@pytest.mark.parametrize("top", ["/var/run", "/var/lock", "/var/tmp", "/run", "/tmp", "/dev"])
def test_directories_that_are_empty_at_boot_take_no_files(tmp_path, top):
    ((_, code, message, _),) = problems(tmp_path, f"{top}/x")
    assert code == "bad-value"
    assert top in message
    assert problems(tmp_path, f"{top}ning/x") == []


@pytest.mark.parametrize(
    ("wrong", "disk"),
    [
        ("{path: /run/x, content: a}", "type: qemu"),
        ("{path: /proc/x, content: a}, {path: /tmp/y, source: gone}", "type: qemu"),
        ("{path: no, content: a}, 7, {path: /var/z, mode: 7, content: a}", "type: qemu"),
        ("{path: /srv/x, content: a}", "type: qemu, size: 4GB"),
    ],
)
def test_another_error_of_the_stages_hides_no_lost_file(tmp_path, wrong, disk):
    text = f"""\
name: test
base-image: tar:base.tar
stages:
  - type: files
    files: [{wrong}, {{path: /etc/fstab, content: b}}]
    links: [{{path: /etc/machine-id, to: x}}]
  - {{{disk}}}
"""
    found = problems(tmp_path, text=text)
    lost = [(p[0], p[2]) for p in found if p[1] == "overwritten"]
    assert lost == [
        (line, f"{path} would be lost: the stage 'qemu' at line 7 does not keep it")
        for line, path in ((5, "/etc/fstab"), (6, "/etc/machine-id"))
    ]
    assert len(found) > len(lost)


def test_a_wrong_stage_for_another_architecture_loses_nothing(tmp_path):
    text = """\
name: test
base-image: tar:base.tar
stages:
  - type: files
    when: {architecture: arm64}
    files: [{path: /run/x, content: a}, {path: /etc/fstab, content: b}]
  - {type: qemu}
"""
    assert [p[1] for p in problems(tmp_path, text=text)] == ["bad-value"]
