"""The sizes of partitions."""

import pytest
from particle_agent.disk.volumes import MIB, Volume


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_a_disk_for_updates_has_room_for_a_second_version(kind):
    content = 400 * MIB
    plain = Volume("root", kind, "/", content=content)
    with_room = Volume("root", kind, "/", content=content, spare=content)
    assert with_room.roomy - plain.roomy >= content
    assert with_room.least == plain.least, "a minimal disk has no room"
