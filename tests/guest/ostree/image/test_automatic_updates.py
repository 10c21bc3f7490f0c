"""The service that updates a machine: its script runs in a shell, with a stand-in for ostree."""

import subprocess

import pytest
from particle_agent.ostree.image import automatic_updates
from particle_agent.ostree.image.automatic_updates import NAME, REJECTED, SCRIPT, UNITS

NEWEST, OLD = "b" * 64, "a" * 64
OSTREE = f"""\
#!/bin/sh
echo "$*" >>"$CALLS"
case "$*" in
"admin status")
	[ -z "$PENDING" ] || {{
		echo "  debian $PENDING.0 (staged)"
		echo "    origin refspec: origin:debian/13/amd64/edge"
	}}
	echo "* debian $RUNNING.0"
	echo "    origin refspec: origin:debian/13/amd64/edge"
	echo "  debian {NEWEST}.0 (rollback)"
	echo "    origin refspec: origin:other"
	;;
"rev-parse origin:debian/13/amd64/edge") echo {NEWEST} ;;
"admin upgrade --pull-only") exit "$PULL" ;;
esac
"""
PULLED = ["admin upgrade --pull-only", "admin status", "rev-parse origin:debian/13/amd64/edge"]
LOOKED = [*PULLED, "admin status"]


def run(target, how, *, rejected=None, pull=0, running=OLD, pending=""):
    """The calls of ostree(1) and systemctl(1), and the status of the script."""
    automatic_updates.install(target, how)
    target.write("/bin/ostree", OSTREE, mode=0o755)
    target.write("/bin/systemctl", '#!/bin/sh\necho "systemctl $*" >>"$CALLS"\n', mode=0o755)
    if rejected is not None:
        target.write(REJECTED, rejected)
    text = target.read(SCRIPT).replace(REJECTED, str(target.path(REJECTED)))
    calls = target.path("/calls")
    env = {"PATH": f"{target.path('/bin')}:/usr/bin:/bin", "CALLS": str(calls), "PULL": str(pull)}
    env |= {"RUNNING": running, "PENDING": pending}
    done = subprocess.run(["sh", "-c", text], env=env, capture_output=True, text=True, check=False)
    return calls.read_text().splitlines(), done.returncode


@pytest.mark.parametrize(
    ("how", "deployed"),
    [
        ("stage", "admin upgrade --deploy-only --stage"),
        ("apply", "admin upgrade --deploy-only --stage --reboot"),
    ],
)
@pytest.mark.parametrize("rejected", [None, f"{OLD}\n", ""])
def test_the_newest_version_is_prepared(target, how, deployed, rejected):
    assert run(target, how, rejected=rejected) == ([*LOOKED, deployed], 0)


def test_a_version_that_another_one_has_overtaken_is_replaced(target):
    calls, status = run(target, "stage", pending="c" * 64)
    assert (calls[-1], status) == ("admin upgrade --deploy-only --stage", 0)


@pytest.mark.parametrize(("how", "order"), [("stage", []), ("apply", ["systemctl reboot"])])
def test_a_version_that_waits_for_the_next_boot_is_not_deployed_again(target, how, order):
    assert run(target, how, pending=NEWEST) == ([*LOOKED, *order], 0)


@pytest.mark.parametrize("how", ["stage", "apply"])
def test_a_machine_with_the_newest_version_stays_as_it_is(target, how):
    assert run(target, how, running=NEWEST) == (LOOKED, 0)


@pytest.mark.parametrize("how", ["stage", "apply"])
def test_a_version_that_did_not_start_is_not_tried_again(target, how):
    assert run(target, how, rejected=f"{NEWEST}\n") == (PULLED, 0)


def test_a_failure_of_the_server_is_one_of_the_service(target):
    assert run(target, "apply", pull=1) == (PULLED[:1], 1)


def test_the_timer_starts_the_service_every_day(target):
    automatic_updates.install(target, "stage")
    timer = target.read(f"{UNITS}/timers.target.wants/{NAME}.timer")
    assert "OnCalendar=daily\n" in timer
    assert "Persistent=true\n" in timer
    assert f"ExecStart={SCRIPT}\n" in target.read(f"{UNITS}/{NAME}.service")


def test_without_automatic_updates_there_is_no_file(target):
    automatic_updates.install(target, "none")
    assert list(target.root.iterdir()) == []
