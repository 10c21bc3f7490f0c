import os
import subprocess

import pytest
from particle_agent.stages.contents.cleanup import DPKG_CONFIG, Cleanup

DOC = "/usr/share/doc/curl/README.gz"
COPYRIGHT = "/usr/share/doc/curl/copyright"
INFO = "/usr/share/info/sed.info.gz"
PAGE = "/usr/share/man/man1/ls.1.gz"
GERMAN_PAGE = "/usr/share/man/de/man1/ls.1.gz"
FRENCH_PAGE = "/usr/share/man/fr/man1/ls.1.gz"
PROGRAM = "/usr/bin/curl"


def catalog(name):
    return f"/usr/share/locale/{name}/LC_MESSAGES/apt.mo"


LOCALES = [catalog(n) for n in ("de", "de_AT", "de@euro", "den", "fr", "pt", "pt_BR", "pt_PT")]
ALIAS = "/usr/share/locale/locale.alias"
EVERYTHING = [DOC, COPYRIGHT, INFO, PAGE, GERMAN_PAGE, FRENCH_PAGE, PROGRAM, ALIAS, *LOCALES]


@pytest.fixture
def debian(target):
    for path in EVERYTHING:
        target.write(path, "x")
    return target


def gone(target):
    return {path for path in EVERYTHING if not target.exists(path)}


def test_by_default_documentation_goes_and_translations_stay(debian):
    Cleanup().run(debian)
    assert gone(debian) == {DOC, INFO, PAGE, GERMAN_PAGE, FRENCH_PAGE}
    assert debian.report.lines


@pytest.mark.parametrize(
    ("languages", "kept"),
    [
        ((), set()),
        (("de",), {"de", "de_AT", "de@euro"}),
        (("pt_BR",), {"pt", "pt_BR"}),
        (("de", "pt_BR"), {"de", "de_AT", "de@euro", "pt", "pt_BR"}),
    ],
)
def test_translations_of_other_languages_go(debian, languages, kept):
    Cleanup(keep_languages=languages, documentation=False, manual_pages=False).run(debian)
    pages = {FRENCH_PAGE} if "de" in languages else {FRENCH_PAGE, GERMAN_PAGE}
    assert gone(debian) == set(LOCALES) - {catalog(name) for name in kept} | pages


def test_nothing_goes_that_was_not_asked_for(debian):
    Cleanup(documentation=False, manual_pages=False, caches=False).run(debian)
    assert gone(debian) == set()


def test_the_directories_that_alternatives_need_stay(debian):
    Cleanup(keep_languages=()).run(debian)
    assert debian.list("/usr/share/man") == ["man1"]
    assert debian.list("/usr/share/doc") == ["curl"]
    assert debian.list("/usr/share/locale") == ["locale.alias"]


def test_a_link_to_the_documentation_of_another_package_stays(debian):
    debian.symlink("/usr/share/doc/libcurl4", "curl")
    debian.symlink("/usr/share/doc/curl/old", "README.gz")
    Cleanup().run(debian)
    assert debian.exists("/usr/share/doc/libcurl4/copyright")
    assert not debian.is_link("/usr/share/doc/curl/old")


def test_a_link_never_leads_out_of_the_image(debian, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("x")
    debian.remove("/usr/share/man")
    (debian.root / "usr/share/man").symlink_to(outside)
    (debian.root / "usr/share/doc/curl/out").symlink_to(outside)
    Cleanup().run(debian)
    assert (outside / "file").exists()


def test_the_report_counts_documentation_and_caches(debian):
    for path in (PAGE, "/var/cache/man/index.db", "/var/cache/apt/pkgcache.bin"):
        debian.path(path).parent.mkdir(parents=True, exist_ok=True)
        debian.path(path).write_bytes(b"x" * (3 << 20))
    Cleanup().run(debian)
    assert debian.report.lines == ["removed 9 MiB"]


def test_a_cache_that_is_a_link_is_neither_counted_nor_emptied(debian):
    debian.write("/srv/data/file", "x" * (3 << 20))
    debian.remove("/var/cache/man")
    debian.symlink("/var/cache/man", "/srv/data")
    Cleanup(documentation=False, manual_pages=False).run(debian)
    assert debian.report.lines == ["removed 0 MiB"]
    assert debian.exists("/srv/data/file")


def test_caches_go_and_their_directories_stay(debian):
    debian.write("/var/cache/man/de/index.db", "x")
    debian.write("/var/cache/apt/pkgcache.bin", "x")
    debian.write("/var/cache/debconf/config.dat", "x")
    Cleanup(documentation=False, manual_pages=False).run(debian)
    assert debian.list("/var/cache") == ["apt", "debconf", "man"]
    assert debian.list("/var/cache/man") == debian.list("/var/cache/apt") == []
    assert debian.list("/var/cache/debconf") == ["config.dat"]


def test_dpkg_leaves_out_later_what_goes_now(debian, tmp_path):
    """A real dpkg with the written configuration installs a package that has these files."""
    Cleanup(keep_languages=("de",), later=True).run(debian)
    tree = tmp_path / "package"
    for path in EVERYTHING:
        file = tree / path.strip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")
    (tree / "DEBIAN").mkdir(mode=0o755)
    (tree / "DEBIAN/control").write_text(
        "Package: curl\nVersion: 1\nArchitecture: all\nMaintainer: a <a@example.org>\n"
        "Description: x\n"
    )
    root = tmp_path / "root"
    for name in ("info", "updates"):
        (root / "var/lib/dpkg" / name).mkdir(parents=True)
    (root / "var/lib/dpkg/status").touch()
    deb = tmp_path / "curl.deb"
    subprocess.run(["dpkg-deb", "--build", "-Znone", tree, deb], check=True, capture_output=True)
    options = [f"--{line}" for line in debian.read(DPKG_CONFIG).splitlines()]
    subprocess.run(
        ["dpkg", f"--root={root}", "--force-not-root", "--force-bad-path", "--log=/dev/null",
         *options, "--install", deb],
        check=True, capture_output=True, env={**os.environ, "PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert {path for path in EVERYTHING if not (root / path.strip("/")).exists()} == gone(debian)


def test_without_later_dpkg_is_left_alone(debian):
    Cleanup().run(debian)
    assert not debian.exists(DPKG_CONFIG)
