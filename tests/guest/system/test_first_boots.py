from particle_agent.system import generalize
from particle_agent.system.first_boots import NAME

LISTED = """\
a.service disabled enabled
b.timer disabled enabled
c.service disabled disabled
d.service disabled
"""


def systemctl(target, listed):
    seen = []

    def capture(argv, *, timeout=60.0):
        seen.append(tuple(argv))
        return listed if "--system" in argv else ""

    target.capture = capture
    return seen


def test_a_first_boot_has_its_marker_and_keeps_what_is_disabled(target):
    asked = systemctl(target, LISTED)
    generalize.run(target, first_boot=True)
    assert target.read("/etc/machine-id") == "uninitialized\n"
    lines = target.read(f"/etc/systemd/system-preset/{NAME}").splitlines()
    assert lines[1:] == ["disable a.service", "disable b.timer"]
    assert not target.exists(f"/etc/systemd/user-preset/{NAME}")
    assert [argv[1] for argv in asked] == ["--system", "--global"]


def test_by_default_no_boot_is_the_first_one(target):
    asked = systemctl(target, LISTED)
    generalize.run(target)
    assert target.read("/etc/machine-id") == ""
    assert not target.exists("/etc/systemd/system-preset")
    assert asked == []
