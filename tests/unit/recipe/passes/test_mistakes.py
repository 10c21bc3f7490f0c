"""Mistakes in recipes: the place, code, message and hint of each error."""

import pytest
from particle_agent.stages import RECIPE_STAGES
from particle_os.recipe.model import stage_name

from ..written import MINIMAL, load, problems, with_stages

# (recipe, line, column, code, a part of the message, hint)
WRONG = [
    ("nam: x\nstages: [{type: qemu}]\nname: x\n",
     1, 1, "unknown-key", "unknown key 'nam'", "did you mean 'name'?"),
    ("name: x\nbootest: {}\nstages: [{type: qemu}]\n",
     2, 1, "unknown-key", "'bootest'", "did you mean 'boot-test'?"),
    (with_stages("  - type: apt\n    pakages: [a]\n"),
     4, 5, "unknown-key", "'pakages'", "did you mean 'packages'?"),
    (with_stages("  - type: users\n    users:\n      - name: a\n        ssh_authorized_keys: []\n"),
     6, 9, "unknown-key", "'ssh_authorized_keys'", "did you mean 'ssh-authorized-keys'?"),
    (MINIMAL + "boot-test:\n  checks:\n    - unit: a.service\n      timeout: 5\n",
     7, 7, "unknown-key", "'timeout'", "allowed: unit"),
    (with_stages("  - type: locales\n    default: C\n"),
     3, 11, "unknown-stage", "no stage 'locales'", "did you mean 'locale'?"),
    (with_stages("  - type: xyzzy\n"), 3, 11, "unknown-stage", "'xyzzy'",
     f"allowed: {', '.join(sorted(map(stage_name, RECIPE_STAGES)))}"),
    (with_stages("  - {type: 5}\n"), 3, 12, "bad-type", "type: expected a stage's name, found 5",
     None),
    (MINIMAL + "base-image: é\n", 4, 13, "bad-value", 'found "é"', None),
    (with_stages("  - tpye: apt\n"), 3, 5, "unknown-key", "'tpye'", "did you mean 'type'?"),
    (with_stages("  - includes: a.yml\n"),
     3, 5, "unknown-key", "'includes'", "did you mean 'include'?"),
    (with_stages("  - {type: run, command: ls -l 'a b'}\n"), 3, 26, "bad-type", "expected a list",
     'write [ls, "-l", "a b"]'),
    (with_stages("  - {type: apt, packages: vim  curl}\n"), 3, 27, "bad-type", "expected a list",
     "write [vim, curl]"),
    (with_stages("  - {type: apt, packages: [vim], remove: [vim]}\n"), 3, 43, "bad-value",
     "remove: 'vim' is among the packages to install", None),
    (with_stages("  - {type: users, users: [{name: a, uid: 0}]}\n"), 3, 42, "bad-value",
     "the uid 0 is root's", None),
    (with_stages("  - type: users\n    users: [{name: a, ssh-authorized-keys: [ssh-rsa AAAA]}]\n"),
     4, 45, "bad-value", "'ssh-rsa AAAA' is incomplete", None),
    (with_stages("  - type: sources\n    snapshot: 20261399T999999Z\n    repositories:\n"
                 "      - {name: a, mirrors: ['http://x.example.org/{date}'], suites: [a]}\n"),
     4, 15, "bad-value", "there is no moment 20261399T999999Z", None),
    (with_stages("  - {type: locale, default: en_US.utf8}\n"), 3, 29, "bad-value",
     "a locale such as 'de_DE.UTF-8'", None),
    (MINIMAL + "    size: 1G\n    swap: 2G\n", 5, 11, "bad-value", "no room for 2G of it", None),
    (MINIMAL + "boot-test:\n  checks:\n    - units: a.service\n", 6, 7, "bad-value",
     "found a mapping", "did you mean 'unit'?"),
    ("name: x\nstages: qemu\n", 2, 9, "bad-type", "stages: expected a list",
     "write '- type: qemu' in a line below"),
    (with_stages("  - {type: apt, packages: true}\n"), 3, 27, "bad-type", "expected a list",
     "see 'particle-os explain apt'"),
    (with_stages("  - {type: apt, update: maybe}\n"), 3, 25, "bad-type",
     'update: expected true or false, found "maybe"', "write true or false"),
    (with_stages("  - {type: users, users: [{name: a, uid: x}]}\n"), 3, 42, "bad-type",
     'uid: expected an integer, found "x"', "see 'particle-os explain users'"),
    (with_stages("  - {type: hostname, hostname: 127.0.0.1}\n"), 3, 32, "bad-value",
     "hostname: expected a name, found an address", "see 'particle-os explain hostname'"),
    (with_stages("  - packages: [a]\n"), 3, 5, "missing-key", "'type'", None),
    (with_stages("  - type: locale\n"), 3, 5, "missing-key", "'default'", None),
    ("stages: [{type: qemu}]\n", 1, 1, "missing-key", "'name'", None),
    ("name: x\n", 1, 1, "missing-key", "'stages'", None),
    ("name: x\nstages: []\n", 2, 9, "bad-value", "at least one item", None),
    ("name: x\nstages: {type: qemu}\n", 2, 9, "bad-type", "stages: expected a list",
     "begin each item of the list with '- '"),
    ("name: x\nstages:\n  - qemu\n", 3, 5, "bad-type", "expected a mapping, found",
     "write '- type: qemu', and its options beside it"),
    (with_stages("  - apt: {packages: [x]}\n"), 3, 5, "missing-key", "'type'",
     "write '- type: apt', and its options beside it"),
    ("5\n", 1, 1, "bad-type", "document: expected a mapping", None),
    (with_stages("  - type: apt\n    update: yes\n"), 4, 13, "bad-type", "update",
     "write true"),
    (with_stages("  - type: apt\n    update: off\n"), 4, 13, "bad-type", "update", "write false"),
    (with_stages("  - type: apt\n    update: maybe\n"), 4, 13, "bad-type", "update",
     "write true or false"),
    (with_stages("  - type: apt\n    recommends: 'true'\n"), 4, 17, "bad-type", "recommends",
     "write true, without quotes"),
    (with_stages("  - type: network\n    interfaces: [{match: [en*], dhcp: true}]\n"), 4, 39,
     "bad-value", "dhcp", "did you mean 'yes'?"),
    (MINIMAL + "    size: 4GB\n", 4, 11, "bad-value", 'found "4GB"', "did you mean '4G'?"),
    (MINIMAL + "    size: 512 MiB\n", 4, 11, "bad-value", "size", "did you mean '512M'?"),
    (MINIMAL + "    swap: 2g\n", 4, 11, "bad-value", "swap", "did you mean '2G'?"),
    (MINIMAL + "boot-test:\n  checks:\n    - service: ssh.service\n", 6, 7, "bad-value",
     "found a mapping", "did you mean 'unit'?"),
    (MINIMAL + "boot-test:\n  checks: {unit: ssh.service}\n", 5, 11, "bad-type",
     "expected a list", "begin each item of the list with '- '"),
    ("name: '{{ x }}'\nstages: [{type: qemu}]\n", 1, 7, "bad-value", "name",
     "write ${x} for a variable, not {{ x }}"),
    (with_stages("  - type: apt\n    packages: curl\n"), 4, 15, "bad-type", "packages",
     'write [curl]'),
    (with_stages("  - type: apt\n    packages: [ok-name, Bad_Name]\n"), 4, 25, "bad-value",
     "Debian package name", None),
    (with_stages("  - type: users\n    users: [{name: a, uid: '5'}]\n"), 4, 28, "bad-type",
     "uid", None),
    (with_stages("  - type: users\n    users: [{name: a, uid: -1}]\n"), 4, 28, "bad-value",
     "uid", None),
    (with_stages("  - type: users\n    users: [{name: a, sudo: nopassword}]\n"), 4, 29,
     "bad-value", "sudo", "did you mean 'no-password'?"),
    (with_stages("  - type: users\n    users:\n      - name: a\n      - name: b\n"
                 "        password: empty\n        password-hash: '*'\n"), 7, 19,
     "bad-value", "user b: 'password: empty' excludes a hash", None),
    (with_stages("  - type: network\n    interfaces:\n      - match: [en*]\n"
                 "        addresses: [192.0.2.1/24]\n        gateways: [192.0.3.1]\n"), 7, 20,
     "bad-value", "gateway 192.0.3.1 is in no network", None),
    (with_stages("  - type: kernel\n    command-line: [quiet, root=/dev/sda]\n"), 4, 27,
     "bad-value", "'root=/dev/sda' is up to the stage that writes the disk", None),
    ("name: x\nstages:\n  - type: qemu\n    formats: [raw, qcow]\n", 4, 20, "bad-value",
     "'raw', 'qcow2', 'vmdk', 'vdi' or 'vhd'", "did you mean 'qcow2'?"),
    ("name: x\nstages:\n  - type: qemu\n    size: 10X\n", 4, 11, "bad-value", "size", None),
    (MINIMAL + "description: 5\n", 4, 14, "bad-type", "description", "put it in quotes"),
    (MINIMAL + "base-image: trixie\n", 4, 13, "bad-value", "mmdebstrap:SUITE",
     "did you mean 'mmdebstrap:trixie'?"),
    (MINIMAL + "accepted-errors: [fstab-device-mising]\n", 4, 19, "bad-value",
     "an error of the verification", "did you mean 'fstab-device-missing'?"),
    (MINIMAL + "accepted-errors: [xyzzy]\n", 4, 19, "bad-value", "such as 'fstab-dev", None),
    (MINIMAL + "architecture: x86\n", 4, 15, "bad-value", "'amd64'", None),
    ("name: Has Spaces\nstages: [{type: qemu}]\n", 1, 7, "bad-value", "name", None),
    ("name: x\nname: y\nstages: [{type: qemu}]\n", 2, 1, "repeated-key", "second time",
     "remove one; the first is at line 1"),
    ("name: &n x\nstages: [{type: qemu}]\n", 1, 7, "anchor", "anchors",
     "variables, or a file that is included, say things once"),
    ("name: x\nstages:\n\t- type: qemu\n", 3, 1, "yaml", "'\\t'",
     "indent with spaces: YAML allows no tabs there"),
    ("name: x\nstages: [{type: \x07}]\n", 2, 17, "yaml", "special characters", None),
    # Stages with an option that has the name of the stage.
    (with_stages("  - type: users\n    users: [{name: a}]\n    shell: x\n"), 5, 5, "unknown-key",
     "unknown key 'shell'", "allowed: name, network, secrets, timeout, type, users, when"),
    (with_stages("  - type: groups\n    groups: [{name: a}]\n    timeout: 0\n"), 5, 14,
     "bad-value", "timeout: expected a duration", None),
    (with_stages("  - type: hostname\n    hostname: a\n    when: {architecture: amd64, os: x}\n"),
     5, 33, "unknown-key", "'os'", "allowed: architecture, is, variable"),
    # Only options of the stage itself are offered.
    (with_stages("  - type: run\n    command: [a]\n    env: {}\n"), 5, 5, "unknown-key", "'env'",
     "did you mean 'environment'?"),
    (with_stages("  - type: users\n    users: [{name: a, password: hunter2}]\n"), 4, 33,
     "bad-value", "found something else",
     "the password itself goes into a secret, see 'password-secret', or its hash into "
     "'password-hash'"),
    (with_stages("  - type: services\n    enable: [a.timer]\n    mask: [a.timer]\n"), 4, 14,
     "bad-value", "a.timer: a unit cannot be enabled", None),
    (with_stages("  - type: run\n    command: [a]\n    secrets:\n      - {name: k, env: A}\n"
                 "      - {name: k, env: B}\n"), 7, 16, "bad-value",
     "has a secret 'k' already", None),
    ("name: x\nstages:\n  - type: qemu\n  - type: apt\n  - type: qemu\n", 3, 5, "bad-order",
     "must be the last one", None),
    (with_stages("  - type: run\n"), 3, 5, "bad-value", "give one of 'command', 'script'", None),
    (with_stages("  - type: run\n    script: x\n    environment: {A: b, B C: d}\n"), 5, 25,
     "bad-value", "the name of a variable", None),
    (with_stages("  - type: run\n    script: x\n    environment:\n      A: 5\n"), 6, 10,
     "bad-value", "A: expected a text", "put it in quotes"),
    (with_stages("  - type: run\n    script: x\n    enviroment: {}\n"), 5, 5, "unknown-key",
     "unknown key 'enviroment'", "did you mean 'environment'?"),
    (MINIMAL + "boot-test: {firmware: [bios, uefi]}\n", 4, 30, "bad-value",
     "extlinux starts from bios, not from uefi", None),
    (MINIMAL + "    boot-loader: systemd-boot\nboot-test: {firmware: [bios]}\n", 5, 24, "bad-value",
     "not from bios", None),
    (MINIMAL + "boot-test: {firmware: []}\n", 4, 23, "bad-value", "at least one item", None),
    (MINIMAL + "    boot-loader: systemd-boot\n    partition-table: msdos\n", 5, 22, "bad-value",
     "in a GPT only", None),
    (MINIMAL + "    unified-kernel-image: true\n", 4, 27, "bad-value",
     "extlinux starts none", None),
    (MINIMAL + "    formats: [raw, vdi, raw]\n", 4, 25, "bad-value",
     "formats: 'raw' is named twice", None),
    (with_stages("  - {type: files, directories: [{path: /a, mode: 0o755}]}\n"), 3, 50,
     "bad-value", "(octal digits), found 0o755",
     "put it in quotes, in octal digits as in '0755'"),
    (MINIMAL + "    size: 0x10\n", 4, 11, "bad-value", "found 0x10", None),
    (MINIMAL + "    size: True\n", 4, 11, "bad-value", "found true", None),
    (MINIMAL + "description: 1.50\n", 4, 14, "bad-type", "found 1.50", "put it in quotes"),
    (MINIMAL + "    size: 1T\n", 4, 11, "bad-value", "a size in M or G",
     "did you mean '1024G'?"),
    (MINIMAL + "    swap: 1T\n", 4, 11, "bad-value", "a size in M or G",
     "did you mean '1024G'?"),
    (MINIMAL + "    swap: auto\n", 4, 11, "bad-value", "swap", None),
    ("name: x\nstages:\n  - type: apt\n  - type: qemu\n    when: {architecture: arm64}\n", 5, 5,
     "bad-order", "ends without a disk: 'when' leaves it out for amd64",
     "remove 'when' from the stage 'qemu', or add amd64 to it"),
    ("name: x\nstages:\n  - type: apt\n", 3, 5, "bad-order", "without a disk",
     "add '- type: qemu' as the last stage"),
]  # fmt: skip


# (stages, the errors as line, column, and a part of the message)
SEVERAL = [
    ("  - type: network\n    interfaces:\n      - match: [en*]\n"
     "        addresses: [300.1.1.1/24, 10.0.0.1/33]\n",
     [(6, 21, "300.1.1.1/24 is no address: write it with its prefix length, such as"),
      (6, 35, "10.0.0.1/33 is no address")]),
    ("  - type: network\n    interfaces:\n      - match: [en*]\n"
     "        addresses: [10.0.0.1/24]\n        gateways: [10.0.0.2, 10.0.0.3, 10.0.0.4]\n",
     [(7, 30, "two gateways for IPv4"), (7, 40, "two gateways for IPv4")]),
    ("  - {type: kernel, command-line: [root=/dev/sda, ro, quiet]}\n",
     [(3, 35, "'root=/dev/sda'"), (3, 50, "'ro'")]),
    ("  - type: files\n    files:\n      - {path: /a, content: a}\n"
     "      - {path: /a, content: b}\n    links: [{path: /a, to: b}]\n",
     [(6, 16, "path '/a' is there twice"), (7, 20, "path '/a' is there twice")]),
    ("  - type: groups\n    groups: [{name: a, gid: 5}, {name: a, gid: 5}]\n",
     [(4, 40, "group 'a' is there twice"), (4, 48, "gid '5' is there twice")]),
    ("  - type: users\n    users:\n      - {name: a, uid: 5}\n      - {name: a, uid: 5}\n"
     "      - {name: b, password-secret: s}\n",
     [(6, 16, "user 'a' is there"), (6, 24, "uid '5' is there"), (7, 36, "no secret of the name")]),
    ("  - type: sources\n    snapshot: 20261399T999999Z\n    repositories:\n"
     "      - {name: a, mirrors: ['http://x.example.org/'], suites: [a]}\n"
     "      - {name: a, mirrors: ['http://x.example.org/'], suites: [a]}\n",
     [(4, 15, "no moment"), (4, 15, "is of no use"), (7, 16, "repository 'a' is there twice")]),
    ("  - type: services\n    enable: [a.timer, b.timer]\n    mask: [a.timer, b.timer]\n",
     [(4, 14, "a.timer: a unit"), (4, 23, "b.timer: a unit")]),
    ("  - type: network\n    interfaces:\n      - match: [ens3, 'eth*', en*]\n"
     "      - match: [ens3, ens4, e*]\n      - match: ['enp?', 'eth?']\n      - match: ['*']\n",
     [(6, 17, "'ens3' has no effect: the same is in an earlier entry"),
      (6, 23, "'ens4' has no effect: 'en*' is in"), (7, 17, "'enp?' has no effect: 'en*' is in"),
      (7, 25, "'eth?' has no effect: 'eth*' is in")]),
    # An unknown key does not hide mistakes in its own mapping or in an outer one.
    ("  - {type: services, enabel: [], enable: [a.timer], mask: [a.timer]}\n",
     [(3, 22, "'enabel'"), (3, 43, "a.timer: a unit")]),
    ("  - type: users\n    users:\n      - {name: a, shel: /bin/sh}\n"
     "      - {name: a}\n",
     [(5, 19, "unknown key 'shel'"), (6, 16, "user 'a' is there twice")]),
    ("  - type: users\n    users:\n      - {name: a, uid: 0, shel: /bin/sh}\n",
     [(5, 24, "the uid 0 is root's"), (5, 27, "unknown key 'shel'")]),
    ("  - {type: files, files: [{path: /a, xyzzy: b}]}\n",
     [(3, 27, "write one of 'content', 'source' and 'download'"), (3, 38, "unknown key 'xyzzy'")]),
    # The misspelt key counts as the key that it resembles, so nothing else is missing.
    ("  - {type: files, files: [{path: /a, contents: b}]}\n", [(3, 38, "'contents'")]),
    ("  - {type: files, files: [{path: /a, content: b, contents: b}]}\n", [(3, 50, "'contents'")]),
    ("  - {type: services, enabled: [a.timer], mask: [a.timer]}\n",
     [(3, 5, "a.timer: a unit"), (3, 22, "'enabled'")]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/", "path: / is the whole image"),
        ("/proc/sys/vm/swappiness", "the kernel fills /proc"),
        ("/sys", "the kernel fills /sys"),
        ("/dev/x", "the kernel fills /dev"),
        ("/run/x", "/run is empty in the finished image"),
        ("/tmp/x", "/tmp is empty in the finished image"),
    ],
)
@pytest.mark.parametrize("kind", ["directories: [{{path: {}}}]", "links: [{{path: {}, to: a}}]"])
def test_a_file_that_the_image_would_not_have_is_refused(tmp_path, path, why, kind):
    (problem,) = problems(tmp_path, with_stages(f"  - type: files\n    {kind.format(path)}\n"))
    assert (problem.line, problem.code) == (4, "bad-value")
    assert why in problem.message
    kept = kind.format("/running/x")
    load(tmp_path, with_stages(f"  - type: files\n    {kept}\n"))


@pytest.mark.parametrize(("stages", "errors"), SEVERAL, ids=[s[0][:24].strip() for s in SEVERAL])
def test_each_of_several_mistakes_in_options_is_reported_at_its_item(tmp_path, stages, errors):
    found = problems(tmp_path, with_stages(stages))
    assert [(p.line, p.column) for p in found] == [error[:2] for error in errors]
    for (_, _, message), problem in zip(errors, sorted(found), strict=True):
        assert message in problem.message


@pytest.mark.parametrize(
    ("text", "line", "column", "code", "message", "hint"),
    WRONG,
    ids=[f"{w[3]}-{w[4]}"[:40] for w in WRONG],
)
def test_an_error_names_its_place_and_what_was_meant(
    tmp_path, text, line, column, code, message, hint
):
    (problem,) = problems(tmp_path, text)
    assert (problem.line, problem.column, problem.code) == (line, column, code)
    assert message in problem.message
    assert problem.hint == hint if hint else problem.hint
    assert str(problem).startswith(f"{tmp_path / 'recipe.yml'}:{line}:{column}: ")


def test_the_variable_of_another_program_is_recognised(tmp_path):
    found = problems(tmp_path, "name: {{ x }}\nstages: [{type: qemu}]\n")
    hints = [problem.hint for problem in found if problem.code == "bad-key"]
    assert hints == ["write ${x} for a variable, not {{ x }}"]


def test_all_errors_are_reported_together_and_in_order(tmp_path):
    text = """\
nam: x
stages:
  - type: apt
    packages: [A, ok-name, B C]
    update: no
  - type: lcoale
  - type: users
    users:
      - {name: 5, shell: bash}
      - uid: x
  - type: qemu
    size: 1M
    size: 2M
"""
    found = [(p.line, p.code) for p in problems(tmp_path, text)]
    assert found == [
        (1, "missing-key"),
        (1, "unknown-key"),
        (4, "bad-value"),
        (4, "bad-value"),
        (5, "bad-type"),
        (6, "unknown-stage"),
        (9, "bad-value"),
        (9, "bad-value"),
        (10, "missing-key"),
        (10, "bad-type"),
        (13, "repeated-key"),
    ]


@pytest.mark.parametrize("text", ['"\\ud800"', '"\\x1b[31mred"', '"a\\nb"', '"\\u202eevil"'])
def test_no_error_message_plays_tricks_with_the_terminal(tmp_path, text):
    line = " ".join(map(str, problems(tmp_path, f"name: {text}\nstages: [{{type: qemu}}]\n")))
    assert line.encode("utf-8").isascii() or line.isprintable()
    assert not set(line) & set("\x1b\n\u202e")


def test_what_is_of_the_wrong_kind_is_not_shown_where_it_may_hold_a_password(tmp_path):
    text = with_stages("  - type: users\n    users: {name: a, password: hunter2}\n")
    (problem,) = problems(tmp_path, text)
    assert problem.message == "users: expected a list, found a mapping"
