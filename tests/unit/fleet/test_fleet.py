"""Several images are built by several processes; the tests play them with a script."""

import io
import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from particle_os.architecture import ARCHITECTURES
from particle_os.cli.build import build_command
from particle_os.cli.options import build_options
from particle_os.errors import InvalidDocument, UsageError
from particle_os.fleet import planning, running, summary, views
from particle_os.fleet.build_end import BuildEnd, worst
from particle_os.fleet.order import Order, arguments
from particle_os.jobs.plan import BuildOptions
from particle_os.jobs.planning import images
from rich.console import Console

from ...waiting import is_running, until
from ..report.pages import result, verdict

# Plays a build: the name of the order says how it ends.
BUILD = """\
import json, os, signal, sys, time
name, place = sys.argv[1:3]
def say(**event):
    print(json.dumps(event), file=sys.stderr, flush=True)
def mark(what):
    open(os.path.join(place, f"{what}-{name}"), "w").write(str(os.getpid()))
mark("began")
say(event="phase-started", phase="stages")
if name.startswith("hangs"):
    def end(number, frame):
        say(error="ended by SIGTERM", exit_code=143)
        os._exit(143)
    signal.signal(signal.SIGTERM, signal.SIG_IGN if "deaf" in name else end)
    mark("hangs")
    while True:
        time.sleep(60)
if name.startswith("garbage"):
    sys.stderr.write("no JSON\\n" + "x" * (3 << 20) + "\\n{\\n[1]\\n")
    sys.exit(0)
code = int(name[-1])
if code:
    say(error=f"it went wrong: {code}", hint="do better", log="/x/log", where=None, problems=[],
        command="particle-os shell x", tail=["the last line"], exit_code=code)
print(open(os.path.join(place, "result.json")).read() if code in (0, 4) else "")
mark("ended")
sys.exit(code)
"""


@pytest.fixture
def place(tmp_path):
    (tmp_path / "result.json").write_text(result("x", [verdict("x", "passed")]).model_dump_json())
    return tmp_path


@pytest.fixture
def order(place, monkeypatch):
    def command(self, *more):
        assert more == ("--json", "--progress", "json")
        return [sys.executable, "-c", BUILD, self.name, str(place)]

    monkeypatch.setattr(Order, "command", command)
    return lambda name, stem="": Order(name, Path("r.yml"), BuildOptions(), stem)


class Seen(views.Silent):
    def __init__(self):
        self.events, self.ends, self.most, self.now = [], [], 0, 0
        self.names = []

    def began(self, order):
        self.names.append(order.name)
        self.now += 1
        self.most = max(self.most, self.now)

    def event(self, order, event):
        self.events.append((order.name, event["event"]))

    def ended(self, end):
        self.now -= 1
        self.ends.append(end.order.name)


def run(orders, **options):
    seen, ends = Seen(), {}
    running.run(orders, seen, ends, **{"jobs": 2, **options})
    return seen, ends


def test_each_image_is_built_once_some_at_a_time(order):
    names = [f"image-{number}-0" for number in range(5)]
    seen, ends = run([order(name) for name in names])
    assert sorted(seen.ends) == names
    assert seen.most == 2
    assert {end.status for end in ends.values()} == {"passed"}
    assert seen.events == [(name, "phase-started") for name, _ in seen.events]


def test_a_failure_stops_no_other_build_and_the_worst_gives_the_exit_code(order):
    _, ends = run([order(f"image-{code}") for code in (3, 0, 4, 5, 2)])
    assert {name: end.exit_code for name, end in ends.items()} == {
        f"image-{code}": code for code in (3, 0, 4, 5, 2)
    }
    told = {end.order.name: end.error.brief for end in ends.values() if end.error}
    assert told["image-3"] == "it went wrong: 3"
    assert ends["image-3"].error.command == "particle-os shell x"
    assert ends["image-0"].error is None
    assert worst(list(ends.values())).exit_code == 5


@pytest.mark.parametrize(
    ("codes", "code"),
    [([0, 0], 0), ([0, 4], 4), ([4, 3], 3), ([3, 2], 2), ([2, 5], 5), ([5, 1], 1), ([1, 137], 137),
     ([None, 0], 0), ([None, 4], 4)],
)  # fmt: skip
def test_the_worst_exit_code(codes, code):
    order = Order("x", Path("x"), BuildOptions())
    assert worst([BuildEnd(order, each) for each in codes]).exit_code == code


def test_with_fail_fast_the_first_failure_ends_the_others(order, place):
    """The running build ends, and the waiting one never begins."""
    _, ends = run([order("hangs"), order("image-3"), order("image-0")], fail_fast=True)
    assert (ends["image-3"].exit_code, ends["hangs"].status) == (3, "cancelled")
    assert "image-0" not in ends
    assert not (place / "began-image-0").exists()
    assert worst(list(ends.values())).exit_code == 3


def test_a_build_that_says_nothing_useful_is_no_success(order):
    _, ends = run([order("garbage")])
    assert ends["garbage"].exit_code == 1
    assert "said no more" in ends["garbage"].error.brief


def test_a_build_that_does_not_end_is_killed(order, place, monkeypatch):
    monkeypatch.setattr(running, "END_SECONDS", 0.1)
    _, ends = run([order("hangs-deaf"), order("image-3")], fail_fast=True)
    assert ends["hangs-deaf"].status == "cancelled"
    assert not is_running(int((place / "hangs-hangs-deaf").read_text()))


PARENT = """\
import sys
from pathlib import Path
from particle_os.fleet import running, views
from particle_os.fleet.order import Order
from particle_os.jobs.plan import BuildOptions
from particle_os.jobs.planning import images
from rich.console import Console
from particle_os.system import interrupt
interrupt.install()
Order.command = lambda self, *more: [sys.executable, "-c", {build!r}, self.name, {place!r}]
running.run([Order("hangs", Path("r"), BuildOptions())], views.Silent(), {{}}, jobs=1)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_however_the_command_ends_its_builds_end(place, number):
    code = PARENT.format(build=BUILD, place=str(place))
    parent = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    mark = place / "hangs-hangs"
    child = int(until(lambda: mark.exists() and mark.read_text()))
    assert is_running(child)
    parent.send_signal(number)
    until(lambda: parent.poll() is not None)
    until(lambda: not is_running(child))


def test_the_summary_names_each_image_and_what_to_do(order, capsys):
    _, ends = run([order(f"image-{code}") for code in (0, 3)])
    found = [ends["image-0"], ends["image-3"], BuildEnd(order("late"), None)]
    shown = io.StringIO()
    summary.show(found, Console(file=shown, width=100))
    for text in ("image-0", "passed", "failed", "not-started", "do better", "| the last line"):
        assert text in shown.getvalue()
    data = summary.data(found)["images"]
    assert [(each["name"], each["status"], each["exit_code"]) for each in data] == [
        ("image-0", "passed", 0), ("image-3", "failed", 3), ("late", "not-started", None),
    ]  # fmt: skip
    junit = summary.junit(found).decode()
    assert junit.count("<testsuite ") >= 3
    assert '<error type="StageFailed" message="it went wrong: 3">' in junit
    assert 'message="the image was not built"' in junit
    assert summary.markdown(found).startswith("## 1 of 3 images are good: failed\n")
    page = summary.page(found)
    assert 'href="image-0.report.html"' in page
    assert 'href="image-3.failed/image-3.report.html"' in page
    assert "late.report.html" not in page


def test_texts_of_a_build_are_escaped_for_the_page_and_the_terminal(order):
    end = BuildEnd(order("a-0"), 3, error=UsageError("<b>\x1b[31m[red]::error::"))
    assert "<b>" not in summary.page([end])
    shown = io.StringIO()
    summary.show([end], Console(file=shown))
    assert "\x1b[31m[red]" not in shown.getvalue()
    stream = io.StringIO()
    views.PlainView(stream, verbose=True).event(
        end.order, {"event": "line", "text": "::error::\x1b"}
    )
    assert stream.getvalue().startswith("[a-0]") and "\x1b" not in stream.getvalue()


def test_events_of_all_builds_have_their_image(order):
    stream = io.StringIO()
    view = views.JsonView(stream)
    view.event(order("a-0"), {"event": "note", "text": "x"})
    view.ended(BuildEnd(order("a-0"), 0, 1.5))
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(each["event"], each["image"]) for each in events] == [
        ("note", "a-0"), ("image-finished", "a-0"),
    ]  # fmt: skip


OPTIONS = [
    BuildOptions(),
    BuildOptions(
        output_directory=Path("/o"), variables={"a": "1", "b": "x=,y"}, allow_outside=True,
        allow_env=("A", "B"), base="tar:/x.tar", accel="tcg", memory=3 << 30, cpus=3,
        scratch=5 << 30, boot_test=False, keep_on_failure=True, template="other",
        mirror="http://mirror.example.org/debian", apt_proxy="none", cache=False, refresh="apt",
        max_age=7200, source_date=5, network="none", plain=True, save_memory=False,
        cache_from=("file:///a", "file:///b"), cache_keys=(Path("/k"),), cache_to="file:///c",
        cache_sign=Path("/s"), architecture="arm64",
    ),
]  # fmt: skip


def given_on_input(monkeypatch, data):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))


@pytest.mark.parametrize("options", OPTIONS)
def test_the_arguments_of_a_build_stand_for_its_options(options, tmp_path, monkeypatch):
    """The command makes the same options of them, apart from absolute paths."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yml").write_text("name: r\nstages: [{type: qemu}]\n")
    given_on_input(monkeypatch, json.dumps(options.variables).encode())
    context = build_command.make_context("build", ["r.yml", *arguments(options)])
    given = dict(context.params)
    found = build_options(lambda options, **others: options)(**given)
    wanted = replace(options, output_directory=options.output_directory.absolute())
    assert found == wanted


@pytest.mark.parametrize("data", [
    b"", b"[]", b"{", b'{"a": 5}', b'{"a": {"canary": 1}}', b"[" * 100_000,
    b'{"a": "' + b"x" * (4 << 20) + b'"}',
])  # fmt: skip
def test_what_is_no_object_of_texts_on_the_input_is_refused(data, monkeypatch):
    given_on_input(monkeypatch, data)
    with pytest.raises(click.BadParameter, match="expected a JSON object") as caught:
        build_command.make_context("build", ["r.yml", "--set", "-"])
    assert "canary" not in str(caught.value)


def test_a_variable_on_the_input_and_on_the_command_line_is_refused(monkeypatch):
    given_on_input(monkeypatch, b'{"a": "canary"}')
    with pytest.raises(click.BadParameter, match="'a' is given twice"):
        build_command.make_context("build", ["r.yml", "--set", "a=1", "--set", "-"])


def test_all_options_of_a_build_differ_in_the_test():
    plain, full = (vars(options) for options in OPTIONS)
    assert [name for name in plain if plain[name] == full[name]] == []


RECIPE = """\
name: {name}
base-image: mmdebstrap:trixie
variables: {{kind: a}}
{more}
stages:
  - {{type: apt, packages: [linux-image-cloud-amd64, systemd-sysv, {package}]}}
  - {{type: hostname, hostname: "{name}"}}
  - {{type: qemu}}
"""


@pytest.fixture
def recipe(tmp_path):
    def write(name, more="", package="less"):
        path = tmp_path / f"{name.partition('-')[0]}.yml"
        path.write_text(RECIPE.format(name=name, more=more, package=package))
        return path

    return write


def planned(*recipes):
    return planning.orders(images(recipes, BuildOptions()))


def test_builds_of_one_stem_do_not_begin_together(order):
    seen, _ = run([order("a-0", "s"), order("b-0", "s"), order("c-0", "t")])
    assert seen.names == ["a-0", "c-0", "b-0"]


def test_images_with_other_beginnings_come_first(recipe):
    """Those with the same first stage wait for it anyway."""
    one = recipe("one-${kind}", "matrix: {kind: [a, b, c]}")
    two = recipe("two", package="vim")
    names = [order.name for order in planning.spread(planned(one, two), 2)]
    assert names == ["one-a", "two", "one-b", "one-c"]


def test_images_whose_last_build_took_longer_come_first(recipe, tmp_path):
    """An image without a readable result may take long, so it comes before them."""
    one = recipe("one", package="vim")
    two = recipe("two", package="less")
    three = recipe("three", package="nano")
    times = (("one", '{"phases": {"a": 5, "b": 1.5}}'), ("two", '{"phases": {"a": 7}}'))
    for name, text in (*times, ("three", "[")):
        (tmp_path / f"{name}.result.json").write_text(text)
    found = planning.orders(images([one, two, three], BuildOptions(output_directory=tmp_path)))
    assert [(order.name, order.seconds) for order in found] == [
        ("three", None), ("two", 7.0), ("one", 6.5),
    ]  # fmt: skip


def test_the_problems_of_all_recipes_are_told_before_any_build(recipe, tmp_path):
    (tmp_path / "bad.yml").write_text("name: bad\nstages: [{type: qemo}]\n")
    (tmp_path / "worse.yml").write_text("name: worse\nstages: [{type: apt, packages: 5}]\n")
    paths = [tmp_path / "bad.yml", recipe("good"), tmp_path / "worse.yml"]
    with pytest.raises(InvalidDocument) as caught:
        planned(*paths)
    assert {Path(problem.path).name for problem in caught.value.problems} == {
        "bad.yml", "worse.yml",
    }  # fmt: skip


def test_two_images_of_one_name_are_refused(recipe, tmp_path):
    same = recipe("same", "matrix: {kind: [a, b]}")
    with pytest.raises(UsageError, match="2 images have the name 'same'") as caught:
        planned(same)
    assert caught.value.hint == "Name the variable in it: 'name: same-${kind}'."
    other = tmp_path / "other.yml"
    other.write_text(recipe("one").read_text())
    with pytest.raises(UsageError, match=r"'one' is the name of an image of .*one.yml and of"):
        planned(recipe("one"), other)


@pytest.mark.parametrize(
    ("works", "mode", "architecture", "jobs"),
    [
        (True, "auto", "amd64", 8),
        (True, "auto", "arm64", 4),
        (True, "tcg", "amd64", 4),
        (False, "auto", "amd64", 4),
        (None, "auto", "amd64", 4),
        (None, "kvm", "amd64", 8),
    ],
)
def test_half_the_processors_build_unless_a_guest_has_run_under_kvm(
    monkeypatch, kvm_of, own_cache, works, mode, architecture, jobs
):
    kvm_of(own_cache, works)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: range(8))
    options = BuildOptions(accel=mode)
    order = Order("a", Path("r.yml"), options, architecture=architecture)
    assert planning.usual_jobs([order]) == jobs


def test_one_emulated_image_of_several_halves_the_builds(monkeypatch, kvm_of, own_cache):
    kvm_of(own_cache, True)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: range(8))
    orders = [
        Order(name, Path("r.yml"), BuildOptions(), architecture=name) for name in ARCHITECTURES
    ]
    assert planning.usual_jobs(orders) == 4
