"""A worker offers as many slots as its machine has room for, and only what it has."""

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest
from particle_os.architecture import usual
from particle_os.errors import InfrastructureError
from particle_os.fleet import planning
from particle_os.fleet.farm import slots
from particle_os.fleet.farm.member import room
from particle_os.fleet.farm.member.room import RoomCheck
from particle_os.fleet.farm.slots import WorkerMachine
from particle_os.fleet.order import Order
from particle_os.jobs.host import doctor
from particle_os.jobs.plan import BuildOptions

GIB = 1 << 30


def order(options=None, architecture="amd64"):
    return Order("a", Path("r.yml"), options or BuildOptions(), architecture=architecture)


@pytest.mark.parametrize(
    ("machine", "count"),
    [
        (WorkerMachine(8, 64 * GIB, 500 * GIB, kvm=True), 8),
        (WorkerMachine(8, 64 * GIB, 500 * GIB, kvm=False), 4),
        (WorkerMachine(1, 64 * GIB, 500 * GIB, kvm=False), 1),
        (WorkerMachine(8, 6 * GIB, 500 * GIB, kvm=True), 2),
        (WorkerMachine(8, 64 * GIB, 20 * GIB, kvm=True), 3),
    ],
)
def test_processors_memory_and_disk_limit_the_slots(machine, count):
    assert machine.slots() == count


@pytest.mark.parametrize(
    ("memory", "room", "what"), [(1 * GIB, 500 * GIB, "memory"), (64 * GIB, 1 * GIB, "disk")]
)
def test_a_machine_without_room_for_a_build_is_refused(memory, room, what):
    with pytest.raises(InfrastructureError, match=what) as caught:
        WorkerMachine(8, memory, room, kvm=True).slots()
    assert "--slots 1" in caught.value.hint


def test_this_machine_is_measured(tmp_path):
    found = WorkerMachine.here(tmp_path)
    assert found.processors >= 1 and found.memory > 0 and found.room > 0


def test_a_build_goes_only_where_its_demands_are_met():
    with_kvm, without = slots.resources(3, kvm=True), slots.resources(2, kvm=False)
    other = {**with_kvm, slots.version(): 0, "particle-os-9-abc": 3}
    full = {**with_kvm, slots.SLOT: 0}
    workers = {"a": with_kvm, "b": without, "c": other, "d": full, "e": {}}
    assert slots.fitting(workers, slots.demands(order())) == 5
    wanted = slots.demands(order(BuildOptions(accel="kvm")))
    assert slots.fitting(workers, wanted) == 3
    b, c, d, e = slots.misfits(workers, wanted)
    assert b == "b has no kvm"
    assert c.startswith("c has particle-os-") and slots.version() in c
    assert d == "d takes no builds now: its disk is full"
    assert e.startswith("e ")


def test_an_image_goes_where_its_architecture_can_be_built():
    own = slots.resources(1, kvm=False, architectures=["amd64"])
    both = slots.resources(1, kvm=False, architectures=["amd64", "arm64"])
    wanted = slots.demands(order(architecture="arm64"))
    assert slots.fitting({"own": own, "both": both}, wanted) == 1
    assert slots.misfits({"own": own, "both": both}, wanted) == ["own has no arm64"]


@pytest.mark.parametrize(
    ("key", "option", "found"),
    [("", None, "amd64"), ("architecture: arm64", None, "arm64"), ("", "arm64", "arm64")],
)
def test_recipe_and_option_choose_the_architecture_that_a_worker_needs(
    tmp_path, key, option, found
):
    recipe = tmp_path / "r.yml"
    stages = (
        "stages:\n  - {type: apt, packages: [KERNEL, systemd-sysv, systemd-boot]}\n"
        "  - {type: qemu, boot-loader: systemd-boot}\n"
    )
    recipe.write_text(
        f"name: a\nbase-image: mmdebstrap:trixie\n{key}\n{stages}".replace(
            "KERNEL", f"linux-image-cloud-{found}"
        )
    )
    (made,) = planning.orders([(recipe, BuildOptions(architecture=option))])
    assert found in slots.demands(made)
    assert not ({"amd64", "arm64"} - {found}) & slots.demands(made).keys()


def test_a_worker_offers_the_architectures_that_it_can_build(monkeypatch):
    own = usual().name
    for lacks, offered in (([], {"amd64", "arm64"}), (["qemu-system-x"], {own})):
        monkeypatch.setattr(doctor, "_lacking", lambda each, lacks=lacks: lacks)
        assert {*slots.resources(1, kvm=False)} & {"amd64", "arm64"} == offered


def test_a_worker_with_a_full_disk_takes_no_builds_until_there_is_room(monkeypatch):
    given = []

    async def set_resources(**resources):
        given.append(resources)
        worker.state.total_resources.update(resources)

    state = SimpleNamespace(total_resources={slots.SLOT: 2})
    worker = SimpleNamespace(state=state, set_resources=set_resources)
    for free in (10, 3, 2, 10):
        monkeypatch.setattr(room, "free_bytes", lambda path, free=free: free)
        asyncio.run(RoomCheck(5, 2).check(worker))
    assert given == [{slots.SLOT: 0}, {slots.SLOT: 2}]
