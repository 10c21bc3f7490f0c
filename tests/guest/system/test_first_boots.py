import os

import pytest
from particle_agent.errors import StageError
from particle_agent.system import generalize
from particle_agent.system.first_boots import NAME

LISTED = """\
a.service disabled enabled
b.timer disabled enabled
c.service disabled disabled
d.service disabled
e.service enabled enabled
f.service enabled enabled
g.socket indirect enabled
h.service enabled disabled
i.service enabled enabled
"""


def systemctl(target, listed):
    target.write("/bin/systemctl", "")
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


def test_no_enabled_unit_brings_a_disabled_one_along(target):
    systemctl(target, LISTED)
    lib = "/usr/lib/systemd/system"
    units = {"e.service": "Also=f.service x.service", "f.service": "Also=alias.service",
             "g.socket": "Also=a.service", "h.service": "Also=c.service",
             "c.service": "Alias=alias.service"}  # fmt: skip
    for name, text in units.items():
        target.write(f"{lib}/{name}", f"[Install]\n{text}\n")
    generalize.run(target, first_boot=True)
    lines = target.read(f"/etc/systemd/system-preset/{NAME}").splitlines()
    names = ("a.service", "b.timer", "e.service", "f.service", "g.socket")
    assert lines[1:] == [f"disable {name}" for name in names]


def test_a_first_boot_asks_no_question_on_the_console(target):
    systemctl(target, "")
    asking, homes = "systemd-firstboot.service", "systemd-homed-firstboot.service"
    target.write(f"/usr/lib/systemd/system/{asking}", "")
    generalize.run(target, first_boot=True)
    own = target.root / "etc/systemd/system"
    assert os.readlink(own / asking) == "/dev/null"
    assert target.list("/etc/systemd/system") == [asking]
    target.write(f"/usr/lib/systemd/system/{homes}", "")
    target.write(f"/etc/systemd/system/{homes}", "of the recipe")
    generalize.run(target, first_boot=True)
    assert target.read(f"/etc/systemd/system/{homes}") == "of the recipe"


def test_a_first_boot_needs_systemd(target):
    with pytest.raises(StageError, match="the image has no systemd"):
        generalize.run(target, first_boot=True)


def test_by_default_no_boot_is_the_first_one(target):
    asked = systemctl(target, LISTED)
    target.write("/usr/lib/systemd/system/systemd-firstboot.service", "")
    generalize.run(target)
    assert target.read("/etc/machine-id") == ""
    assert not target.exists("/etc/systemd/system-preset")
    assert target.list("/etc/systemd/system") == []
    assert asked == []
