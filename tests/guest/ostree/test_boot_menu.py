"""GRUB's menu: the entries of OSTree, and the count of the boots of an update."""

import re
import shlex
import shutil
import subprocess

import pytest
from particle_agent.ostree import boot_menu
from particle_agent.ostree.boot_menu import GENERATOR, GENERATOR_TEXT, SESSIONS, menu

ENTRY = """\
title Debian GNU/Linux 13 (trixie) 13.1 (ostree:0)
version 2
options root=UUID=1-2 rw quiet ostree=/ostree/boot.1/debian/abc/0
linux /boot/ostree/debian-abc/vmlinuz-6.12
initrd /boot/ostree/debian-abc/initramfs-6.12.img
aboot /ostree/deploy/debian/deploy/abc.0/usr/lib/ostree-boot/aboot.img
abootcfg /ostree/deploy/debian/deploy/abc.0/usr/lib/ostree-boot/aboot.cfg
"""
# The simple words and the two quotings of GRUB's script, as its manual describes them.
TOKEN = re.compile(r"\s+|'([^']*)'|\\(.)|([A-Za-z0-9_@%+=:,./~^!-]+)|([{}])", re.DOTALL)
NEEDS_CHECK = pytest.mark.skipif(
    shutil.which("grub-script-check") is None, reason="no grub-script-check"
)


@pytest.fixture
def generate(tmp_path):
    """A function that runs the generator, as OSTree does, on entries by name, of Latin-1."""

    def generate(entries):
        loader = tmp_path / "loader.1"
        shutil.rmtree(loader, ignore_errors=True)
        (loader / "entries").mkdir(parents=True)
        for name, text in entries.items():
            (loader / "entries" / name).write_bytes(text.encode("latin-1"))
        return run(loader)

    def run(loader):
        script = tmp_path / "generator"
        script.write_text(GENERATOR_TEXT)
        argv = ["sh", str(script), "-o", str(loader / "grub.cfg")]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr)
        return (loader / "grub.cfg").read_bytes().decode("latin-1")

    generate.run = run
    return generate


def commands(text):
    """The words of each line, as GRUB's script reads them. Fails for anything that is script."""
    found = []
    for line in text.split("\n"):
        words, word, place = [], None, 0
        while place < len(line):
            match = TOKEN.match(line, place)
            assert match, f"{line[place:]!r} would be script"
            place = match.end()
            if match[0].isspace():
                words += [] if word is None else [word]
                word = None
            else:
                word = (word or "") + next(part for part in match.groups() if part is not None)
        found.append(words + ([] if word is None else [word]))
    return [words for words in found if words]


def test_an_entry_becomes_one_of_the_menu(generate):
    assert generate({"ostree-1.conf": ENTRY}) == (
        "menuentry 'Debian GNU/Linux 13 (trixie) 13.1 (ostree:0)' --unrestricted {\n"
        "\tset tried=1\n"
        "\tlinux /boot/ostree/debian-abc/vmlinuz-6.12"
        " root=UUID=1-2 rw quiet ostree=/ostree/boot.1/debian/abc/0\n"
        "\tinitrd /boot/ostree/debian-abc/initramfs-6.12.img\n"
        "}\n"
    )


def test_the_newest_entry_is_the_first(generate):
    entries = {f"ostree-{n}.conf": ENTRY.replace("13.1", f"v{n};") for n in range(1, 13)}
    titles = re.findall(r"v(\d+);", generate(entries))
    assert titles == [str(n) for n in range(12, 0, -1)]


@pytest.mark.parametrize(
    "odd",
    [
        "'", '"', "$x", "${x}", "$(reboot)", "`reboot`", "\\", "\\\\'",
        "; reboot", "}", "{ x", "&",
        "|x", "<a>b", "#c", "x' {\\n}", "*?[a]", "!", "\xe4", "\xc3\xa4", "\x07",
        "%s%n", "-n", "a\\", "\\n",
    ],
)  # fmt: skip
def test_no_value_breaks_out_of_the_menu(generate, odd):
    text = (
        f"title Debian {odd} end\nlinux /boot/vmlinuz{odd}\n"
        f"initrd /boot/init{odd}\noptions a=1 b={odd} c\n"
    )
    entry, _, linux, initrd, end = commands(generate({"ostree-1.conf": text}))
    title = "".join(c for c in f"Debian {odd} end" if c not in "'\x07")
    assert entry == ["menuentry", title, "--unrestricted", "{"]
    assert " ".join(linux) == f"linux /boot/vmlinuz{odd} a=1 b={odd} c"
    assert " ".join(initrd) == f"initrd /boot/init{odd}"
    assert end == ["}"]


@NEEDS_CHECK
@pytest.mark.parametrize("odd", ["'", "$(x)", "}", ";", "\\", "|", "\xc3\xa4", "<"])
def test_grub_accepts_the_menus(generate, odd):
    for text in (
        generate(
            {f"ostree-{n}.conf": f"title {odd}\nlinux {odd}\noptions {odd}\n" for n in (1, 2)}
        ),
        menu(),
    ):
        done = subprocess.run(["grub-script-check"], input=text.encode("latin-1"))
        assert done.returncode == 0


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (ENTRY.rstrip("\n").replace("aboot", "x"), True),
        ("title\tX\nlinux\t/v\ninitrd   /i  \noptions  a\n", True),
        ("title X\nlinux /v\n", False),
        ("# initrd /no\n\ntitle X\nlinux /v\n", False),
    ],
)
def test_entries_in_other_shapes(generate, text, kept):
    found = generate({"ostree-1.conf": text})
    assert "linux /" in found
    assert ("initrd /" in found) is kept


def test_the_last_line_needs_no_end(generate):
    assert "linux /v a=1\n" in generate({"ostree-1.conf": "linux /v\noptions a=1"})


def test_a_menu_without_entries_is_an_error(generate, tmp_path):
    """OSTree then keeps the menu that it has."""
    with pytest.raises(RuntimeError, match="there are no entries"):
        generate({})
    shutil.rmtree(tmp_path / "loader.1/entries")
    with pytest.raises(RuntimeError, match="entries"):
        generate.run(tmp_path / "loader.1")


def boots(saved, number):
    """The state after each boot that does not report its success: an imitation of GRUB in sh.

    Yields the chosen entry, and the variables of the environment block.
    """
    script = re.sub(r"(?m)^(\t*)set ", r"\1", menu())
    names = ("boot_counter", "boot_success", "boot_fallback")
    lines = [
        "serial() { :; }; terminal_input() { :; }; terminal_output() { :; }; echo() { :; }",
        'save_env() { eval "saved_$1=\\$$1"; }',
        "load_env() {",
        *(f'{name}="$saved_{name}"' for name in names),
        "}",
        'source() { printf "%s %s %s %s\\n" "$default" '
        '"${saved_boot_counter:--}" "${saved_boot_success:--}" "${saved_boot_fallback:--}"; }',
        *(f"saved_{name}={shlex.quote(saved.get(name, ''))}" for name in names),
        *([script] * number),
    ]
    argv = ["bash", "-c", "\n".join(lines)]
    printed = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert printed.stderr == ""
    return [line.split() for line in printed.stdout.splitlines()]


@pytest.mark.parametrize("tries", range(10))
def test_an_update_gets_its_tries_and_then_the_version_before_it_boots(tries):
    """The menu is as old as the disk: a later update may count more boots than it did."""
    found = boots({"boot_counter": str(tries), "boot_success": "0"}, tries + 3)
    updates = [["0", str(n), "0", "-"] for n in range(tries - 1, -1, -1)]
    assert found == [*updates, *[["1", "0", "0", "1"]] * 3]


@pytest.mark.parametrize(
    "saved",
    [{}, {"boot_counter": "3"}, {"boot_success": "1"}, {"boot_success": "1", "boot_counter": "0"}],
)
def test_a_version_that_has_started_stays(saved):
    first, second = boots(saved, 2)
    assert first == second
    assert first[0] == "0"
    assert first[1] == saved.get("boot_counter", "-"), "nothing is written"


@pytest.mark.parametrize("odd", ["10", "-1", "", "x y", "03"])
def test_a_counter_that_is_no_number_gives_one_more_try(odd):
    found = boots({"boot_counter": odd, "boot_success": "0"}, 2)
    assert found == [["0", "0", "0", "-"], ["1", "0", "0", "1"]]


def chosen(generate, loads):
    """The entries of `a` and `b` that GRUB tries, when it can load only some; and what it notes.

    An imitation of GRUB in sh.
    """
    entries = {"ostree-2.conf": "title x\nlinux a\n", "ostree-1.conf": "title x\nlinux b\n"}
    bodies = re.findall(r"menuentry .*?{\n(.*?)}\n", generate(entries), re.DOTALL)
    first, second = (re.sub(r"(?m)(^\t|then )set ", r"\1", body) for body in bodies)
    script = 'linux() { echo "tried $1"; }; save_env() { echo "saved $1=$boot_fallback"; }\n'
    script += first if "a" in loads else f'{first}echo "next $fallback"\n{second}'
    done = subprocess.run(["bash", "-ec", script], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_a_version_whose_kernel_cannot_be_loaded_is_left(generate):
    found = chosen(generate, loads="b")
    assert found == ["tried a", "next 1", "saved boot_fallback=1", "tried b"]


def test_an_entry_that_does_not_exist_is_no_fallback(generate):
    """GRUB does not look whether the entry exists."""
    assert "fallback" not in generate({"ostree-1.conf": ENTRY})


def test_a_version_that_loads_is_not_left(generate):
    assert chosen(generate, loads="ab") == ["tried a"]


def test_the_older_version_chosen_by_hand_is_no_return(generate):
    text = generate({"ostree-2.conf": ENTRY, "ostree-1.conf": ENTRY})
    assert text.count("set tried=1\n") == 1
    assert text.index("set tried=1") < text.index('[ "${tried}" = "1" ]')


def test_the_menu_reads_the_entries_at_its_end():
    assert menu().endswith("\nsource /boot/loader/grub.cfg\n")
    assert menu().count("\nif ") == menu().count("\nfi\n") == 1


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, b""),
        (b"", b""),
        (b"A=1\n", b"A=1\n"),
        (b"A=1", b"A=1\n"),
        (b"A=\xff\n# c\n\nB=2", b"A=\xff\n# c\n\nB=2\n"),
        (b"OSTREE_GRUB2_EXEC=/other\nA=1\n", b"A=1\n"),
    ],
)
def test_the_variables_of_sessions_are_kept(target, before, after):
    if before is not None:
        target.write(SESSIONS, "")
        target.path(SESSIONS).write_bytes(before)
    for _ in range(2):
        boot_menu.install_generator(target)
        line = f"OSTREE_GRUB2_EXEC={GENERATOR}\n".encode()
        assert target.read_bytes(SESSIONS) == after + line


def test_the_variables_behind_a_link_are_those_of_the_image(target, tmp_path):
    (tmp_path / "secret").write_text("OUT=1\n")
    target.symlink(SESSIONS, f"../../../../../..{tmp_path}/secret")
    boot_menu.install_generator(target)
    assert target.read(SESSIONS) == f"OSTREE_GRUB2_EXEC={GENERATOR}\n"
    assert (tmp_path / "secret").read_text() == "OUT=1\n"
    assert target.mode(GENERATOR) == 0o755
