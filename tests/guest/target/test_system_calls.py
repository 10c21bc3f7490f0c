import errno

import pytest
from particle_agent.target import system_calls


def test_an_error_names_the_call_and_the_reason(tmp_path):
    with pytest.raises(OSError, match="umount2: ") as caught:
        system_calls.call("umount2", bytes(tmp_path / "nothing"), 0)
    assert caught.value.errno in (errno.ENOENT, errno.EPERM)


def test_what_is_not_mounted_raises(tmp_path):
    with pytest.raises(OSError, match="mount: "):
        system_calls.mount("nodev", tmp_path / "nothing", "tmpfs")
