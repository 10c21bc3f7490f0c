"""Makes the checks that run on the host: connections to forwarded ports of the guest."""

from __future__ import annotations

import http.client
import re
import socket
import time
from collections.abc import Sequence

from particle_os.errors import DeadlineExceeded
from particle_os.recipe.checks.base import CONTENT_BYTES, Judgement
from particle_os.recipe.checks.kinds import Check
from particle_os.recipe.checks.network import HttpCheck, PortCheck
from particle_os.system.deadline import Deadline, cut_off
from particle_os.vm.monitor import Monitor

CONNECT_SECONDS = 10.0
ADVICE = (
    "; the guest must listen on the address that it gets by DHCP, or on the static address that "
    "the recipe's stage 'network' or 'boot-test: network' names"
)


def ports(checks: Sequence[Check]) -> tuple[int, ...]:
    """Returns the TCP ports of the guest that the checks connect to."""
    wanted = {check.port for check in checks if isinstance(check, HttpCheck)}
    wanted |= {c.port for c in checks if isinstance(c, PortCheck) and c.reachable}
    return tuple(sorted(wanted))


def reach(check: Check, monitor: Monitor, deadline: Deadline) -> Judgement | None:
    """Returns the judgement of a check that connects from the host; None for other checks."""
    if isinstance(check, HttpCheck):
        return _http(check, monitor.forwards(deadline)[check.port], deadline)
    if isinstance(check, PortCheck) and check.reachable:
        return _port(check.port, monitor, deadline)
    return None


def _port(port: int, monitor: Monitor, deadline: Deadline) -> Judgement:
    """Judges whether the guest accepts a connection.

    QEMU accepts every connection itself and then connects to the guest. Only QEMU knows whether
    the guest accepted, so its monitor is asked.
    """
    limit = deadline.sooner(CONNECT_SECONDS, "a connection to the guest")
    forwarded = monitor.forwards(deadline)[port]
    connection = rf"TCP\[ESTABLISHED\]\s+\d+\s+127\.0\.0\.1\s+{forwarded}\s+\S+\s+{port}\s"
    with socket.create_connection(("127.0.0.1", forwarded), timeout=limit.remaining()):
        while time.monotonic() < limit.at:
            if re.search(connection, monitor.human("info usernet", deadline)):
                return Judgement(True, "the host can connect")
            time.sleep(0.1)
    return Judgement(False, f"the host cannot connect{ADVICE}")


def _http(check: HttpCheck, forwarded: int, deadline: Deadline) -> Judgement:
    limit = deadline.sooner(check.seconds, f"GET {check.http}")
    connection = http.client.HTTPConnection("127.0.0.1", forwarded, timeout=limit.remaining())
    try:
        connection.connect()
        with cut_off(connection.sock, limit):
            headers = {"Host": "localhost", "Connection": "close"}
            connection.request("GET", check.http, headers=headers)
            response = connection.getresponse()
            body = response.read(CONTENT_BYTES)
        limit.remaining()
    except (OSError, http.client.HTTPException, DeadlineExceeded) as error:
        return Judgement(False, f"no answer: {error or type(error).__name__}{ADVICE}")
    finally:
        connection.close()
    return check.judge_response(response.status, body.decode("utf-8", "replace"))
