import pytest
from particle_os.boot.frameworks import goss, suites, testinfra
from particle_os.boot.observation.verdict import CheckResult
from particle_os.errors import DeadlineExceeded
from particle_os.vm.console import QemuEnded

from .conftest import machine


def check(name):
    return CheckResult(name=name, passed=True, detail="")


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs both frameworks; each has one test that passes, and then raises its error, if any."""

    def run(of_goss=None, of_testinfra=None):
        def results(name, error):
            def each(*arguments):
                yield check(f"{name} one")
                if error is not None:
                    raise error

            return each

        monkeypatch.setattr(goss, "results", results("goss", of_goss))
        monkeypatch.setattr(testinfra, "results", results("testinfra", of_testinfra))
        booted = machine()
        booted.directory = tmp_path
        found = suites.results(tmp_path, b"file", booted, None, 1.0)
        return [(each.name, each.passed, each.detail) for each in found]

    return run


BOTH = [("goss one", True, ""), ("testinfra one", True, "")]


def test_without_tests_there_are_no_results():
    assert suites.results(None, None, machine(), None, 1.0) == ()


def test_the_results_of_all_frameworks_are_checks(run):
    assert run() == BOTH


def test_tests_that_take_too_long_fail_and_the_others_run(run):
    first, second = BOTH
    late = ("goss", False, "all tests of goss took longer than 900 s")
    assert run(DeadlineExceeded(late[2])) == [first, late, second]


def test_a_test_that_switches_the_machine_off_fails(run):
    off = ("goss", False, "the machine has switched itself off")
    assert run(QemuEnded(0, [])) == [BOTH[0], off]


def test_a_qemu_that_dies_is_no_fault_of_the_image(run):
    with pytest.raises(QemuEnded):
        run(None, QemuEnded(-6, []))
