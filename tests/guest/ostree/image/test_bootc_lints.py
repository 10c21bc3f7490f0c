"""The lints that are bootc's, before the commit, and its files with words for the kernel."""

import tomllib

import pytest
from particle_agent.errors import StageError
from particle_agent.ostree.container import settings
from particle_agent.ostree.image import kargs, lints
from particle_agent.ostree.image.choices import Choices, RootSettings

KERNEL = "6.12"


@pytest.fixture
def findings(target):
    """A function that checks the image; returns the codes of the notes and of the errors."""

    def findings(*, container):
        target.report.notes.clear()
        errors = []
        choices = Choices(3, RootSettings(), "factory", "sysusers", "none", container=container)
        try:
            lints.check(target, choices, KERNEL, ())
        except StageError as error:
            errors = [line.split(":")[0] for line in error.tail] or [error.message.split(":")[0]]
        return [note.split(":")[0] for note in target.report.notes], errors

    target.make_directory("/boot")
    target.make_directory("/var/log")
    target.write(lints.BOOTC, "program")
    return findings


@pytest.mark.parametrize(
    ("path", "text", "fatal"),
    [
        ("/usr/share/.wh.file", "", True),
        ("/etc/.wh..wh..opq", "", True),
        ("/usr/lib/bootc/kargs.d/a.toml", "kargs = 'quiet'", True),
        ("/etc/hostname", "", False),
        ("/etc/resolv.conf", "", False),
        ("/var/log/app/first.log", "text", False),
        ("/var/run/app", "", True),
    ],
)
def test_each_fault_has_its_code(target, findings, path, text, fatal):
    assert findings(container=True) == ([], [])
    target.write(path, text)
    codes = {
        ".wh": "name-whiteout", "kargs": "kargs-unreadable", "/etc/hostname": "file-injected",
        "/etc/resolv": "file-injected", "/var/log": "var-log", "/var/run": "var-run",
    }  # fmt: skip
    code = next(code for part, code in codes.items() if part in path)
    assert findings(container=True) == (([], [code]) if fatal else ([code], []))
    alone = [] if code in lints.OF_CONTAINERS else [code]
    assert findings(container=False) == (([], alone) if fatal else (alone, []))


def test_an_image_without_bootc_says_so(target, findings):
    target.remove(lints.BOOTC)
    assert findings(container=True) == (["bootc-missing"], [])
    assert findings(container=False) == ([], [])


def test_what_debian_has_is_no_finding(target, findings):
    target.symlink("/var/run", "/run")
    target.symlink("/etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf")
    target.write("/etc/hostname", "edge\n")
    for path in ("apt/history.log", "dpkg.log", "alternatives.log", "bootstrap.log"):
        target.write(f"/var/log/{path}", "the stage removes it")
    target.write("/var/log/wtmp", "")
    target.write("/usr/lib/bootc/kargs.d/README", "not read")
    assert findings(container=True) == ([], [])


def test_a_link_in_the_image_leads_to_no_file_of_the_vm(target, findings, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "log").mkdir()
    (tmp_path / "log/a").write_text("text")
    (tmp_path / "hostname").touch()
    target.remove("/var")
    target.symlink("/var", str(tmp_path))
    target.symlink("/etc", str(tmp_path))
    assert findings(container=True) == ([], [])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("kargs = ['a=b', 'c']\nmatch-architectures = ['x86_64']\n", None),
        ("kargs = []", None),
        ("", "the key 'kargs' is missing"),
        ("kargs = 'quiet'", "kargs is no list of strings"),
        ("kargs = [1]", "kargs is no list of strings"),
        ("kargs = []\nmatch-architectures = 'x86_64'", "match-architectures is no list"),
        ("kargs = []\nmatch_architectures = []", "the key 'match_architectures' is unknown"),
        ("kargs = [", "it is not TOML"),
        ("a = " + "[" * 20_000, "it is not TOML"),
        ("#" * 70_000, "it is larger than 64 KiB"),
        ("kargs = ['\udcff']", "it is not TOML"),
    ],
)
def test_the_words_are_read_as_bootc_reads_them(text, why):
    found = kargs.fault(text.encode("utf-8", "surrogateescape"))
    assert found is None if why is None else why in found


def test_our_own_files_are_what_bootc_reads(target):
    target.write(
        "/etc/kernel/cmdline", 'root=/dev/sda1 ro quiet console=tty0 a="b\\c" ä=\x7f \U0001f600\n'
    )
    settings.write(target, "debian")
    found = target.read_bytes(settings.KARGS)
    assert kargs.fault(found) is None
    words = tomllib.loads(found.decode())["kargs"]
    consoles = ["console=tty0", "console=ttyS0,115200"]
    assert words == [*consoles, "quiet", 'a="b\\c"', "ä=\x7f", "\U0001f600"]
    install = tomllib.loads(target.read(settings.INSTALL))["install"]
    assert install == {"stateroot": "debian", "filesystem": {"root": {"type": "ext4"}}}
