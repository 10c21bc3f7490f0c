"""The faults that `make mutants` plants."""

import ast

import pytest

from ..mutants import PACKAGES, TOP, mutants


@pytest.mark.parametrize(
    ("line", "faults"),
    [
        ("a == b", ["(a != b)"]),
        ("a and b", ["(a or b)"]),
        ("a if b else c", ["a if (not (b)) else c"]),
        ("not a", ["(a)"]),
        ("x = True", ["x = False"]),
        ("x = 7", ["x = 8"]),
        ("raise a", ["pass"]),
        ("f()", ["pass"]),
        ("x += y", ["pass"]),
        ("x = f(a, b=c, d=e)", ["x = f(a, d=e)", "x = f(a, b=c)"]),
        ("with f: x", ["with __import__('contextlib').nullcontext(): x"]),
        ("def f(): return x", ["def f(): return None"]),
        ("def f(): return None", []),
    ],
)
def test_each_kind_of_fault_is_planted(line, faults):
    source = f"é = 'é'\n{line}\n".encode()
    changed = [mutant.applied(source).decode().splitlines()[1] for mutant in mutants("x", source)]
    assert sorted(changed) == sorted(faults)


@pytest.mark.parametrize(
    "name", ["host/particle_os/system/process.py", f"{PACKAGES[1]}/contract/decode.py"]
)
def test_every_mutant_is_a_program(name):
    source = (TOP / name).read_bytes()
    found = list(mutants(name, source))
    assert found
    assert all(ast.parse(mutant.applied(source)) for mutant in found)
