"""Proxies on loopback: a real apt-cacher-ng, a small proxy of another kind, and no proxy."""

import functools
import http.server
import socket
import threading
import urllib.request
from contextlib import ExitStack, contextmanager, suppress

import pytest
from particle_agent.apt import proxy as agent_proxy
from particle_agent.contract import wire
from particle_os.apt import proxy as apt_proxy
from particle_os.apt.proxy import NOWHERE, ChosenProxy, NoProxy, check, counts, find
from particle_os.errors import InfrastructureError, StageFailed, UsageError
from particle_os.records import AptProxyResult

from ... import acng
from ...waiting import HANG_SECONDS, until

NO_OTHERS = 'Dir::Etc::main "/dev/null";\nDir::Etc::parts "/dev/null";\n'


@contextmanager
def served(handler, ports=(0,)):
    """A server on the first of the ports that no other process has taken meanwhile."""
    with ExitStack() as stack:
        server = None
        for port in ports:
            with suppress(OSError):
                made = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
                server = stack.enter_context(made)
                break
        assert server is not None
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def answering(status, text=b""):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *arguments):
            pass

    return served(Handler)


@pytest.fixture
def apt_conf(tmp_path, monkeypatch):
    """The only configuration that apt reads; apt ignores the configuration of this machine."""
    config = tmp_path / "apt.conf"
    config.write_text(NO_OTHERS)
    monkeypatch.setenv("APT_CONFIG", str(config))
    return config


@pytest.fixture
def usual(monkeypatch, apt_conf):
    """Makes apt-cacher-ng's usual address one on which nothing listens."""
    unused = f"http://127.0.0.1:{acng.free_port()}"
    monkeypatch.setattr(apt_proxy, "USUAL", unused)
    return unused


def unwanted(text):
    raise AssertionError(text)


def test_apt_cacher_ng_is_known(tmp_path):
    with acng.running(tmp_path) as url:
        assert check(url) == wire.AptProxy(url=url, https="direct", caches=True)


def test_apt_cacher_ng_takes_https_where_its_port_is_allowed(tmp_path):
    with acng.running(tmp_path, "AllowUserPorts: 80 443") as url:
        assert check(url).https == "rewrite"


def test_another_proxy_is_known_by_its_not_finding_the_host():
    with answering(502) as url:
        assert check(url) == wire.AptProxy(url=url, https="connect", caches=False)


def test_a_request_names_the_host_that_it_is_for():
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, self.headers["Host"]))
            self.send_response(404)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    with served(Handler) as url, pytest.raises(NoProxy):
        check(url)
    assert asked == [("/", url.removeprefix("http://")), (NOWHERE, "particle-os.invalid")]


@pytest.mark.parametrize("status", [200, 301, 404, 405])
def test_a_web_server_is_no_proxy(status):
    with answering(status) as url, pytest.raises(NoProxy, match=f"answers {status}"):
        check(url)


def test_a_proxy_that_wants_a_password_is_reported():
    with answering(407) as url, pytest.raises(NoProxy, match="password"):
        check(url)


def test_what_does_not_speak_http_is_no_proxy(monkeypatch):
    monkeypatch.setattr(apt_proxy, "CHECK_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with pytest.raises(NoProxy, match="does not answer"):
            check(f"http://127.0.0.1:{silent.getsockname()[1]}")


def test_hits_and_misses_are_those_of_the_build(tmp_path):
    (tmp_path / "web/dists/x").mkdir(parents=True)
    for name in ("a", "b"):
        (tmp_path / f"web/{name}_1_all.deb").write_text(name)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / "web")
    with ExitStack() as stack:
        archive = stack.enter_context(served(handler, (acng.free_port() for _ in range(9))))
        url = stack.enter_context(acng.running(tmp_path, f"Remap-x: http://x.test ; {archive}"))

        def fetch(name):
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": url}))
            with opener.open(f"http://x.test/{name}_1_all.deb", timeout=HANG_SECONDS) as answer:
                assert answer.read() == name.encode()

        fetch("a")
        # apt-cacher-ng writes its log a little after the answer.
        until(lambda: counts(check(url)) == (0, 1))
        proxy = ChosenProxy(check(url))
        assert proxy.result() == AptProxyResult(url=url, gone=False, hits=0, misses=0)
        fetch("a")
        fetch("a")
        fetch("b")
        wanted = AptProxyResult(url=url, gone=False, hits=2, misses=1)
        until(lambda: proxy.result() == wanted)


def test_a_proxy_without_a_report_is_not_counted():
    with answering(406, b"Apt-Cacher NG Usage Information") as url:
        assert counts(wire.AptProxy(url=url, https="direct", caches=True)) is None


def test_auto_takes_what_the_environment_names(usual):
    with answering(503) as url:
        for name in ("APT_PROXY", "http_proxy"):
            found = find("auto", {name: f"{url}/"}, unwanted)
            assert found.for_guest().url == url.replace("127.0.0.1", "10.0.2.2")


@pytest.mark.usefixtures("apt_conf")
def test_auto_takes_apt_cacher_ng_where_it_usually_is(tmp_path, monkeypatch):
    with acng.running(tmp_path) as url:
        monkeypatch.setattr(apt_proxy, "USUAL", url)
        assert find("auto", {}, unwanted).for_guest().caches
    with answering(503) as url:
        monkeypatch.setattr(apt_proxy, "USUAL", url)
        assert find("auto", {}, unwanted).for_guest() is None, "it is another server"


def test_auto_takes_the_proxy_of_the_hosts_apt_configuration(usual, apt_conf):
    with answering(502) as url:
        apt_conf.write_text(f'{NO_OTHERS}Acquire::http::Proxy "{url}/";')
        assert find("auto", {}, unwanted).current().url == url
        with answering(502) as other:
            assert find("auto", {"http_proxy": other}, unwanted).current().url == other
        assert find("none", {}, unwanted).current() is None


@pytest.mark.parametrize("text", ['Acquire::http::Proxy "DIRECT";', "what is { this"])
def test_auto_takes_no_proxy_from_an_apt_that_names_none(usual, apt_conf, text):
    apt_conf.write_text(f"{NO_OTHERS}{text}")
    assert find("auto", {}, unwanted).current() is None


def test_auto_says_what_it_does_not_use_and_goes_on(usual):
    notes = []
    assert find("auto", {"http_proxy": usual, "APT_PROXY": "x"}, notes.append).for_guest() is None
    assert [note.split(" is not used")[0] for note in notes] == [
        "the apt proxy of APT_PROXY",
        "the apt proxy of http_proxy",
    ]


def test_a_password_does_not_go_into_the_vm(usual):
    with answering(503) as url:
        named = url.replace("http://", "http://me:secret@")
        assert find("auto", {"http_proxy": named}, unwanted).for_guest() is None


def test_a_proxy_that_is_named_must_answer(usual):
    with pytest.raises(InfrastructureError, match="does not answer"):
        find(usual, {}, unwanted)
    with pytest.raises(UsageError, match="--apt-proxy: expected"):
        find("socks5://x:1", {}, unwanted)


def test_none_does_without_those_of_the_environment(monkeypatch, usual):
    monkeypatch.setenv("http_proxy", "http://p.example:1")
    monkeypatch.setenv("no_proxy", "x")
    assert find("none", {"http_proxy": "http://p.example:1"}, unwanted).environment() == {
        "no_proxy": "x"
    }
    assert find("auto", {}, unwanted).environment()["http_proxy"] == "http://p.example:1"


def test_a_remote_proxy_is_the_same_in_the_vm():
    there = wire.AptProxy(url="http://p.example:3128", https="connect", caches=False)
    assert ChosenProxy(there).for_guest() == there


@pytest.mark.parametrize("kind", [InfrastructureError, StageFailed])
def test_what_fails_with_the_proxy_gone_is_done_without_it(kind, usual):
    notes, tried = [], []
    gone = ChosenProxy(wire.AptProxy(url=usual, https="connect", caches=False), note=notes.append)

    def action(proxy):
        tried.append(proxy)
        if proxy is not None:
            raise kind("it failed")
        return "done"

    assert gone.through(action) == "done"
    assert gone.through(action) == "done"
    assert [proxy is not None for proxy in tried] == [True, False, False]
    assert len(notes) == 1
    assert gone.for_guest() is None
    assert gone.result().gone


def test_a_proxy_that_hangs_is_gone(monkeypatch):
    monkeypatch.setattr(agent_proxy, "ANSWER_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        hanging = ChosenProxy(wire.AptProxy(url=url, https="connect", caches=False))

        def action(proxy):
            if proxy is not None:
                raise InfrastructureError("it failed")
            return "done"

        assert hanging.through(action) == "done"
    assert hanging.result().gone


@pytest.mark.parametrize(
    ("line", "named"), [("E: Failed to fetch http://m.example/x", True), ("E: No space", False)]
)
def test_a_failure_while_the_proxy_answers_is_not_the_proxys(line, named):
    def action(proxy):
        raise StageFailed("it failed", hint="Look.", tail=[line])

    with answering(503) as url:
        there = ChosenProxy(check(url), note=unwanted)
        with pytest.raises(StageFailed) as raised:
            there.through(action)
    assert ("--apt-proxy none" in raised.value.hint) == named
    assert raised.value.hint.startswith("Look.")
