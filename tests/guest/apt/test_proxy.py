import http.server
import socket
import threading
from types import SimpleNamespace

import pytest
from particle_agent.apt import proxy as apt_proxy
from particle_agent.contract.wire import AptProxy
from particle_agent.errors import CommandFailed, StageError
from particle_agent.stages.software.apt import Apt

from ...acng import free_port

SOURCES = "deb https://m.example/debian s main\ndeb http://m.example:8080/x ./\n"
GENERIC = AptProxy(url="http://proxy.example:3128", https="connect", caches=False)


def cacher(port=3142, https="rewrite"):
    return AptProxy(url=f"http://127.0.0.1:{port}", https=https, caches=True)


@pytest.fixture
def listening():
    """A port on which a server answers until the test closes it."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(406)

        def log_message(self, *arguments):
            pass

    def close():
        server.shutdown()
        server.server_close()

    # free_port() lies outside the ephemeral range, so no other process gets the closed port.
    server = http.server.ThreadingHTTPServer(("127.0.0.1", free_port()), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield SimpleNamespace(port=server.server_port, close=close)
    close()


@pytest.fixture
def debian(target, listening):
    target.write("/usr/bin/apt-get", "")
    target.write("/etc/apt/sources.list", SOURCES)
    target.write("/etc/apt/sources.list.d/x.sources", "URIs: https://n.example:444/ https://o.e\n")
    target.apt_proxy = cacher(listening.port)
    return target


def options_of(target):
    """The -o options of each call of apt-get."""
    calls = [c.argv for c in target.commands if c.argv[0] == "apt-get"]
    return [dict(a[2:].split("=", 1) for a in argv if a.startswith("-o")) for argv in calls]


def test_a_usual_proxy_gets_http_and_https():
    found = apt_proxy.settings(GENERIC, SOURCES)
    assert found["Acquire::http::Proxy"] == GENERIC.url
    assert found["Acquire::https::Proxy"] == GENERIC.url
    assert "Acquire::http::Proxy::m.example" not in found


def test_a_cacher_gets_http_on_its_usual_port():
    found = apt_proxy.settings(cacher(), f"{SOURCES}deb http://n.example:80/ ./\n")
    assert found["Acquire::https::Proxy"] == "DIRECT"
    assert found["Acquire::http::Proxy::m.example"] == "DIRECT"
    assert "Acquire::http::Proxy::n.example" not in found


@pytest.mark.parametrize("proxy", [GENERIC, cacher()])
def test_what_each_machine_has_of_its_own_is_not_asked_for_elsewhere(proxy):
    found = apt_proxy.settings(proxy, "")
    for host in ("127.0.0.1", "localhost", "10.0.2.2"):
        assert found[f"Acquire::http::Proxy::{host}"] == "DIRECT"


def test_apt_goes_through_the_proxy_and_nothing_of_it_stays(debian):
    seen = []

    def look(command):
        (settings,) = options_of(debian)[-1:]
        seen.append(debian.read(settings["Dir::Etc::sourcelist"]))
        seen.append(debian.read(f"{settings['Dir::Etc::sourceparts']}/x.sources"))

    debian.when("apt-get", look)
    Apt(packages=("curl",)).run(debian)
    assert seen[0].startswith("deb http://HTTPS///m.example/debian s main\n")
    assert seen[1] == "URIs: https://n.example:444/ http://HTTPS///o.e\n"
    assert seen[2:] == seen[:2]
    assert {s["Acquire::http::Proxy"] for s in options_of(debian)} == {debian.apt_proxy.url}
    assert debian.read("/etc/apt/sources.list") == SOURCES
    assert debian.list("/run") == []
    assert debian.list("/etc/apt") == ["sources.list", "sources.list.d"]


def test_sources_stay_as_they_are_where_pins_go_by_host(debian):
    debian.write("/etc/apt/preferences.d/x", 'Package: *\nPin: origin "m.example"\n')
    Apt(packages=("curl",)).run(debian)
    assert "Dir::Etc::sourcelist" not in options_of(debian)[0]


def test_a_proxy_that_is_not_there_is_left_out(debian, listening):
    listening.close()
    Apt(packages=("curl",)).run(debian)
    assert all("Acquire::http::Proxy" not in settings for settings in options_of(debian))
    assert len(options_of(debian)) == 2
    (note,) = debian.report.notes
    assert "has gone away" in note


def test_a_proxy_that_hangs_is_left_out(debian, monkeypatch):
    monkeypatch.setattr(apt_proxy, "ANSWER_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        debian.apt_proxy = cacher(silent.getsockname()[1])
        Apt(packages=("curl",)).run(debian)
    assert all("Acquire::http::Proxy" not in settings for settings in options_of(debian))
    assert len(debian.report.notes) == 1


def test_a_proxy_that_goes_away_is_done_without(debian, listening):
    def fail(command):
        if any("::Proxy=" in argument for argument in command.argv) and "install" in command.argv:
            listening.close()
            raise CommandFailed(command.argv, 100, ["E: Failed to fetch"])

    debian.when("apt-get", fail)
    Apt(packages=("curl",)).run(debian)
    through = ["Acquire::http::Proxy" in settings for settings in options_of(debian)]
    assert through == [True, True, False, False], "apt-get update runs again, too"
    assert len(debian.report.notes) == 1


def test_a_failure_that_is_not_the_proxys_is_options_of(debian):
    def fail(command):
        raise CommandFailed(command.argv, 100, ["E: Unable to locate package nonsense"])

    debian.when("apt-get", fail)
    with pytest.raises(StageError, match="Unable to locate package") as raised:
        Apt(packages=("nonsense",)).run(debian)
    assert debian.report.notes == []
    assert len(options_of(debian)) == 1
    assert "--apt-proxy" not in (raised.value.hint or "")


@pytest.mark.parametrize(
    "said", ["E: Failed to fetch http://m.example/x.deb  503  Refused", "Err: Connection timed out"]
)
def test_what_cannot_be_fetched_through_the_proxy_names_the_way_without_it(debian, said):
    def fail(command):
        raise CommandFailed(command.argv, 100, [said])

    debian.when("apt-get", fail)
    with pytest.raises((StageError, CommandFailed)) as raised:
        Apt(packages=("curl",)).run(debian)
    assert "--apt-proxy none" in raised.value.hint
