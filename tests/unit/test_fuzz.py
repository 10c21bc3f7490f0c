"""Replays the inputs of the fuzzer: the seeds of each target, and what it has found (`make fuzz`).

No fuzzer is needed for that. An input of tests/fuzz/found/TARGET has shown a defect once.
"""

import json
import random
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from particle_os.apt import deb822

from ..fuzz import archives, limits, structure
from ..fuzz.targets import TARGETS
from ..waiting import HANG_SECONDS

pytestmark = pytest.mark.slow

TOP = Path(__file__).parents[2]
FOUND = sorted((TOP / "tests/fuzz/found").glob("*/*"))
# No parser of ours needs more, whatever the machine.
SECONDS = 60


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_of_a_target_are_accepted(name):
    seeds = TARGETS[name].seeds()
    assert seeds
    for seed in seeds:
        assert limits.defect(TARGETS[name].function, seed, (), SECONDS) is None


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_seeds_show_no_defect(name):
    draw = random.Random(1)
    target = TARGETS[name]
    for seed in filter(None, target.seeds()):
        for _ in range(10):
            data = bytearray(seed)
            data[draw.randrange(len(data))] = draw.randrange(256)
            data = bytes(data)[: draw.randrange(len(data) // 2, len(data) + 1)]
            for damaged in {data, target.repair(data) if target.repair else data}:
                assert limits.defect(target.function, damaged, target.allowed, SECONDS) is None


JSON = ("wire", "inspection", "loose", "packages-request", "oci", "recipe", "boot-test")


@pytest.mark.parametrize("name", JSON)
def test_seeds_of_another_structure_show_no_defect(name):
    target = TARGETS[name]
    tried = 0
    for number, seed in enumerate(target.seeds()):
        for attempt in range(20):
            changed = structure.mutated(seed, random.Random(f"{number}/{attempt}"))
            tried += changed is not None
            if changed is not None:
                assert limits.defect(target.function, changed, target.allowed, SECONDS) is None
    assert tried


def test_a_structure_is_changed_and_stays_json():
    seeds = [json.dumps({"a": [1, {"b": None}], "c": "d"}).encode(), b"[]\0{}"]
    seen = {structure.mutated(seed, random.Random(n)) for seed in seeds for n in range(200)}
    assert len(seen) > 150
    for changed in seen:
        for part in changed.split(b"\0"):
            json.loads(part)


def test_what_is_no_json_has_no_structure():
    assert structure.mutated(b"a: b", random.Random(1)) is None


def test_what_was_found_is_mended():
    defects = []
    for path in FOUND:
        target = TARGETS[path.parent.name]
        found = limits.defect(target.function, path.read_bytes(), target.allowed, SECONDS)
        defects += [(path.name, found.text)] if found else []
    assert defects == []


def crash(data):
    list(deb822.paragraphs(None))


def hang(data):
    while True:
        pass


@pytest.mark.parametrize(("function", "error"), [(crash, "Error"), (hang, "TooSlow")])
def test_a_planted_defect_is_noticed(function, error):
    found = limits.defect(function, b"", (UnicodeError,), 0.2)
    assert error in found.place
    assert function.__name__ in found.text


def test_the_place_of_a_defect_is_in_our_code():
    assert "in _lines (deb822.py:" in limits.defect(crash, b"", ()).place


def test_a_repaired_archive_has_its_checksums():
    data = archives.tar({"a": b"x", "b": b"y"})
    damaged = data.replace(b"a\0", b"c\0", 1).replace(b"b\0", b"d\0", 1)
    path = Path("damaged.tar")
    path.write_bytes(damaged)
    with pytest.raises(tarfile.TarError):
        tarfile.open(path).close()
    path.write_bytes(archives.with_checksums(damaged))
    with tarfile.open(path) as archive:
        assert archive.getnames() == ["c", "d"]


def run(*arguments):
    argv = [sys.executable, "-m", "tests.fuzz", *map(str, arguments)]
    return subprocess.run(argv, cwd=TOP, capture_output=True, text=True, timeout=HANG_SECONDS)


def test_an_input_is_replayed(tmp_path):
    path = tmp_path / "input"
    path.write_bytes(TARGETS["wire"].seeds()[0])
    done = run("--replay", "wire", path)
    assert (done.returncode, done.stdout) == (0, "no defect\n")


def test_an_unknown_target_is_reported_with_the_known_ones():
    done = run("wier")
    assert done.returncode == 2
    assert "no target wier" in done.stderr
    assert "wire" in done.stderr
