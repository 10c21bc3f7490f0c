from contextlib import contextmanager
from hashlib import sha256

import pytest
from particle_agent.apt import from_host
from particle_agent.shortcuts import stand_ins

from .apt_calls import KERNEL_SCRIPT, STATUS


@pytest.fixture
def debian(target):
    """A target with apt."""
    target.write("/usr/bin/apt-get", "")
    return target


@pytest.fixture
def known(monkeypatch):
    """Makes the scripts of these tests known to the stand-ins."""
    scripts = dict.fromkeys(stand_ins.SCRIPTS, (sha256(b"a script\n").hexdigest(),))
    scripts["linux"] = (sha256(KERNEL_SCRIPT.format("@").encode()).hexdigest(),)
    monkeypatch.setattr(stand_ins, "SCRIPTS", scripts)


@pytest.fixture
def helped(debian, monkeypatch):
    """A target whose host fetches packages; the host's disk is mounted already."""
    debian.write("/var/lib/dpkg/status", STATUS)
    debian.write("/etc/apt/sources.list", "deb [signed-by=/k/x.gpg] http://m.example s main\n")
    debian.write("/k/x.gpg", "key")
    debian.write("/etc/apt/trusted.gpg.d/y.asc", "other key")
    debian.write("/etc/apt/preferences.d/pin", "Package: *\n")
    debian.captured["apt-config"] = 'APT::Default-Release "s";\nDPkg::Post-Invoke "evil";\n'

    @contextmanager
    def disk(target):
        target.write("/run/particle-os-packages/Packages", "Package: curl\n")
        yield "/run/particle-os-packages"

    monkeypatch.setattr(from_host, "disk", disk)
    return debian
