"""The package files of a recipe: the host's apt reads the bytes that the recipe was read with."""

import hashlib
from types import SimpleNamespace

import pytest
from particle_os.apt import depot
from particle_os.apt.depot import Depot
from particle_os.apt.directory import Refused
from particle_os.errors import InfrastructureError

from ...waiting import plenty

CONTENT = b"a package"
REFERENCE = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


@pytest.fixture
def local(tmp_path):
    """A package file of the recipe, and a depot that knows its path."""
    path = tmp_path / "a.deb"
    path.write_bytes(CONTENT)
    return path, SimpleNamespace(_attachments={REFERENCE: path}, _sizes={})


def test_a_package_file_is_copied(local, tmp_path):
    _, own = local
    (copy,) = Depot._take_local(own, [REFERENCE], tmp_path, plenty())
    assert copy.read_bytes() == CONTENT


def test_a_package_file_that_has_changed_is_refused(local, tmp_path):
    path, own = local
    path.write_bytes(b"another")
    with pytest.raises(InfrastructureError, match=r"a\.deb has changed since the recipe was read"):
        Depot._take_local(own, [REFERENCE], tmp_path, plenty())


def test_a_package_file_that_the_recipe_does_not_name_is_refused(local, tmp_path):
    with pytest.raises(Refused, match="does not have the recipe's package files"):
        Depot._take_local(local[1], ["sha256:0"], tmp_path, plenty())


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("a_1_amd64.deb", "a_1_amd64.deb"),
        ("a_2:1~b+c.d_all.deb", "a_2%3a1~b+c.d_all.deb"),
        ("../a_1_amd64.deb", None),
        ("a_1/b_amd64.deb", None),
        ("a 1_amd64.deb", None),
        ("", None),
    ],
)
def test_a_package_file_gets_the_name_that_its_control_file_gives(
    local, tmp_path, monkeypatch, soon, said, name
):
    monkeypatch.setattr(depot.process, "run", lambda *given, log, **more: log(said))
    archives = tmp_path / "archives"
    archives.mkdir()
    if name is None:
        with pytest.raises(InfrastructureError, match="unusual name"):
            Depot._add_local(local[1], local[0], archives, soon)
    else:
        Depot._add_local(local[1], local[0], archives, soon)
    assert [path.name for path in archives.iterdir()] == ([name] if name else [])
