import pytest
from particle_os.errors import InvalidDocument
from particle_os.recipe import loading

RECIPE = """\
name: test
base-image: tar:base.tar
stages:
  - type: run
    {run}
  - type: qemu
boot-test:
  checks:
    - command: {check}
"""


def remarks(tmp_path, run='command: ["true"]', check='["true"]'):
    (tmp_path / "r.yml").write_text(RECIPE.format(run=run, check=check))
    try:
        found = loading.load(tmp_path / "r.yml").notes
    except InvalidDocument as invalid:
        found = (*invalid.problems, *invalid.notes)
    return [(p.code, p.line, f"{p.message} ({p.hint})") for p in found]


@pytest.mark.parametrize(
    ("run", "words"),
    [
        ("command: echo hi > /x", 'write [sh, -c, "echo hi > /x"]'),
        ("command: echo $HOME", 'write [sh, -c, "echo $HOME"]'),
        ("command: echo hi", "write [echo, hi]"),
        ('command: ["echo hi > /x"]', "the name of one program"),
        ("command: [A=b, cd, /x]", "'cd' is a word of shells"),
        ("script: build/setup.sh", "'script-file'"),
        ("script: |\n      ./setup.py", "'script-file'"),
        ("command: [x]\n    script-file: y", "one of 'command', 'script' and 'script-file'"),
    ],
)
def test_a_mistake_is_an_error_that_names_what_to_write(tmp_path, run, words):
    (tmp_path / "y").write_text("")
    ((code, line, text), *_) = remarks(tmp_path, run)
    assert code in ("bad-type", "bad-value")
    assert line in (4, 5)
    assert words in text


def test_checks_get_the_same_hints(tmp_path):
    ((code, line, text),) = remarks(tmp_path, check='["cat /x | wc"]')
    assert (code, line) == ("bad-value", 9)
    assert "the name of one program" in text


@pytest.mark.parametrize(
    "operator",
    [">", "|", "&&", "2>&1", ">>/y", ">y", "2>/y", "</y", "&>y", "$HOME", "$HOME/y", "$${HOME}",
     "$(id)", "`id`", "~/y"],
)  # fmt: skip
def test_an_operator_among_the_arguments_is_noted(tmp_path, operator):
    command = f'[echo, hi, "{operator}", /x]'
    assert [r[:2] for r in remarks(tmp_path, f"command: {command}")] == [("no-shell", 5)]
    assert [r[:2] for r in remarks(tmp_path, check=command)] == [("no-shell", 9)]


@pytest.mark.parametrize("pattern", ["*.txt", "/var/log/*.log", "/x/y?.d"])
def test_a_pattern_of_files_among_the_arguments_is_noted(tmp_path, pattern):
    command = f'[rm, -f, "{pattern}"]'
    assert [r[:2] for r in remarks(tmp_path, f"command: {command}")] == [("no-shell", 5)]
    assert [r[:2] for r in remarks(tmp_path, check=command)] == [("no-shell", 9)]


@pytest.mark.parametrize(
    "command",
    ['[sh, -c, "echo hi > /x"]', "[A=b c, make]", '[find, /, -exec, ls, "{}", ";"]',
     '[sh, -c, "$HOME"]', '[find, /, -name, "*.txt"]', '[apt-get, remove, "foo.*"]',
     '[systemctl, stop, "a*.service"]', '[chmod, a=rx, /x]', '["/x>y", a]', "[x, '--a=*.b']",
     '[psql, -c, "a <b", "x => y", "<5", "->", "5%"]', '[printf, "%s?.", "a?b"]',
     '[test, a, ">", b]', '[grep, "|", /x]', '["/usr/bin/[", a, ">", b, "]"]'],
)  # fmt: skip
def test_what_is_meant_this_way_is_left_alone(tmp_path, command):
    assert remarks(tmp_path, f"command: {command}", command) == []


def test_a_script_of_several_lines_or_words_is_no_path(tmp_path):
    for script in (
        "script: /usr/bin/setup.sh",
        "script: a.sh b",
        "script: |\n      a.sh\n      b.sh",
    ):
        assert remarks(tmp_path, script) == []


TIMER = """\
name: test
base-image: tar:base.tar
stages:
  - type: services
    timers:
      - name: report
        on-calendar: daily
        command: {command}
  - type: qemu
"""


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ('[/usr/bin/df, ">", /x]', "no-shell"),
        ('["df --all"]', "bad-value"),
        ("[bin/df]", "bad-value"),
    ],
)
def test_the_command_of_a_timer_gets_the_same_hints(tmp_path, command, code):
    (tmp_path / "r.yml").write_text(TIMER.format(command=command))
    try:
        found = loading.load(tmp_path / "r.yml").notes
    except InvalidDocument as invalid:
        found = invalid.problems
    assert [(p.code, p.line) for p in found] == [(code, 8)]
