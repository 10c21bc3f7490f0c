"""The helper VM reaches the network only while a stage runs that may use it.

A server on the host's loopback interface stands for the network: it notes every request.
"""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

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
