"""The stages of a build that reached the network, for the report."""

from __future__ import annotations

from particle_os.egress.record import Hosts
from particle_os.report.charts import ITEMS, called
from particle_os.report.results import Result
from particle_os.vm.traffic import Traffic


def networks(result: Result) -> list[tuple[str, Traffic]]:
    """The stages that reached the network, and what each of them reached."""
    return [
        (called(stage), stage.network)
        for stage in result.stages[:ITEMS]
        if stage.network is not None and stage.network.reached
    ]


def hosts(result: Result) -> list[tuple[str, Hosts]]:
    """The stages with a proxy, and the hosts that each of them has asked for."""
    return [
        (called(stage), stage.hosts)
        for stage in result.stages[:ITEMS]
        if stage.hosts is not None and (stage.hosts.reached or stage.hosts.refused)
    ]
