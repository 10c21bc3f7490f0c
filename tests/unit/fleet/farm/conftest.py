"""The client of a played farm."""

import pytest
from particle_os.fleet.farm.client import run as farm_run
from particle_os.fleet.farm.client.run import FarmRun

from ....waiting import Clock
from .played_client import Seen, order


@pytest.fixture
def run(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(farm_run, "time", clock)
    monkeypatch.setattr(farm_run, "TICK_SECONDS", 0)

    def start(farm, *names, jobs=None, fail_fast=False):
        seen, ends = Seen(), {}
        orders = [order(n) if isinstance(n, str) else n for n in names]
        runs = FarmRun(farm, orders, seen, ends, jobs=jobs, fail_fast=fail_fast)
        farm.clock, farm.ends = clock, ends
        runs.run()
        return seen, ends

    return start
