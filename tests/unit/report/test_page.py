import base64
import os
import re
from html.parser import HTMLParser

import jinja2
import pytest
from particle_agent.contract.inspection import Package
from particle_os.boot import files
from particle_os.boot.evidence import CONSOLE, SCREEN
from particle_os.boot.observation.verdict import CheckResult, Verdict
from particle_os.egress.record import HostReached, HostRefused, Hosts
from particle_os.errors import InfrastructureError, StageFailed
from particle_os.records import AptProxyResult
from particle_os.report import charts, page
from particle_os.report.results import ArtifactResult, HelperResult, Result, StageResult
from particle_os.sandbox.verification import FindingResult, Verification
from particle_os.vm.traffic import Reached, Traffic

HOSTILE = (
    "</pre></title></style><script>alert(1)</script>\"' onload=alert(1) x='"
    "<img src=http://example.org/x onerror=alert(1)>&#60;{{ 7 * 7 }}{% raw %}\x1b[31m\x00\u202e"
)
HARMLESS = "a word"
PICTURE = page.BEGINNINGS["png"] + bytes(range(256))
VOID = {"meta", "img", "rect", "br", "link", "input"}


def verdict(text, status="units-failed", firmware="bios"):
    return Verdict(
        status=status,
        firmware=firmware,
        seconds=12.5,
        message=text,
        phases={"firmware": 0.5, "kernel": 2.0, text: 7.0},
        checks=(
            CheckResult(name=text, passed=True, detail=text),
            CheckResult(name=text, passed=False, detail=text),
        ),
        facts={
            **dict.fromkeys(page.FACTS, f"{text}\n{text}"),
            "failed": text,
            f"journal:{text}": f"{text}\n{text}",
        },
        console_tail=(text, text),
    )


def traffic(text, **changes):
    reached = Reached(protocol=text, address=text, port=443, sent=2048, received=1 << 20)
    found = Traffic(names=(text, text), reached=(reached,) * 2, more_names=3, more_bytes=5 << 20)
    return found.model_copy(update=changes)


def hosts(text, reason):
    return Hosts(
        reached=(HostReached(host=text, port=443, requests=2, sent=1024, received=2048),),
        refused=(HostRefused(host=text, port=80, reason=reason, requests=7),),
        more_requests=5,
    )


def result(text, verdicts=(), **changes):
    helper = HelperResult(
        template=text, key=text, qemu=text, accelerator="tcg", acceleration_reason=text,
        security_note=text,
    )  # fmt: skip
    artifact = ArtifactResult(
        path=text, format="raw", bytes=5 << 30, virtual_bytes=5 << 30, allocated_bytes=7 << 20,
        sha256=text, tree_sha256=text,
    )  # fmt: skip
    stages = (
        StageResult(index=0, type=text, name=text, status="done", seconds=3.0, parts={text: 1.0}),
        StageResult(index=1, type=text, status="done", cached=True),
        StageResult(
            index=2, type=text, status="failed", network=traffic(text), hosts=hosts(text, text)
        ),
        StageResult(index=3, type=text, status="not-run"),
    )
    findings = (
        FindingResult(code=text, severity="error", place=text, message=text, accepted=True),
        FindingResult(code=text, severity="warning", place=text, message=text),
    )
    verification = Verification(seconds=1.0, findings=findings)
    found = Result(
        particle_os="0", status="passed", build_key=text, created=0.0, recipe=text,
        recipe_sha256=text, base=text, base_digest=text, architecture=text, helper=helper,
        apt_proxy=AptProxyResult(url=text, gone=False, hits=1, misses=2), stages=stages,
        verification=verification, artifacts=(artifact,), boot=tuple(verdicts),
        phases={"stages": 3.0, text: 1.0},
        controller_peak_rss_bytes=0, notes=(text,),
    )  # fmt: skip
    return found.model_copy(update=changes)


def full(text, evidence):
    """A page with `text` wherever a guest or a recipe can put any."""
    verdicts = [verdict(text), verdict(text, "passed", "uefi"), verdict(text, firmware="uefi")]
    return page.document(
        text,
        verdicts,
        result=result(text, verdicts),
        packages=[Package(name=text, version=text, architecture=text, size=3 << 20)] * 3,
        evidence={firmware: evidence / firmware for firmware in ("bios", "uefi")},
        failure=StageFailed(text, hint=text, where=text, tail=[text, text]),
        source=page.RecipeText(text, [text, text], evidence),
    )


class Page(HTMLParser):
    """Tags in their order, and attributes; every tag that is opened is closed in its turn."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.open = [], [], []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def evidence(tmp_path):
    """As a guest may have filled it; the console and the picture are what they are."""
    for firmware in ("bios", "uefi"):
        place = tmp_path / firmware
        place.mkdir()
        (place / SCREEN).write_bytes(PICTURE)
        (place / files.BLAME).write_text("    62.500s slow.service\n     0.678s quick.service\n")
        (place / files.PLOT).write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    return tmp_path


def test_what_a_guest_says_is_text_wherever_it_stands(evidence):
    hostile, harmless = Page(full(HOSTILE, evidence)), Page(full(HARMLESS, evidence))
    assert hostile.tags == harmless.tags
    assert [(t, n) for t, n, _ in hostile.attributes] == [(t, n) for t, n, _ in harmless.attributes]
    assert hostile.text.count("<script>alert(1)</script>") == harmless.text.count(HARMLESS) > 30
    assert "{{ 7 * 7 }}" in hostile.text


def test_no_character_does_anything_to_who_reads(evidence):
    text = full(HOSTILE, evidence)
    assert not re.search(
        r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]", text
    )
    assert "\\x1b[31m\\x00\\u202e" in text


def test_the_page_needs_nothing_from_elsewhere_and_runs_nothing(evidence):
    text = full(HARMLESS, evidence)
    found = Page(text)
    assert "script" not in found.tags
    assert not {"iframe", "object", "embed", "link", "base", "form"} & {*found.tags}
    assert not re.search(r"url\(|@import|https?:", text)
    for _, name, value in found.attributes:
        assert not name.startswith("on")
        if name == "href":
            assert value.startswith("./") and not re.search(r"[^\w./%-]", value)
        if name == "src":
            assert value.startswith(("data:image/png;base64,", "data:image/svg+xml;base64,"))
    policies = [v for t, n, v in found.attributes if (t, n) == ("meta", "content")]
    assert policies[0].startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:;")


def test_the_screen_is_in_the_page(evidence):
    sources = [v for t, n, v in Page(full(HARMLESS, evidence)).attributes if n == "src"]
    assert len(sources) == 6
    assert base64.b64decode(sources[0].partition(",")[2]) == PICTURE


@pytest.mark.parametrize(
    "data", [b"", b"GIF89a", b"<svg/>", page.BEGINNINGS["png"] + bytes(page.PICTURE_BYTES)]
)
def test_what_is_no_picture_or_too_large_is_left_out(tmp_path, data):
    path = tmp_path / "screen.png"
    assert page.picture(path, "png") is None
    path.write_bytes(data)
    assert page.picture(path, "png") is None


def test_the_size_is_bounded_whatever_the_guest_says(tmp_path):
    flood = "<&" * 1000
    lines = "\n".join([flood] * 300)
    verdicts = [
        Verdict(
            status="checks-failed",
            firmware=firmware,
            seconds=1.0,
            message=flood,
            phases={f"{n}{flood}": float(n) for n in range(1000)},
            checks=(CheckResult(name=flood, passed=False, detail=flood),) * 1000,
            facts={"system": lines, "journal:a.service": lines},
            console_tail=(flood,) * 1000,
        )
        for firmware in ("bios", "uefi", "uefi-secure")
    ]
    packages = [Package(name=flood, version=flood, architecture=flood, size=1)] * 10_000
    made = result(flood, verdicts, notes=(flood,) * 1000)
    text = page.document(flood, verdicts, result=made, packages=packages)
    assert len(text) < 20 << 20
    assert "10000 packages" in text


def test_an_ordinary_page_is_small(evidence):
    assert len(full(HARMLESS, evidence)) < 40_000


def test_nothing_at_all_is_a_page_too():
    text = Page(page.document("image.raw", [])).text
    assert "not tested" in text
    assert "image.raw" in text
    bare = Verdict(status="timed-out", seconds=0.0, message="")
    assert "timed-out" in Page(page.document("image.raw", [bare])).text
    empty = result("x", stages=(), artifacts=(), phases={}, notes=(), status="failed")
    assert "did not finish" in Page(page.document("x", [], result=empty)).text


def test_the_page_tells_what_each_stage_reached():
    reached = (
        Reached(protocol="tcp", address="10.0.2.2", port=8080, sent=2048, received=4096),
        Reached(protocol="icmp", address="198.51.100.7", port=None, sent=1024, received=0),
    )
    names = ("deb.example.org", "example.net")
    stages = [
        StageResult(index=0, type="apt", status="done", network=Traffic()),
        StageResult(
            index=1, type="run", status="done", network=Traffic(names=names, reached=reached)
        ),
    ]
    text = " ".join(Page(page.document("x", [], result=result("x", stages=stages))).text.split())
    assert "2. run Names: deb.example.org, example.net Address" in text
    assert "10.0.2.2 (the host itself)tcp 80802.0 KiB4.0 KiB" in text
    assert "198.51.100.7icmp1.0 KiB0.0 KiB" in text
    assert "Network" not in page.document("x", [], result=result("x", stages=stages[:1]))


def test_the_page_tells_what_each_stage_asked_its_proxy_for():
    asked = hosts("a.example", reason="not-listed")
    stages = [
        StageResult(index=0, type="apt", status="done", hosts=Hosts()),
        StageResult(index=1, type="run", status="done", hosts=asked),
    ]
    text = " ".join(Page(page.document("x", [], result=result("x", stages=stages))).text.split())
    assert "2. run Host" in text
    assert "a.example:44321.0 KiB2.0 KiB" in text
    assert "a.example:80 (not-listed)7" in text
    assert "And 5 requests for further hosts." in text
    assert 'id="hosts"' not in page.document("x", [], result=result("x", stages=stages[:1]))


def test_errors_in_the_disk_come_before_its_verdicts():
    findings = (
        FindingResult(code="fstab-device", severity="error", place="/etc/fstab", message="gone"),
    )
    made = result("x", verification=Verification(seconds=1.0, findings=findings))
    text = page.document("x", [], result=made)
    assert "<title>x: defective</title>" in text
    assert "/etc/fstab: gone" in text


def test_a_weak_verdict_looks_neither_good_nor_bad():
    text = page.document("x", [verdict("x", "console-only")])
    assert text.count('<span class="pill quiet">console-only</span>') == 2


def test_the_worst_verdict_is_the_images():
    good, bad = verdict("fine", "passed"), verdict("not fine", "kernel-panic", "uefi")
    title = re.search("<title>(.*)</title>", page.document("x", [good, bad]))
    assert title and title[1] == "x: kernel-panic"
    title = re.search("<title>(.*)</title>", page.document("x", [good]))
    assert title and title[1] == "x: passed"


def test_what_ended_the_build_is_told():
    error = InfrastructureError("the disk is full", hint="Make room.", tail=["cp: no space"])
    text = Page(page.document("x", [], result=result("x"), failure=error)).text
    for told in ("failed", "the disk is full", "Make room.", "cp: no space"):
        assert told in text


def test_the_phases_of_a_boot_follow_each_other_and_fill_its_time():
    bars = charts.waterfall(verdict("systemd"))
    assert [bar.label for bar in bars] == ["firmware", "kernel", "systemd"]
    assert [bar.value for bar in bars] == ["2.0 s", "5.0 s", "5.5 s"]
    assert [bar.start for bar in bars] == [0.0, 16.0, 56.0]
    assert bars[0].width == bars[1].start
    assert bars[-1].start + bars[-1].width == 100
    assert [bar.kind for bar in bars] == ["", "", "bad"]


@pytest.mark.parametrize("seconds", [-5.0, 0.0, 1e300, float("inf"), float("nan")])
def test_odd_times_stay_within_the_chart(seconds):
    odd = Verdict(
        status="passed", seconds=seconds, message="", phases={"kernel": 3.0, "systemd": 1.0}
    )
    for bar in charts.waterfall(odd):
        assert 0 <= bar.start <= 100
        assert 0 <= bar.width <= 100


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.04, "0.0 s"), (12.34, "12.3 s"), (99.96, "1 min 40 s"), (245, "4 min 5 s"),
     (3599.4, "59 min 59 s"), (3600, "1 h 0 min"), (7380, "2 h 3 min"), (-1, "?"),
     (366 * 86400, "?")],
)  # fmt: skip
def test_durations(seconds, told):
    assert charts.duration(seconds) == told


def luminance(colour):
    """WCAG 2.2, relative luminance."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


PAIRS = [("ink", "page"), ("ink", "card"), ("soft", "page"), ("soft", "card"), ("said", "screen")]
PAIRS += [(name, f"{name}-soft") for name in ("good", "bad", "quiet")] + [("bad", "card")]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(("text", "ground"), PAIRS)
def test_text_can_be_read_on_its_ground(scheme, text, ground):
    schemes = re.findall(r":root \{(.*?)\}", page.document("x", []), re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", schemes[scheme]))
    light, dark = sorted((luminance(colours[name]) for name in (text, ground)), reverse=True)
    # WCAG 2.2, 1.4.3.
    assert (light + 0.05) / (dark + 0.05) >= 4.5


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
    template = page._template().environment.from_string("{{ nothing }}")
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
