import pytest
from particle_os.system import process
from particle_os.vm import accel
from particle_os.vm.accel import TCG, Acceleration, Processors, processors

KVM = Acceleration("kvm", "a guest ran under it", 1.0)


@pytest.fixture
def host(monkeypatch):
    """Sets QEMU's version and the number of the host's processors."""

    def have(version, count=4):
        accel.version_of.cache_clear()
        monkeypatch.setattr(process, "version", lambda program: f"QEMU emulator version {version}")
        monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(count)))

    yield have
    accel.version_of.cache_clear()


@pytest.mark.parametrize(
    ("version", "count", "expected"),
    [
        ("10.0.2 (Debian 1:10.0.2+ds-2)", 4, Processors(2, x2apic=True)),
        ("9.0.0", 2, Processors(2, x2apic=True)),
        ("10.0.2", 1, Processors(1, x2apic=False)),
        ("7.2.19 (Debian 1:7.2+dfsg-7)", 4, Processors(1, x2apic=False)),
        ("of one's own", 4, Processors(1, x2apic=False)),
    ],
)
def test_several_emulated_processors_only_where_their_interrupts_are_safe(
    host, version, count, expected
):
    host(version, count)
    assert processors(TCG) == expected


def test_the_user_is_given_what_is_wanted(host):
    host("7.2.19")
    assert processors(TCG, 3) == Processors(3, x2apic=False)
    host("10.0.2")
    assert processors(TCG, 3) == Processors(3, x2apic=True)
    assert processors(TCG, 1) == Processors(1, x2apic=False)


def test_under_kvm_nothing_is_emulated(host):
    host("10.0.2")
    assert processors(KVM) == Processors(2, x2apic=False)
