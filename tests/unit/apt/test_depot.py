"""Runs the host's apt against a small archive on loopback; the tests install nothing."""

import functools
import hashlib
import http.server
import os
import subprocess
import threading
from urllib.parse import urlsplit

import pytest
from particle_agent.contract import wire
from particle_agent.stages.software.apt import Apt
from particle_os.apt import transfer
from particle_os.apt.depot import Depot
from particle_os.apt.package_disk import write_disk
from particle_os.apt.proxy import ChosenProxy
from particle_os.errors import InfrastructureError, StageFailed

from ...waiting import plenty
from .archives import NOTHING_MORE, answer, ask, build, chosen, content, make_request, names

pytestmark = pytest.mark.slow


def test_packages_and_what_they_need_come_decompressed(depot, archive):
    size = depot.disk.stat().st_size
    assert answer(depot, make_request(archive.url, "tool")).refused is None
    assert depot.disk.stat().st_size == size
    found = content(depot.disk)
    assert sorted(name for name in found if not name.startswith("loose/")) == [
        "Packages",
        "archives/library_1.0_all.deb",
        "archives/tool_2%3a1.0_all.deb",
    ]
    deb = found["archives/library_1.0_all.deb"]
    assert b"data.tar " in deb
    assert b"library 1.0\n" * 1000 in deb
    index = found["Packages"].decode()
    assert f"Filename: ./archives/library_1.0_all.deb\nSize: {len(deb)}\n" in index


def test_dpkg_reads_the_decompressed_package(depot, archive, tmp_path):
    answer(depot, make_request(archive.url, "library"))
    deb = tmp_path / "x.deb"
    deb.write_bytes(content(depot.disk)["archives/library_1.0_all.deb"])
    listed = subprocess.run(["dpkg-deb", "-c", deb], check=True, capture_output=True, text=True)
    assert "./usr/library" in listed.stdout
    field = subprocess.run(["dpkg-deb", "-f", deb, "Version"], check=True, capture_output=True)
    assert field.stdout == b"1.0\n"


def test_for_a_stage_without_a_network_nothing_is_fetched(depot, archive):
    _, request = make_request(archive.url)
    stage = Apt(packages=("tool",), network="none")
    assert answer(depot, (stage, request)).refused == "the stage has 'network: none'"
    assert archive.served == []


def test_for_a_stage_with_hosts_the_host_fetches_nothing(depot, archive):
    _, request = make_request(archive.url)
    stage = Apt(packages=("tool",), network=("deb.example.org",))
    assert "lists the hosts" in answer(depot, (stage, request)).refused
    assert archive.served == []


def test_for_a_stage_with_only_packages_the_host_fetches_them(depot, archive):
    _, request = make_request(archive.url)
    stage = Apt(packages=("tool",), network="packages")
    assert answer(depot, (stage, request)).refused is None
    assert any(path.endswith(".deb") for path in archive.served)


def test_what_is_installed_is_not_fetched(depot, archive):
    installed = "Package: library\nStatus: install ok installed\nArchitecture: all\nVersion: 1.0\n"
    answer(depot, make_request(archive.url, "tool", installed=installed))
    assert not [name for name in content(depot.disk) if "library" in name]


def test_apt_says_how_much_it_fetches(depot, archive):
    answer(depot, make_request(archive.url, "tool"))
    *_, size = filter(None, map(transfer.needed, depot.lines))
    packages = [transfer.begun(line) for line in depot.lines if ".deb" in line or " tool " in line]
    assert 0 < sum(filter(None, packages)) <= size


def test_a_package_is_fetched_once(depot, archive, tmp_path):
    answer(depot, make_request(archive.url, "tool"))
    archive.served.clear()
    other = Depot(
        architecture="amd64",
        cache=tmp_path / "cache",
        work=tmp_path / "other",
        disk=depot.disk,
        log=print,
        note=print,
        **NOTHING_MORE,
    )
    (tmp_path / "other").mkdir()
    answer(other, make_request(archive.url, "tool", update=False))
    assert archive.served == []
    assert len(chosen(depot)) == 2


def test_a_damaged_package_of_the_cache_is_fetched_again(depot, archive, tmp_path):
    answer(depot, make_request(archive.url, "library"))
    (kept,) = (tmp_path / "cache/packages").iterdir()
    good = kept.read_bytes()
    kept.unlink()
    kept.write_bytes(good[:-1] + b"x")
    answer(depot, make_request(archive.url, "library"))
    assert kept.read_bytes() == good
    assert any("was damaged in the cache; it is fetched again" in line for line in depot.lines)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_in_the_cache_is_replaced(depot, archive, tmp_path, make):
    answer(depot, make_request(archive.url, "library"))
    (kept,) = (tmp_path / "cache/packages").iterdir()
    good = kept.read_bytes()
    kept.unlink()
    make(kept)
    answer(depot, make_request(archive.url, "library"))
    assert kept.read_bytes() == good


def test_a_package_that_does_not_exist_is_reported_in_apts_words(depot, archive):
    with pytest.raises(StageFailed, match="Unable to locate package nonesuch"):
        answer(depot, make_request(archive.url, "nonesuch"))
    assert any("Unable to locate package nonesuch" in line for line in depot.lines)


def test_a_package_with_the_wrong_hash_is_not_taken(depot, archive):
    (archive.directory / "library_1.0_all.deb").write_bytes(b"not what the index says")
    with pytest.raises((StageFailed, InfrastructureError)):
        answer(depot, make_request(archive.url, "library"))
    assert list(depot._packages.iterdir()) == []


def test_an_unreachable_mirror_is_named(depot, archive):
    with pytest.raises(InfrastructureError, match=r"127\.0\.0\.1 cannot be reached"):
        answer(depot, make_request("http://127.0.0.1:9", "tool"))


def test_a_source_that_is_not_understood_is_refused(depot, archive):
    refused = answer(depot, make_request("file:/etc", "tool")).refused
    assert refused is not None
    assert "uris" in refused


def test_an_option_is_no_package(depot, archive):
    with pytest.raises((StageFailed, InfrastructureError)):
        answer(depot, make_request(archive.url, "--version"))


def test_nothing_is_left_in_the_work_directory(depot, archive, tmp_path):
    answer(depot, make_request(archive.url, "tool"))
    assert list(tmp_path.glob("packages-*")) == []


def test_a_file_that_is_no_package_is_reported(tmp_path, depot):
    broken = tmp_path / "broken_1_all.deb"
    broken.write_bytes(b"no archive")
    (tmp_path / "w").mkdir()
    with pytest.raises(InfrastructureError, match="broken_1_all"):
        write_disk([broken], depot.disk, tmp_path / "w", plenty())


def test_packages_that_were_not_used_for_long_are_removed(depot, archive, tmp_path):
    answer(depot, make_request(archive.url, "library"))
    (kept,) = (tmp_path / "cache/packages").iterdir()
    old = kept.with_name(f"{'0' * 64}.deb")
    old.write_text("of another time")
    os.utime(old, (0, 0))
    answer(depot, make_request(archive.url, "library"))
    assert list((tmp_path / "cache/packages").iterdir()) == [kept]


def local_deb(tmp_path, depot, **control):
    deb = build(tmp_path, "local", "1:3.0", **control)
    reference = f"sha256:{hashlib.sha256(deb.read_bytes()).hexdigest()}"
    depot._attachments = {reference: deb}
    return deb, reference


def test_a_package_file_of_the_recipe_brings_what_it_needs(depot, signed, tmp_path):
    _, reference = local_deb(tmp_path, depot, depends="zz-library")
    answer(depot, ask(signed, Apt(debs=(reference,))))
    assert chosen(depot) == names("local_1%3a3.0", "zz-library_1.0")
    assert "Package: local\nVersion: 1:3.0\n" in content(depot.disk)["Packages"].decode()


def test_a_package_file_that_has_changed_is_reported(depot, signed, tmp_path):
    deb, reference = local_deb(tmp_path, depot)
    deb.write_bytes(b"another one")
    with pytest.raises(InfrastructureError, match="has changed"):
        answer(depot, ask(signed, Apt(debs=(reference,))))


def test_packages_come_through_the_proxy_and_without_it_when_it_goes_away(tmp_path, depot, archive):
    """The archive uses another loopback address, to stand for an archive in the network."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.path = urlsplit(self.path).path
            super().do_GET()

        def log_message(self, *arguments):
            pass

    url = archive.elsewhere
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=archive.directory)
    ) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        found = ChosenProxy(
            wire.AptProxy(
                url=f"http://127.0.0.1:{server.server_port}", https="connect", caches=False
            ),
            note=depot.lines.append,
        )
        depot._proxy = found
        answer(depot, make_request(url, "library"))
        assert [path for path in asked if path.endswith("library_1.0_all.deb")]
        server.shutdown()
    asked.clear()
    answer(depot, make_request(url, "tool"))
    assert "archives/tool_2%3a1.0_all.deb" in chosen(depot)
    assert asked == []
    assert [line for line in depot.lines if "has gone away" in line]
