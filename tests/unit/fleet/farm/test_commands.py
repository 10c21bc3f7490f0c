"""The commands of a farm, from the keys to a published image; a script plays the build itself."""

import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from types import ModuleType

import pytest
from particle_os.fleet.farm import key_making

from ...cli import command_line
from .test_returned import NAME, built, pair

RECIPE = f"""\
name: {NAME}
base-image: mmdebstrap:trixie
stages:
  - {{type: apt, packages: [linux-image-cloud-amd64, systemd-sysv]}}
  - {{type: files, files: [{{path: /etc/motd, source: motd}}]}}
  - {{type: qemu}}
"""
# Python runs this module when it starts: it plays the command `build` of the keepers.
PLAYED = """\
import json, os, shutil, sys
words = sys.orig_argv
if {"particle_os", "build", "-P"} <= {*words} and "SERVES" in os.environ:
    named = [w for w in words if w.startswith("--output=")]
    output = named[0].partition("=")[2] if named else words[words.index("--output") + 1]
    recipe = words[words.index("build") + 1]
    with open(os.environ["SERVES"] + ".log", "a") as log:
        log.write(json.dumps([open(os.path.join(os.path.dirname(recipe), "motd")).read(), words]))
    print(json.dumps({"event": "phase-started", "phase": "stages"}), file=sys.stderr, flush=True)
    shutil.copytree(os.environ["SERVES"], output, dirs_exist_ok=True)
    code = int(os.environ.get("CODE", "0"))
    if code:
        log = os.path.join(output, "x.log")
        error = {"error": "a stage failed", "hint": "mend it", "tail": ["t"], "log": log}
        print(json.dumps(error), file=sys.stderr, flush=True)
    else:
        sys.stdout.write(open(os.path.join(output, "server.result.json")).read())
    sys.stdout.flush()
    os._exit(code)
"""


@pytest.fixture
def world(tmp_path, monkeypatch):
    class World:
        keys = tmp_path / "keys"
        secret, public = pair(tmp_path, "results")
        shared = f"file://{tmp_path}/shared"
        recipe = tmp_path / "recipe/server.yml"
        there, here = tmp_path / "there", tmp_path / "out"

        def command(self, *words):
            return [sys.executable, "-m", "particle_os", *map(str, words)]

        def run(self, *words):
            return subprocess.run(self.command(*words), capture_output=True, text=True, check=False)

        def build(self, url, *more):
            keys = ("--farm-keys", self.keys, "--cache-from", self.shared)
            keys += ("--cache-keys", self.public, "--output", self.here)
            return self.run("build", self.recipe, "--on", url, *keys, *more)

        def played(self):
            """The environment in which a script plays the builds."""
            site = tmp_path / "site"
            site.mkdir()
            (site / "sitecustomize.py").write_text(PLAYED)
            return {"PYTHONPATH": str(site), "SERVES": str(self.there)}

        @contextmanager
        def running(self, *words, **environment):
            process = subprocess.Popen(
                self.command(*words), stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
                stderr=(tmp_path / "stderr.log").open("a"), env={**os.environ, **environment},
            )  # fmt: skip
            try:
                yield process
            finally:
                process.send_signal(signal.SIGTERM)
                process.communicate()
                assert process.returncode == 143

        @contextmanager
        def farm(self, **environment):
            """A scheduler and a worker; yields the URL."""
            shared = ("--cache-to", self.shared, "--cache-sign", self.secret)
            listen = ("--listen", "tls://127.0.0.1:0", "--farm-keys", self.keys)
            played = {**self.played(), **environment}
            with ExitStack() as stack:
                scheduler = stack.enter_context(self.running("farm", "scheduler", *listen))
                url = scheduler.stdout.readline().split()[0]
                own = ("farm", "worker", url, "--slots", "1", "--farm-keys", self.keys)
                stack.enter_context(self.running(*own, *shared, **played))
                yield url

    found = World()
    found.recipe.parent.mkdir()
    found.recipe.write_text(RECIPE)
    (found.recipe.parent / "motd").write_text("hello from here")
    done = found.run("farm", "keys", found.keys)
    assert done.returncode == 0 and "key.pem" in done.stdout
    return found


@pytest.mark.slow
def test_a_recipe_travels_and_its_image_comes_back(world):
    built(world.there)
    with world.farm() as url:
        done = world.build(url, "--set", "x=1")
        assert done.returncode == 2, "the client knows an invalid recipe"
        done = world.build(url, "--json", "--progress", "json", "--junit", world.here / "j.xml")
    assert done.returncode == 0, done.stderr
    (image,) = json.loads(done.stdout)["images"]
    assert (image["name"], image["status"]) == (NAME, "passed")
    assert {"image": NAME, "event": "phase-started", "phase": "stages"} in [
        json.loads(line) for line in done.stderr.splitlines()
    ]
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=world.here, check=True)
    names = {path.name for path in world.here.iterdir()}
    assert {f"{NAME}.qcow2", f"{NAME}.log", "particle-os.report.html", "j.xml"} <= names
    text, words = json.loads(world.there.with_name("there.log").read_text())
    assert text == "hello from here"
    assert f"--cache-to={world.shared}" in words and "--json" in words


@pytest.mark.slow
def test_the_log_of_a_failure_comes_back(world):
    built(world.there)
    failed = world.there / f"{NAME}.failed"
    failed.mkdir()
    (world.there / f"{NAME}.qcow2").unlink()
    for path in list(world.there.glob(f"{NAME}.*")):
        if path != failed:
            path.rename(failed / path.name)
    with world.farm(CODE="3") as url:
        done = world.build(url)
    assert done.returncode == 3
    assert "a stage failed" in done.stdout and "mend it" in done.stdout
    log = world.here / f"{NAME}.failed/{NAME}.log"
    assert log.read_text() == "the log" and str(log) in done.stdout


@pytest.mark.slow
def test_a_farm_on_this_machine_needs_no_keys_and_no_shared_cache(world, monkeypatch):
    built(world.there)
    for name, value in world.played().items():
        monkeypatch.setenv(name, value)
    on = ("build", world.recipe, "--on", "local:1", "--output", world.here)
    done = world.run(*on, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"][0]["status"] == "passed"
    assert (world.here / f"{NAME}.qcow2").exists()
    monkeypatch.setenv("CODE", "4")
    assert world.run(*on).returncode == 4


def refused(*words):
    """The error of a command that starts nothing; Dask is taken to be installed."""
    done = command_line.run(*words)
    assert done.exit_code == 2, done.output
    return " ".join(done.output.split())


@pytest.fixture
def given(tmp_path, monkeypatch, signals_restored):
    """A recipe and the keys of a farm, for commands in this process."""
    monkeypatch.setitem(sys.modules, "distributed", ModuleType("distributed"))
    (tmp_path / "server.yml").write_text(RECIPE)
    (tmp_path / "motd").write_text("hello")
    return tmp_path / "server.yml", key_making.make(tmp_path / "keys").directory


def test_a_farm_elsewhere_needs_a_shared_cache(given, tmp_path):
    recipe, keys = given
    on = ("build", recipe, "--farm-keys", keys, "--output", tmp_path / "out", "--on")
    text = refused(*on, "tls://127.0.0.1:1")
    assert "needs a shared cache" in text and "--cache-from" in text
    _, public = pair(tmp_path, "results")
    shared = ("--cache-from", "file:///x", "--cache-keys", public)
    text = refused(
        *on, "tls://127.0.0.1:1", *shared, "--cache-to", "file:///x", "--cache-sign", "k"
    )
    assert "Give it to 'particle-os farm worker'" in text
    assert "for loopback only" in refused(*on, "tcp://farm.example.org:1")


def test_a_worker_without_a_shared_cache_does_not_start(given):
    text = refused("farm", "worker", "tls://127.0.0.1:1", "--farm-keys", given[1])
    assert "--cache-to and --cache-sign" in text


def test_a_scheduler_without_keys_does_not_start(given, tmp_path):
    text = refused("farm", "scheduler", "--farm-keys", tmp_path / "none")
    assert "ca.pem" in text and "farm keys" in text
    text = refused("farm", "scheduler", "--listen", "tcp://0.0.0.0:8786")
    assert "for loopback only" in text


def test_a_dashboard_that_others_could_reach_does_not_start(given):
    own = ("farm", "scheduler", "--farm-keys", given[1])
    assert "no TLS and no password" in refused(*own, "--dashboard", "0.0.0.0:8787")


@pytest.mark.parametrize(
    "words", ["build RECIPE --on local:2", "farm scheduler", "farm worker tls://a"]
)
def test_without_the_extra_the_error_says_what_to_install(given, monkeypatch, words):
    monkeypatch.setitem(sys.modules, "distributed", None)
    text = refused(*[given[0] if word == "RECIPE" else word for word in words.split()])
    assert "'distributed', which is not installed" in text
    assert "pip install 'particle-os[farm]'" in text


def test_keys_are_made_once(given, tmp_path):
    made = command_line.run("farm", "keys", tmp_path / "new")
    assert made.exit_code == 0 and str(tmp_path / "new/ca.pem") in made.output
    assert "exists" in refused("farm", "keys", tmp_path / "new")


@pytest.mark.slow
def test_a_client_says_when_no_scheduler_answers(world, monkeypatch):
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT", "2s")
    done = world.build("tls://127.0.0.1:1")
    assert done.returncode == 5
    assert "does not answer" in done.stderr and "farm scheduler" in done.stderr
