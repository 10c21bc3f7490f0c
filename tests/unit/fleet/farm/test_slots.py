"""A worker offers as many slots as its machine has room for, and only what it has."""

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest
from particle_os.architecture import AMD64, ARM64, usual
from particle_os.errors import InfrastructureError
from particle_os.fleet import planning
from particle_os.fleet.farm import slots
from particle_os.fleet.farm.member import offer, room
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
    wanted = slots.demands(order(BuildOptions(accel="kvm"), usual().name))
    assert slots.fitting(workers, wanted) == 3
    b, c, d, e = slots.misfits(workers, wanted)
    assert b == f"b has no kvm-{usual().name}"
    assert c.startswith("c has particle-os-") and slots.version() in c
    assert d == "d takes no builds now: its disk is full"
    assert e.startswith("e ")


def test_an_image_goes_where_its_architecture_can_be_built():
    own = slots.resources(1, kvm=False, architectures=["amd64"])
    both = slots.resources(1, kvm=False, architectures=["amd64", "arm64"])
    wanted = slots.demands(order(architecture="arm64"))
    assert slots.fitting({"own": own, "both": both}, wanted) == 1
    assert slots.misfits({"own": own, "both": both}, wanted) == ["own has no arm64"]


@pytest.mark.parametrize(("own", "foreign"), [(AMD64, "arm64"), (ARM64, "amd64")])
def test_kvm_counts_for_images_of_the_workers_own_architecture_only(monkeypatch, own, foreign):
    monkeypatch.setattr(slots, "usual", lambda: own)
    workers = {"w": slots.resources(2, kvm=True, architectures=["amd64", "arm64"])}
    options = BuildOptions(accel="kvm")
    assert slots.fitting(workers, slots.demands(order(options, own.name))) == 2
    wanted = slots.demands(order(options, foreign))
    assert slots.fitting(workers, wanted) == 0
    assert slots.misfits(workers, wanted) == [f"w has no kvm-{foreign}"]
    assert slots.fitting(workers, slots.demands(order(architecture=foreign))) == 2


@pytest.mark.parametrize(
    ("processors", "kvm", "count", "emulated"),
    [(8, True, 8, 4), (8, True, 2, 2), (1, True, 1, 1), (8, False, 4, 4), (2, False, 6, 6)],
)
def test_emulated_builds_of_a_worker_with_kvm_get_two_processors_each(
    monkeypatch, processors, kvm, count, emulated
):
    monkeypatch.setattr(slots, "usual", lambda: AMD64)
    machine = WorkerMachine(processors, 64 * GIB, 500 * GIB, kvm=kvm)
    has = slots.resources(
        count, kvm=kvm, foreign=machine.foreign(count), architectures=["amd64", "arm64"]
    )
    assert slots.fitting({"w": has}, slots.demands(order())) == count
    assert slots.fitting({"w": has}, slots.demands(order(architecture="arm64"))) == emulated


@pytest.mark.parametrize(("own", "works"), [(AMD64, True), (ARM64, False)])
def test_a_machine_has_kvm_only_for_the_architecture_of_its_processor(
    monkeypatch, kvm_of, own_cache, own, works
):
    kvm_of(own_cache, True)
    monkeypatch.setattr(slots, "usual", lambda: own)
    assert WorkerMachine.here(own_cache).kvm is works


@pytest.mark.parametrize(
    ("trial", "kvm", "notes"),
    [
        ((True,), True, []),
        ((False,), False, []),
        ((None,), False, [offer.UNTRIED]),
        ((True, "of another kernel"), False, [offer.UNTRIED]),
    ],
)
def test_a_device_that_opens_is_no_kvm_before_a_guest_has_run_under_it(
    monkeypatch, kvm_of, own_cache, trial, kvm, notes
):
    kvm_of(own_cache, *trial)
    monkeypatch.setattr(slots, "usual", lambda: AMD64)
    monkeypatch.setattr(offer, "_check_host", lambda: None)
    monkeypatch.setattr(offer.WorkerSettings, "cache", lambda settings: None)
    heard = []
    made = offer.member("tcp://127.0.0.1:1", None, BuildOptions(), 2, None, heard.append)
    assert (made.resources.get("kvm-amd64"), heard) == (2 if kvm else None, notes)


def test_the_worker_of_a_local_farm_takes_every_build(monkeypatch):
    monkeypatch.setattr(doctor, "_lacking", lambda each: ["everything"])
    has = {"local": slots.local_resources()}
    for name in ("amd64", "arm64"):
        for options in (BuildOptions(), BuildOptions(accel="kvm")):
            assert slots.misfits(has, slots.demands(order(options, name))) == []


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
        asyncio.run(RoomCheck(5, 2, 30.0).check(worker))
    assert given == [{slots.SLOT: 0}, {slots.SLOT: 2}]
