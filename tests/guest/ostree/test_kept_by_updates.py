"""The files that the disk's stage writes to the /etc of a machine stay there with each update."""

import pytest

from ..verification.deployed import HAVE_OSTREE, commit, deploy, make, places

pytestmark = pytest.mark.skipif(not HAVE_OSTREE, reason="no ostree")
UNIT = "etc/systemd/system/particle-os-grow-file-system.service"
WANTED = f"etc/systemd/system/sysinit.target.wants/{UNIT.rpartition('/')[2]}"


def test_an_update_keeps_the_swap_file_and_the_growth_of_a_machine(tmp_path):
    root = make(tmp_path)
    (first,) = places(root)
    (first / "etc/fstab").write_text("/var/swapfile none swap defaults 0 0\n")
    for path in (UNIT, WANTED, "etc/repart.d/50-root.conf"):
        (first / path).parent.mkdir(parents=True, exist_ok=True)
    (first / UNIT).write_text("[Unit]\n")
    (first / WANTED).symlink_to(f"../{UNIT.rpartition('/')[2]}")
    (first / "etc/repart.d/50-root.conf").write_text("[Partition]\n")
    commit(tmp_path, "2")
    deploy(tmp_path)
    (new,) = [place for place in places(root) if place != first]
    assert (new / "usr/share/version").read_text() == "2"
    assert (new / "etc/fstab").read_text() == "/var/swapfile none swap defaults 0 0\n"
    assert (new / UNIT).read_text() == "[Unit]\n"
    assert (new / WANTED).resolve() == new / UNIT
    assert (new / "etc/repart.d/50-root.conf").is_file()
