"""The helper VM reaches the network only while a stage runs that may use it.

A server on the host's loopback interface stands for the network: it notes every request.
"""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from .conftest import Account

# Runs commands as root in the VM itself, beside all stages, while the cable is out and in.
PROBE = """
import json, sys
from particle_os.sandbox import helper, running
from particle_os.sandbox.template import load_template
from particle_os.system.deadline import Deadline
from particle_os.system.workspace import cache_directory, workspace
from particle_os.system.gate import Gate
from particle_os.vm import accel
from particle_os.vm.console import ConsoleLog

deadline = Deadline.after(600, "the test")
with workspace() as work:
    made = helper.ensure(
        load_template("debian-trixie"), cache=cache_directory(), work=work,
        log=lambda line: None, note=lambda text: None,
    )
    resources = running.Resources(memory=2 << 30, cpus=2, scratch=1 << 30)
    with running.running_sandbox(
        made, accel.TCG, resources, directory=work.path / "vm", output=work.path / "output",
        transcript=ConsoleLog(work.path / "console", Gate()), deadline=deadline,
        note=lambda text: None,
    ) as vm:
        def run(command):
            with vm.agent._connection.command(command, deadline) as channel:
                channel.settimeout(60)
                return channel.makefile("rb").read().decode().strip()

        def fetch(name, *addresses):
            for address in addresses:
                url = f"http://{address}:{sys.argv[1]}/{name}"
                run(f"busybox timeout 3 busybox wget -q -O - {url}")

        def ask(server):
            return run(f"busybox timeout 10 busybox nslookup localhost {server} 2>&1")

        # 10.0.2.2 and 192.0.2.2 are the host in the networks of the two cards.
        fetch("before-any-stage", "10.0.2.2", "192.0.2.2")
        vm.connect_outside(True, deadline)
        fetch("with-the-cable", "10.0.2.2")
        fetch("through-the-control-card", "192.0.2.2", "192.0.2.3")
        asked = ask("192.0.2.3")
        vm.connect_outside(False, deadline)
        # What root of the VM can do about it.
        run("for state in down up; do busybox ip link set eth1 $state; done")
        run("busybox ip route add default via 192.0.2.2 metric 1")
        fetch("after-the-stage", "10.0.2.2", "192.0.2.2")
        run("busybox ip route del default via 192.0.2.2")
        vm.connect_outside(True, deadline)
        fetch("with-the-cable-again", "10.0.2.2")
        print(json.dumps({"asked": asked}))
"""

# Root in the target tries to get a network with what it has, and by letting the kernel start a
# program in the namespaces of the VM itself. In the VM, where only the cable is missing, the
# program runs: so the test notices when it does.
ESCAPE = """\
rm -f /run/escaped
printf '%s\\n' '#!/bin/busybox sh' \\
  'echo >{run}/escaped; busybox timeout 5 busybox wget -O - http://10.0.2.2:{port}/escaped' \\
  >/run/escape.sh
busybox ip link set eth1 up || true
busybox ip route add default via 10.0.2.2 || true
busybox timeout 5 busybox wget -O - http://10.0.2.2:{port}/directly || true
busybox nsenter -t 1 -n busybox timeout 5 busybox wget -O - http://10.0.2.2:{port}/entered || true
echo '|/bin/busybox sh {run}/escape.sh' >/proc/sys/kernel/core_pattern || true
sh -c 'kill -SEGV $$' || true
sleep 6
test -e /run/escaped && echo "the program has run" || echo "no program has run"
"""
FETCH = "busybox timeout 60 busybox wget -q -O - http://10.0.2.2:{port}/{name} || true"


@dataclass
class Server:
    """A web server on 127.0.0.1; `asked` has the names that it was asked for."""

    port: int
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append(self.path.strip("/"))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        found = Server(listening.server_address[1])
        threading.Thread(target=listening.serve_forever, args=(0.02,), daemon=True).start()
        yield found
        listening.shutdown()


def test_nothing_in_the_vm_gets_out_without_the_cable(account: Account, server: Server) -> None:
    outcome = account.run("-c", PROBE, str(server.port), program="python")
    assert outcome.status == 0, outcome.stderr
    assert server.asked == ["with-the-cable", "with-the-cable-again"]
    assert "Address" not in json.loads(outcome.stdout)["asked"].partition("\n\n")[2]


def stage(script: str, *options: str) -> str:
    first = "".join(f"    {option}\n" for option in options)
    lines = "".join(f"      {line}\n" for line in script.splitlines())
    return f"  - type: run\n{first}    script: |\n{lines}"


def test_a_stage_without_a_network_cannot_get_one(
    account: Account, tiny_base: Path, server: Server
) -> None:
    directory = account.make_directory("network")
    recipe = account.write(
        directory / "network.yml",
        f"name: network\nbase-image: tar:{tiny_base}\nstages:\n"
        + stage(ESCAPE.format(port=server.port, run="/scratch/target/run"), "network: none")
        + stage(ESCAPE.format(port=server.port, run="/run"), "network: none", "in: helper")
        + stage(FETCH.format(port=server.port, name="allowed"), "in: helper")
        + "  - type: qemu\n",
    )
    run = ("build", recipe, "--output", directory, "--no-boot-test", "-v", "--accel", "tcg")
    outcome = account.run(*run, "--no-cache")
    assert outcome.status == 0, outcome.stderr
    assert server.asked == ["allowed"]
    inside, outside = (outcome.stderr.find(f"{what} program has run") for what in ("no", "the"))
    assert 0 <= inside < outside, outcome.stderr
    stages = json.loads((directory / "network.result.json").read_text())["stages"]
    for index in (0, 1, 3):
        assert stages[index]["network"]["reached"] == [], "no frame has left the VM"
    (found,) = [each for each in stages[2]["network"]["reached"] if each["protocol"] == "tcp"]
    assert (found["address"], found["port"]) == ("10.0.2.2", server.port)
    assert found["sent"] > 0
    assert found["received"] > 0


# The variables lead to the proxy. Nothing else leads anywhere: neither another port of the VM, nor
# the address of the host, with or without the proxy.
THROUGH = """\
echo "proxy: $http_proxy $HTTPS_PROXY"
get() {{ busybox timeout 60 busybox wget -q -O - "$1" || true; }}
get http://localhost:{port}/listed
get http://127.0.0.1:{port}/not-listed
get http://localhost:{other}/other-port
unset http_proxy
get http://10.0.2.2:{port}/without-the-proxy
get http://192.0.2.2:{port}/through-the-control-card
busybox nc -w 5 192.0.2.15 22 </dev/null && echo "sshd answers" || true
"""


def test_a_stage_reaches_the_hosts_that_its_recipe_lists(
    account: Account, tiny_base: Path, server: Server
) -> None:
    directory = account.make_directory("hosts")
    script = THROUGH.format(port=server.port, other=server.port ^ 1)
    listed = f"network: ['localhost:{server.port}']"
    recipe = account.write(
        directory / "hosts.yml",
        f"name: hosts\nbase-image: tar:{tiny_base}\nstages:\n"
        + stage(script, listed)
        + stage(FETCH.format(port=server.port, name="after"), "network: none", "in: helper")
        + stage(FETCH.format(port=server.port, name="again"), listed, "in: helper")
        + stage(script.replace("/listed", "/in-the-vm"), listed, "in: helper")
        + "  - type: qemu\n",
    )
    run = ("build", recipe, "--output", directory, "--no-boot-test", "-v", "--accel", "tcg")
    outcome = account.run(*run, "--no-cache")
    assert outcome.status == 0, outcome.stderr
    assert server.asked == ["listed", "in-the-vm"]
    assert "proxy: http://127.0.0.1:3128 http://127.0.0.1:3128" in outcome.stderr
    assert "sshd answers" not in outcome.stderr
    stages = json.loads((directory / "hosts.result.json").read_text())["stages"]
    assert [bool(stage["hosts"]) for stage in stages] == [True, False, True, True, False]
    for index in (0, 3):
        (reached,) = stages[index]["hosts"]["reached"]
        assert (reached["host"], reached["port"]) == ("localhost", server.port)
        assert min(reached["sent"], reached["received"]) > 0
        refused = {(each["host"], each["port"]) for each in stages[index]["hosts"]["refused"]}
        assert refused == {("127.0.0.1", server.port), ("localhost", server.port ^ 1)}
    assert f"127.0.0.1:{server.port}" in (directory / "hosts.report.html").read_text()
