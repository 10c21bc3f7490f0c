"""Each program gets a chosen environment: the user's own one holds secrets."""

import ast
from pathlib import Path

import particle_os
import pytest

TOP = Path(particle_os.__file__).parent
# The functions that start a program, and take its environment as `env`.
MODULES = {
    "subprocess": {
        "Popen", "run", "call", "check_call", "check_output", "getoutput", "getstatusoutput",
    },
    "asyncio": {"create_subprocess_exec", "create_subprocess_shell"},
}  # fmt: skip
# These take the environment of this process, or a shell.
REFUSED = {
    "system", "popen", "execl", "execlp", "execv", "execvp", "spawnl", "spawnlp", "spawnv",
    "spawnvp",
}  # fmt: skip
# These take it as their last argument.
WITH_ENVIRONMENT = {
    "execle", "execlpe", "execve", "execvpe", "spawnle", "spawnlpe", "spawnve", "spawnvpe",
    "posix_spawn", "posix_spawnp",
}  # fmt: skip


def faults(text):
    """The lines of a module that start a program with whatever environment there is."""
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        module = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
        name = node.func.attr
        is_given = any(keyword.arg in ("env", None) for keyword in node.keywords)
        if (name in MODULES.get(module, ()) and not is_given) or (
            module == "os" and name in REFUSED
        ):
            yield node.lineno


def imports(text):
    """The lines of a module that import a function which starts a program by its own name."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module in (*MODULES, "os", "pty"):
            starting = MODULES.get(node.module, REFUSED | WITH_ENVIRONMENT | {"spawn"})
            if starting & {alias.name for alias in node.names}:
                yield node.lineno


@pytest.mark.parametrize("of", [faults, imports])
def test_each_program_gets_a_chosen_environment(of):
    found = [
        f"{path.relative_to(TOP)}:{line}"
        for path in sorted(TOP.rglob("*.py"))
        for line in of(path.read_text())
    ]
    assert found == []


@pytest.mark.parametrize("text", [
    "subprocess.Popen(['a'])", "subprocess.run(['a'], check=True)", "os.system('a')",
    "os.execv('a', [])", "asyncio.create_subprocess_exec('a')",
])  # fmt: skip
def test_a_program_with_the_environment_of_this_process_is_found(text):
    assert list(faults(text)) == [1]


def test_a_chosen_environment_is_no_fault():
    assert list(faults("subprocess.Popen(['a'], env={})\nos.execve('a', [], {})")) == []
