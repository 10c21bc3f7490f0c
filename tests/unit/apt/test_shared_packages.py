"""Packages of a cache that machines share: the signed hashes of the archive decide about each."""

import hashlib

import pytest
from particle_os.apt.depot import Depot

from .archives import NOTHING_MORE
from .test_depot import answer, chosen, make_request


class Source:
    """A shared cache of packages, by their SHA-256."""

    def __init__(self, **packages):
        self.packages, self.asked, self.names = packages, [], {}

    def take(self, sha256, place):
        self.asked.append(sha256)
        if sha256 in self.packages:
            place.write_bytes(self.packages[sha256])
        return sha256 in self.packages

    def used(self, sha256, name):
        self.names[sha256] = name


def fetched(archive):
    return [path for path in archive.served if path.endswith(".deb")]


@pytest.fixture
def packages(archive):
    """The packages of the archive, by their SHA-256."""
    contents = [path.read_bytes() for path in archive.directory.glob("*.deb")]
    return {hashlib.sha256(data).hexdigest(): data for data in contents}


@pytest.fixture
def sharing(tmp_path, depot):
    """Makes a depot with a shared cache, and an empty cache of its own."""

    def make(source):
        (tmp_path / "cache").mkdir(exist_ok=True)
        made = Depot(
            cache=tmp_path / "cache", work=tmp_path, disk=depot.disk, log=depot.lines.append,
            note=depot.lines.append, architecture="amd64", shared=source,
            **NOTHING_MORE,
        )  # fmt: skip
        made.lines, made.disk = depot.lines, depot.disk
        return made

    return make


def test_what_the_shared_cache_has_is_not_fetched(sharing, archive, packages):
    source = Source(**packages)
    depot = sharing(source)
    answer(depot, make_request(archive.url, "tool"))
    assert fetched(archive) == []
    assert len(chosen(depot)) == 2
    assert sorted(source.asked) == sorted(source.names) == sorted(packages)
    assert all(name.endswith(".deb") for name in source.names.values())


def test_what_the_shared_cache_lacks_is_fetched(sharing, archive, packages):
    some = dict([*packages.items()][:1])
    source = Source(**some)
    depot = sharing(source)
    answer(depot, make_request(archive.url, "tool"))
    assert len(fetched(archive)) == 2 - len(some)
    assert len(chosen(depot)) == 2
    assert sorted(source.names) == sorted(packages)


@pytest.mark.parametrize("poison", [b"another package", b""], ids=["another", "empty"])
def test_a_poisoned_package_costs_a_note_and_a_download(
    sharing, archive, packages, poison, tmp_path
):
    depot = sharing(Source(**dict.fromkeys(packages, poison)))
    answer(depot, make_request(archive.url, "tool"))
    assert len(fetched(archive)) == 2
    kept = {path.stem: path.read_bytes() for path in (tmp_path / "cache/packages").glob("*.deb")}
    assert kept == packages
    notes = [line for line in depot.lines if "of a shared cache is another one" in line]
    assert len(notes) == 2


def test_a_package_of_the_right_size_and_other_bytes_is_refused(sharing, archive, packages):
    depot = sharing(Source(**{k: v[:-1] + bytes([v[-1] ^ 1]) for k, v in packages.items()}))
    answer(depot, make_request(archive.url, "tool"))
    assert len(fetched(archive)) == 2


def test_own_packages_come_first(sharing, archive, packages):
    answer(sharing(None), make_request(archive.url, "tool"))
    source = Source(**packages)
    answer(sharing(source), make_request(archive.url, "tool", update=False))
    assert source.asked == []
    assert sorted(source.names) == sorted(packages), "they are used, and can be given"
