import os

import pytest
from particle_agent.errors import CommandFailed, StageError
from particle_agent.stages.settings.locale import Locale

SUPPORTED = "en_US.UTF-8 UTF-8\nde_DE.UTF-8 UTF-8\nde_DE ISO-8859-1\nde_AT.UTF-8 UTF-8\n"


ARCHIVE = "/usr/lib/locale/locale-archive"


@pytest.fixture
def debian(target):
    target.write("/usr/share/i18n/SUPPORTED", SUPPORTED)
    for name in ("en_US", "de_DE", "de_AT"):
        target.write(f"/usr/share/i18n/locales/{name}", "")
    target.when("localedef", lambda command: make(target, command))
    return target


def make(target, command):
    """Imitates localedef: writes the directory of a locale, or the archive."""
    if "--no-archive" in command.argv:
        target.write(f"{command.argv[-1]}/LC_CTYPE", " ".join(command.argv[:-1]))
        return
    compiled = [argument for argument in command.argv if argument.startswith("/run/")]
    target.write(ARCHIVE, "".join(target.read(f"{name}/LC_CTYPE") + "\n" for name in compiled))


def compiled(debian):
    """The source and the character set of each locale in the archive."""
    words = [line.split() for line in debian.read(ARCHIVE).splitlines()]
    return [(line[line.index("-i") + 1], line[line.index("-f") + 1]) for line in words]


def test_the_default_and_the_further_ones_are_generated_once(debian):
    debian.write(ARCHIVE, "what was there")
    Locale(default="en_US.UTF-8", generate=("de_DE", "en_US.UTF-8")).run(debian)
    assert debian.read("/etc/locale.gen") == "en_US.UTF-8 UTF-8\nde_DE ISO-8859-1\n"
    assert compiled(debian) == [("en_US", "UTF-8"), ("de_DE", "ISO-8859-1")]
    assert all(command.inside for command in debian.commands)
    assert debian.read("/etc/locale.conf") == "LANG=en_US.UTF-8\n"
    assert debian.list("/run") == []


def test_what_was_compiled_ahead_is_not_compiled_again(debian):
    stage = Locale(default="en_US.UTF-8", generate=("de_DE",))
    stage.ahead(debian)
    assert not debian.exists(ARCHIVE)
    assert not debian.exists("/etc/locale.gen")
    debian.commands.clear()
    stage.run(debian)
    assert debian.only("localedef").argv[1] == "--add-to-archive"
    assert compiled(debian) == [("en_US", "UTF-8"), ("de_DE", "ISO-8859-1")]


def test_what_was_begun_ahead_and_failed_is_compiled_again(debian):
    def fail(command):
        make(debian, command)
        raise CommandFailed(command.argv, 4, [])

    stage = Locale(default="en_US.UTF-8")
    debian.when("localedef", fail)
    with pytest.raises(CommandFailed):
        stage.ahead(debian)
    with pytest.raises(CommandFailed):
        stage.run(debian)
    debian.when("localedef", lambda command: make(debian, command))
    stage.run(debian)
    assert compiled(debian) == [("en_US", "UTF-8")]


def test_warnings_of_a_locale_are_no_failure(debian):
    def warn(command):
        make(debian, command)
        if "--no-archive" in command.argv:
            raise CommandFailed(command.argv, 1, [])

    debian.when("localedef", warn)
    Locale(default="en_US.UTF-8").run(debian)
    assert compiled(debian) == [("en_US", "UTF-8")]


def test_a_locale_of_ones_own_comes_first(debian):
    debian.write("/usr/local/share/i18n/locales/en_US", "")
    Locale(default="en_US.UTF-8").run(debian)
    assert compiled(debian) == [("/usr/local/share/i18n/locales/en_US", "UTF-8")]


def test_a_variant_is_a_source_of_its_own(debian):
    debian.write("/usr/share/i18n/SUPPORTED", "ca_ES.UTF-8@valencia UTF-8\nbe_BY@latin UTF-8\n")
    for name in ("ca_ES@valencia", "be_BY@latin", "ca_ES", "be_BY"):
        debian.write(f"/usr/share/i18n/locales/{name}", "")
    Locale(default="ca_ES.UTF-8@valencia", generate=("be_BY@latin",)).run(debian)
    assert compiled(debian) == [("ca_ES@valencia", "UTF-8"), ("be_BY@latin", "UTF-8")]


def test_old_programs_find_the_same_setting(debian):
    debian.write("/etc/default/locale", "LANG=C\n")
    Locale(default="en_US.UTF-8").run(debian)
    assert debian.read("/etc/default/locale") == "LANG=en_US.UTF-8\n"
    assert os.readlink(debian.root / "etc/default/locale") == "../locale.conf"


@pytest.mark.parametrize("name", ["C", "C.UTF-8"])
def test_built_in_locales_need_no_package(target, name):
    Locale(default=name).run(target)
    assert target.commands == []
    assert target.read("/etc/locale.conf") == f"LANG={name}\n"


def test_a_missing_package_is_named(target):
    with pytest.raises(StageError, match="'locales' is not installed") as raised:
        Locale(default="en_US.UTF-8").run(target)
    assert "'locales'" in raised.value.hint
    assert not target.exists("/etc/locale.gen")


def test_an_unknown_locale_is_reported_with_its_neighbours(debian):
    with pytest.raises(StageError, match=r"there is no locale de_CH\.UTF-8") as raised:
        Locale(default="de_CH.UTF-8").run(debian)
    assert "de_AT.UTF-8" in raised.value.hint
    assert debian.commands == []


@pytest.mark.parametrize(
    ("options", "is_written"),
    [
        ({"default": "C.UTF-8", "generate": ("C.UTF-8", "C")}, False),
        ({"default": "C.UTF-8"}, False),
        ({"default": "C.UTF-8", "generate": ("de_DE.UTF-8",)}, True),
        ({"default": "de_DE.UTF-8"}, True),
    ],
)
def test_the_list_of_locales_is_written_only_for_locales_that_are_generated(options, is_written):
    paths = [path for path, _ in Locale(**options).rewrites()]
    assert ("/etc/locale.gen" in paths) == is_written
