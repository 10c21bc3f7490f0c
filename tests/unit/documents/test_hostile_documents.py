"""Documents made to hurt: each is an error, within bounds of memory and processor time.

Each is read in a process of its own, whose processor time the kernel bounds.
"""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

MIB = 1 << 20
PEAK_BYTES = 200 * MIB
# Only ends what would never end.
CPU_SECONDS = 120
# Of the processor: the promise is 1 s, and programs beside this one slow its memory down.
PROCESSOR_SECONDS = 8
TOP = "name: x\nstages:\n"

READ = """\
import json, os, resource, sys
from pathlib import Path
from particle_os.recipe import loading
from particle_os.errors import InvalidDocument

def read(path):
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    try:
        loading.load(path, base="tar:base.tar")
    except InvalidDocument as invalid:
        codes = sorted({problem.code for problem in invalid.problems})
        count = len(invalid.problems)
    else:
        codes, count = [], 0
    # getrusage(2) would tell that of the parent, too.
    status = Path("/proc/self/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = used.ru_utime + used.ru_stime
    found = {"codes": codes, "count": count, "peak": peak, "seconds": seconds}
    print(json.dumps(found), flush=True)

for line in sys.stdin:
    if (child := os.fork()) == 0:
        read(Path(line[:-1]))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status != 0:
        print(json.dumps({"status": status}), flush=True)
""".replace("CPU_SECONDS", str(CPU_SECONDS))


def laughs():
    lines = ["a0: &a0 [lol, lol]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    return "\n".join(lines)


def variable_bomb():
    uses = "".join("  - {type: run, command: ['${a}${a}${a}${a}${a}${a}']}\n" for _ in range(3000))
    return f"variables: {{a: {'x' * 500_000}}}\n{TOP}{uses}"


def unknown_variables(count, length=60):
    """Variables, and as many other names of the same letters."""
    names = [f"v{i:0{length}d}" for i in range(count)]
    declared = "".join(f"  {name}: x\n" for name in names)
    used = ", ".join(f"'${{{name[:2]}1{name[2:-1]}}}'" for name in names)
    return f"variables:\n{declared}{TOP}  - {{type: apt, packages: [{used}]}}\n"


def confidential_variables(count):
    """A confidential value of many variables, and as many wrong lines."""
    declared = "".join(f"  v{i}: secret{i}\n" for i in range(count))
    used = "".join(f"${{v{i}}}" for i in range(count))
    users = f"  - {{type: users, users: [{{name: a, password-hash: '{used}'}}]}}\n"
    return f"variables:\n{declared}{TOP}{users}" + "  - !!x {type: apt}\n" * count


def confidential_lists(count):
    """Confidential values of a list of `count` texts, and many wrong stages."""
    declared = ", ".join(f"value{i:06d}" for i in range(count))
    users = "  - {type: users, users: [{name: a, ssh-authorized-keys: '${keys}'}]}\n"
    wrong = "  - {type: aptt}\n" * 1500
    return f"variables:\n  keys: [{declared}]\n{TOP}{users}{wrong}"


DOCUMENTS = {
    "a billion laughs": (laughs(), "anchor"),
    "nested lists": ("[" * MIB, "too-complex"),
    "nested mappings": ("{a: " * (MIB // 4), "too-complex"),
    "nested blocks": ("".join(f"{' ' * i}a:\n" for i in range(1400)), "too-complex"),
    "nested dashes": ("- " * (MIB // 2), "too-complex"),
    "many items": ("- a\n" * (MIB // 4), "too-complex"),
    "many keys": (TOP + "".join(f"k{i}: 1\n" for i in range(9000)), "unknown-key"),
    "the same key": (TOP + "a: 1\n" * 9000, "repeated-key"),
    "many wrong stages": (TOP + "  - {type: aptt}\n" * 6000, "unknown-stage"),
    "many wrong values": (TOP + "  - {type: apt, packages: ['A B', 5, []]}\n" * 2000, "bad-value"),
    "many complex keys": ("? [a]\n: b\n" * 6000, "bad-key"),
    "many tags": ("- !!python/object/apply:os.system x\n" * 15000, "bad-tag"),
    "many documents": ("---\n" * (MIB // 4), "yaml"),
    "many tabs": ("a:\n" + "\t" * (MIB - 100), "yaml"),
    "one long word": ("x" * MIB, "bad-type"),
    "one long comment": ("#" * (MIB - 1), "empty"),
    "one long key": ("x" * (MIB - 10) + ": 1", "yaml"),
    "one long text, not ended": ("a: '" + "x" * (MIB - 10), "yaml"),
    "lines of a text, not ended": ('a: "' + "x\n" * (MIB // 2 - 10), "yaml"),
    "a long number": ("a: " + "9" * (MIB - 10), "unknown-key"),
    "many quotes": (TOP + "description: '" + "''" * (MIB // 2 - 40) + "'\n", "bad-type"),
    "many escapes": (TOP + 'x: "' + "\\x41" * (MIB // 4 - 40) + '"\n', "unknown-key"),
    "many flow ends": ("]" * MIB, "yaml"),
    "many questions": ("? " * (MIB // 2), "too-complex"),
    "many stars": ("- *a\n" * 100_000, "too-complex"),
    "directives": ("%TAG ! x\n" * (MIB // 9), "yaml"),
    "variables in escapes": (
        TOP + '  - {type: apt, packages: ["' + '\\x24{b}", "' * 500 + 'x"]}\n' + "\n" * 50_000,
        "unknown-variable"),
    "unknown variables": (unknown_variables(3000), "unknown-variable"),
    "unknown units": (
        TOP + f"  - {{type: services, enable: [{', '.join(f'sysd{i}' for i in range(9000))}]}}\n",
        "bad-order"),
    "unknown packages": (
        TOP + f"  - {{type: apt, packages: [{', '.join(f'linux-{i}' for i in range(9000))}]}}\n",
        "bad-order"),
    "confidential variables": (confidential_variables(5000), "bad-tag"),
    "confidential lists": (confidential_lists(8000), "bad-value"),
    "credentials without an end": (
        TOP + "  - {type: apt, packages: ['" + "a:" * 400_000 + "']}\n", "bad-value"),
    "credentials of a digest": (
        TOP + "  - {type: apt, packages: ['" + "a:" * 400_000 + "@sha256:']}\n", "bad-value"),
    "variables that multiply": (variable_bomb(), "too-complex"),
    "a file that includes itself": (TOP + "  - include: document.yml\n" * 500, "include-cycle"),
    "a device": (TOP + "  - include: ../../../../../../../dev/zero\n", "no-file"),
    "a huge file": (256 * MIB, "too-large"),
    "zeroes": (bytes(MIB), "yaml"),
    "noise": (random.Random(1).randbytes(MIB), "not-utf-8"),
    "UTF-16": ("name: x\n".encode("utf-16"), "not-utf-8"),
    "Latin-1": ("name: \xe4\n".encode("latin-1"), "not-utf-8"),
    "half a pair": (b"name: \xed\xa0\x80\n", "not-utf-8"),
}  # fmt: skip


OCTAL = "put it in quotes, in octal digits as in '0755'"


def write(path, content):
    if isinstance(content, int):
        with path.open("wb") as file:
            file.truncate(content)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.fixture(scope="module")
def read():
    """Returns the codes of the errors, their number, and the peak memory for a file."""
    with subprocess.Popen(
        [sys.executable, "-c", READ], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reader:

        def ask(path):
            reader.stdin.write(f"{path}\n")
            reader.stdin.flush()
            found = json.loads(reader.stdout.readline())
            assert found.get("status", 0) == 0, "the process that read it ended by a signal"
            return found

        yield ask
        reader.stdin.close()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_it_is_an_error_within_bounds(tmp_path, read, name):
    content, code = DOCUMENTS[name]
    path = tmp_path / "document.yml"
    write(path, content)
    found = read(path)
    assert code in found["codes"]
    assert found["count"] <= 20_000
    assert found["peak"] < PEAK_BYTES
    assert found["seconds"] < PROCESSOR_SECONDS


def test_a_thousand_errors_are_told_and_the_rest_is_counted(tmp_path, read):
    path = tmp_path / "document.yml"
    write(path, DOCUMENTS["many keys"][0])
    found = read(path)
    assert found["count"] < 1100
    assert "too-many" in found["codes"]


@pytest.mark.parametrize(
    ("text", "line", "column", "hint"),
    [
        ("{type: apt, update: no}", 3, 25, "write false"),
        ("{type: apt, update: on}", 3, 25, "write true"),
        ("{type: apt, packages: [no]}", 3, None, None),
        # Quotes would make no locale of it.
        ("{type: locale, default: true}", 3, 29, "see 'particle-os explain locale'"),
        ("{type: files, directories: [{path: /a, mode: 0755}]}", 3, None, None),
        ("{type: files, directories: [{path: /a, mode: 755}]}", 3, 50, OCTAL),
        ("{type: files, directories: [{path: /a, mode: 0o755}]}", 3, 50, OCTAL),
    ],
)
def test_words_that_yaml_may_take_for_something_else(tmp_path, text, line, column, hint):
    """An ambiguous value (a package called 'no', an octal mode) is read as text or is an error."""
    from particle_os.errors import InvalidDocument
    from particle_os.recipe import loading

    path = tmp_path / "recipe.yml"
    path.write_text(f"{TOP}  - {text}\n  - type: qemu\n")
    try:
        loaded = loading.load(path, base="tar:base.tar")
    except InvalidDocument as invalid:
        (problem,) = invalid.problems
        assert (problem.line, problem.column, problem.hint) == (line, column, hint)
    else:
        assert column is None
        stage = loaded.recipe.stages[0]
        shown = getattr(stage, "packages", None) or stage.directories[0].mode
        assert shown in (("no",), "0755")


def test_a_document_of_the_largest_size_is_read(tmp_path, read):
    path = tmp_path / "document.yml"
    fill = "# " + "x" * (MIB - 60) + "\n"
    write(path, f"{TOP}  - type: qemu\n{fill}")
    found = read(path)
    assert found["codes"] == []
    assert Path(path).stat().st_size > MIB - 100
