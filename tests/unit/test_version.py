"""The version comes from one place, and the changelog and the documentation agree with it."""

import re
import tomllib
from pathlib import Path

from click.testing import CliRunner
from particle_os import __version__
from particle_os.cli import cli

TOP = Path(__file__).parents[2]
HEADING = re.compile(r"^## \[(\d+\.\d+\.\d+)\] - (Unreleased|\d{4}-\d\d-\d\d)$", re.MULTILINE)


def project():
    return tomllib.loads((TOP / "pyproject.toml").read_text())


def versions_of_the_changelog():
    return HEADING.findall((TOP / "CHANGELOG.md").read_text())


def test_the_project_takes_its_version_from_the_program():
    assert project()["project"]["dynamic"] == ["version"]
    source = TOP / project()["tool"]["hatch"]["version"]["path"]
    assert source.read_text().count(f'__version__ = "{__version__}"\n') == 1


def test_the_commands_print_it():
    for arguments in (["version"], ["--version"]):
        assert CliRunner().invoke(cli, arguments).stdout == f"{__version__}\n"


def test_the_changelog_begins_with_it():
    assert versions_of_the_changelog()[0][0] == __version__


def test_every_heading_of_the_changelog_is_a_version_and_only_the_first_may_be_unreleased():
    headings = re.findall("^## .*$", (TOP / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert len(headings) == len(versions_of_the_changelog())
    assert "Unreleased" not in [date for _, date in versions_of_the_changelog()[1:]]


# As a tag (`rev: v1.2.3`, `@v1.2.3`), as what pip installs, and in the name of a wheel.
NAMED = re.compile(
    r"(?:rev: v|particle-os(?:/build)?@v|particle-os(?:\[\w+\])?==|particle_os-)(\d+\.\d+\.\d+)"
)


def test_the_documentation_names_it_and_no_other():
    pages = [TOP / "README.md", *(TOP / "docs").glob("*.md"), *(TOP / "templates").iterdir()]
    named = [version for page in pages for version in NAMED.findall(page.read_text())]
    assert len(named) > 5
    assert set(named) == {__version__}


def test_the_debian_package_has_it():
    line = (TOP / "debian/changelog").read_text().partition("\n")[0]
    assert line.startswith(f"particle-os ({__version__})")
