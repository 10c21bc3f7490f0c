"""A farm that a test plays, and what its client has shown."""

from contextlib import contextmanager
from pathlib import Path

from particle_os.fleet import views
from particle_os.fleet.build_process import Ended
from particle_os.fleet.farm.assignment import Assignment
from particle_os.fleet.farm.client.connection import Answered, Heard
from particle_os.fleet.farm.slots import resources
from particle_os.fleet.order import Order
from particle_os.jobs.plan import BuildOptions

from ...report.pages import result, verdict

GOOD = result("x", [verdict("x", "passed")]).model_dump_json().encode()
BAD = {"error": "no space left", "hint": "free some", "tail": ["the last line"]}


def order(name):
    return Order(name, Path("r.yml"), BuildOptions())


def good(name):
    return Answered(name, Ended(0, 1.0, GOOD).data())


def failed(name, code=5):
    return Answered(name, Ended(code, 1.0, error=BAD).data())


class Farm:
    """A farm that answers each build at once, with `answer(name, worker)`."""

    has_machines = True

    def __init__(self, answer, workers=("w1", "w2")):
        self.answer = answer
        self.members = {name: resources(1, kvm=False) for name in workers}
        self.submitted, self.cancelled, self.connections = [], [], 0
        self.delivered = []
        self.running = {}

    @contextmanager
    def connect(self, inbox):
        self.connections += 1
        self.inbox = inbox
        yield self

    def assignment(self, order):
        return Assignment(order.name, "00")

    def deliver(self, order, end):
        self.delivered.append(order.name)
        return end

    def workers(self):
        if isinstance(self.members, Exception):
            raise self.members
        return self.members

    def submit(self, assignment, demands, priority, workers):
        name = assignment.name
        worker = min(workers) if workers else list(self.members)[len(self.submitted) % 2]
        self.submitted.append((name, worker, priority))
        self.running[name] = worker
        for message in self.answer(name, worker) or ():
            self.inbox.put(message)

    def cancel(self, names):
        self.cancelled += names
        for name in names:
            self.inbox.put(Answered(name))

    def forget(self, name):
        self.running.pop(name, None)


class Seen(views.Silent):
    def __init__(self):
        self.lines = []

    def began(self, order):
        self.lines.append(f"{order.name} began")

    def event(self, order, event):
        self.lines.append(f"{order.name} {event.get('text') or event['event']}")

    def ended(self, end):
        self.lines.append(f"{end.order.name} {end.status}")


def on(worker, name):
    return Heard(name, worker, [{"event": "worker", "host": worker}])
