import json

import pytest
from particle_os.architecture import AMD64
from particle_os.vm import accel


@pytest.fixture
def kvm_of(monkeypatch, tmp_path):
    """Makes a host of amd64 whose /dev/kvm opens, and a cache that remembers the trial of KVM.

    Returns a function of the cache and of the outcome: whether the guest ran, or None if no guest
    has tried it.
    """
    (tmp_path / "kvm").touch()
    monkeypatch.setattr(accel, "DEVICE", tmp_path / "kvm")
    monkeypatch.setattr(accel, "native", lambda: AMD64)
    monkeypatch.setattr(accel.process, "identity", lambda program: program)

    def tried(cache, works, key=None):
        cache.mkdir(parents=True, exist_ok=True)
        if works is None:
            return
        trial = {"key": key or accel._trial_key(AMD64), "works": works, "reason": "of this test"}
        (cache / accel.KVM_MEMORY).write_text(json.dumps(trial))

    return tried
