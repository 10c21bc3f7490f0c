"""The parts of the page: stages, figures, evidence, next steps, waterfalls."""

import os
import re

import jinja2
import pytest
from particle_agent.contract.inspection import Package
from particle_os.boot import files
from particle_os.boot.evidence import CONSOLE, SCREEN
from particle_os.errors import InfrastructureError, StageFailed
from particle_os.report import charts, guidance, page, pages
from particle_os.report.results import StageResult

from .pages import HOSTILE, Page, result, verdict


def test_the_slowest_units_come_with_their_times():
    lines = ["    62.500s slow.service", "     0.678s quick.service", "nonsense", "", "5s a b"]
    bars = charts.slowest(lines)
    assert [(bar.label, bar.value, bar.width) for bar in bars] == [
        ("slow.service", "62.5 s", 100.0),
        ("quick.service", "0.7 s", 1.08),
    ]


def test_journal_console_and_packages_come_from_the_evidence(tmp_path):
    place = tmp_path / "bios"
    place.mkdir()
    (place / CONSOLE).write_bytes(b"\x1b[1mlogin: ")
    (place / files.JOURNAL).write_text(f"[ 1.0] kernel\n[ 2.0] {HOSTILE}\n")
    (place / files.PACKAGES).write_text("bash 5.2-1 amd64 7000\nodd\nbase 1 all \n")
    text = page.document("x.qcow2", [verdict("x", "passed")], evidence={"bios": place})
    found = Page(text)
    assert "login: " in found.text
    assert "[ 1.0] kernel" in found.text
    assert "<script>alert(1)</script>" in found.text
    assert "script" not in found.tags
    assert "2 packages" in found.text
    assert "6.8 MiB" in found.text


def test_the_chart_of_stages():
    stages = (
        StageResult(index=0, type="apt", name="tools", status="done", seconds=4.0),
        StageResult(index=1, type="run", status="done", cached=True),
        StageResult(index=2, type="users", status="failed", seconds=1.0),
        StageResult(index=3, type="qemu", status="not-run"),
    )
    assert charts.stages(result("x", stages=stages)) == [
        charts.Bar("1. tools (apt)", "4.0 s", 0.0, 100.0),
        charts.Bar("2. run", "cached", 0.0, 0.0),
        charts.Bar("3. users", "failed, 1.0 s", 0.0, 25.0, "bad"),
        charts.Bar("4. qemu", "not run", 0.0, 0.0),
    ]


def test_the_figures_at_the_top():
    made = result("x", phases={"stages": 3.0, "boot-test": 61.0})
    smaller = made.artifacts[0].model_copy(update={"allocated_bytes": 3 << 20})
    made = made.model_copy(update={"artifacts": (*made.artifacts, smaller)})
    packages = [Package(name="a", version="1", architecture="all")] * 2
    assert page._figures([verdict("x"), verdict("x", "passed", "uefi")], made, packages) == [
        ("boot, BIOS", "12.5 s"),
        ("boot, UEFI", "12.5 s"),
        ("checks hold", "2 of 4"),
        ("smallest image", "3 MiB"),
        ("packages", "2"),
        ("build", "64.0 s"),
    ]
    assert page._figures([], None, []) == []


def test_a_word_that_the_page_does_not_have_is_an_error():
    template = page.pages._environment().from_string("{{ nothing }}")
    with pytest.raises(jinja2.UndefinedError):
        template.render()


def test_the_largest_packages_come_first_and_empty_ones_not_at_all():
    packages = [
        Package(name=name, version="1", architecture="all", size=size << 20)
        for name, size in (("none", 0), ("small", 1), ("large", 4))
    ]
    assert charts.largest(packages) == [
        charts.Bar("large", "4 MiB", 0.0, 100.0),
        charts.Bar("small", "1 MiB", 0.0, 25.0),
    ]


def test_a_report_follows_no_link_and_waits_for_no_fifo(tmp_path):
    place = tmp_path / "bios"
    place.mkdir()
    (tmp_path / "private").write_text("the diary of the user")
    for name in (files.JOURNAL, CONSOLE, SCREEN):
        (place / name).symlink_to(tmp_path / "private")
    os.mkfifo(place / files.PACKAGES)
    text = page.document("x.qcow2", [verdict("x", "passed")], evidence={"bios": place})
    assert "diary" not in text


def test_a_picture_is_no_link(tmp_path):
    (tmp_path / "a.png").write_bytes(page.BEGINNINGS["png"])
    (tmp_path / "link.png").symlink_to("a.png")
    assert page.picture(tmp_path / "a.png", "png") is not None
    assert page.picture(tmp_path / "link.png", "png") is None


def failed(tmp_path, failure=None, status="failed", verdicts=(), **changes):
    """The page of a build of web.yml that failed, with a log and no other file of the build."""
    (tmp_path / "x.log").touch()
    made = result("x", verdicts, status=status, **changes)
    source = page.RecipeText("my recipes/web.yml", ["name: web"], tmp_path)
    places = {"bios": tmp_path / "bios"}
    text = page.document(
        "x", verdicts, result=made, failure=failure, source=source, evidence=places
    )
    return Page(text)


def test_a_failed_stage_comes_with_the_next_commands_and_its_files(tmp_path):
    error = StageFailed("apt-get failed", hint="Correct the package's name.")
    assert "--failed" not in failed(tmp_path, error).text
    error.command = "particle-os shell 'my recipes/web.yml' --failed"
    made = failed(tmp_path, error)
    assert "Correct the package's name." in made.text
    assert "particle-os shell 'my recipes/web.yml' --failed" in made.text
    assert "particle-os build 'my recipes/web.yml'" in made.text
    assert [v for t, n, v in made.attributes if n == "href"] == ["./x.log", "./x.result.json"]


def test_a_failure_of_the_host_leads_to_the_doctor(tmp_path):
    assert "particle-os doctor" in failed(tmp_path, InfrastructureError("no QEMU")).text


def test_an_image_that_did_not_boot_can_be_booted_by_hand(tmp_path):
    (tmp_path / "bios").mkdir()
    for name in (CONSOLE, "boot.sh"):
        (tmp_path / "bios" / name).touch()
    made = failed(tmp_path, None, "not-booted", [verdict("x")])
    assert "sh x.evidence/bios/boot.sh" in made.text
    assert [v for t, n, v in made.attributes if n == "href"] == [
        "./x.log",
        "./x.result.json",
        "./x.evidence/bios/console.log",
        "./x.evidence/bios/boot.sh",
    ]


def test_a_defective_disk_comes_with_a_way_out(tmp_path):
    assert "accepted-errors" in failed(tmp_path, None, "defective").text


def test_a_good_build_needs_no_next_step(tmp_path):
    made = failed(tmp_path, None, "passed", [verdict("x", "passed")])
    assert "What to do next" not in made.text
    assert "href" not in [name for _, name, _ in made.attributes]


def test_the_recipe_is_in_the_page_and_closed(tmp_path):
    text = failed(tmp_path).text
    assert "name: web" in text
    assert "my recipes/web.yml, with its variables" in text


def test_packages_are_closed_and_have_a_sum():
    packages = [Package(name=n, version="1", architecture="all", size=3 << 20) for n in "ab"]
    text = page.document("x", [], packages=packages)
    section = text[text.index('id="packages"') :]
    assert re.match(r'id="packages">\s*<details class="whole">\s*<summary>', section)
    assert "<h2>2 packages, 6 MiB</h2>" in section


def test_build_phases_are_a_waterfall():
    phases = {"start VM for the base": 2.0, "base image": 6.0, "stages": 2.0}
    starts = {"start VM for the base": 1.0, "base image": 0.0, "stages": 8.0}
    made = result("x", phases=phases, phase_starts=starts)
    assert charts.build_waterfall(made) == [
        charts.Bar("base image", "6.0 s", 0.0, 60.0),
        charts.Bar("start VM for the base", "2.0 s", 10.0, 20.0),
        charts.Bar("stages", "2.0 s", 80.0, 20.0),
    ]
    assert charts.build_seconds(made) == 10.0


def test_phases_without_starts_follow_each_other():
    made = result("x", phases={"a": 1.0, "b": 3.0})
    assert [(bar.start, bar.width) for bar in charts.build_waterfall(made)] == [
        (0.0, 25.0),
        (25.0, 75.0),
    ]


@pytest.mark.parametrize(
    ("text", "figures"),
    [
        (
            "Startup finished in 10.201s (kernel) + 1min 34.486s (userspace) = 1min 44.687s \n"
            "graphical.target reached after 15.370s in userspace.",
            [("kernel", "10.2 s"), ("userspace", "94.5 s"), ("in all", "1 min 45 s")],
        ),
        (
            "Startup finished in 500ms (kernel) + 1.5s (initrd) + 2s (userspace) = 4s",
            [("kernel", "0.5 s"), ("initrd", "1.5 s"), ("userspace", "2.0 s"), ("in all", "4.0 s")],
        ),
        ("Startup goes on.", []),
        ("9" * 5000 + "s (kernel)", []),
        ("", []),
    ],
)
def test_the_start_of_the_system_is_figures(text, figures):
    assert charts.startup(text) == figures


def test_figures_replace_the_text_that_they_come_from():
    timed = verdict("x").model_copy(
        update={"facts": {"boot-times": "Startup finished in 1s (kernel) + 2s (userspace) = 3s"}}
    )
    text = page.document("x", [timed])
    assert "Startup finished" not in text
    assert "<dt>userspace</dt><dd>2.0 s</dd>" in text
    raw = verdict("x").model_copy(update={"facts": {"boot-times": "Startup goes on"}})
    assert "Startup goes on" in page.document("x", [raw])


@pytest.mark.parametrize(
    ("no_cache", "text"), [(True, "none: built with --no-cache"), (False, "used where they fit")]
)
def test_the_page_says_whether_earlier_results_were_used(no_cache, text):
    found = page.document("x", [], result=result("x", no_cache=no_cache))
    assert f"<dt>Earlier results</dt><dd>{text}</dd>" in found


def test_a_page_begins_with_the_policy_that_forbids_scripts():
    assert pages.is_inert(page.document("x", [verdict("x")]).encode())
    late = b"<!DOCTYPE html><script></script>" + pages.POLICY.encode()
    assert not pages.is_inert(late)
    assert not pages.is_inert(pages.POLICY.replace("'none'", "*").encode())


@pytest.mark.parametrize(("step", "told"), [(None, True), ("fallback", True), ("upgrade", False)])
def test_only_a_boot_whose_disk_is_kept_can_be_repeated_by_hand(step, told):
    found = verdict("x").model_copy(update={"step": step})
    steps = guidance._after_a_boot(result("x"), [found])
    assert bool(steps) is told
