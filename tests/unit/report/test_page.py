import base64
import re

import pytest
from particle_agent.contract.inspection import Package
from particle_os.boot.observation.verdict import CheckResult, Verdict
from particle_os.egress.record import Hosts
from particle_os.errors import InfrastructureError
from particle_os.report import charts, page
from particle_os.report.results import ArtifactResult, StageResult
from particle_os.sandbox.verification import FindingResult, Verification
from particle_os.vm.traffic import Reached, Traffic

from .pages import HARMLESS, HOSTILE, PICTURE, Page, full, hosts, result, verdict


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


def test_only_images_count_as_images():
    sizes = {"raw": 5 << 20, "ostree-repository": 3 << 20, "gpg-key": 0, "ostree-delta": 1 << 20}
    artifacts = tuple(
        ArtifactResult(
            path=kind, format=kind, bytes=size, virtual_bytes=size, allocated_bytes=size,
            sha256="", tree_sha256="",
        )
        for kind, size in sizes.items()
    )  # fmt: skip
    made = result("x", artifacts=artifacts)
    assert dict(page._figures((), made, ()))["smallest image"] == "5 MiB"
    alone = result("x", artifacts=artifacts[1:])
    assert "smallest image" not in dict(page._figures((), alone, ()))
    text = Page(page.document("x", (), result=made)).text
    assert text.count("MiB disk") == 1


def test_each_boot_of_the_test_of_an_update_has_its_name():
    steps = [verdict("x").model_copy(update={"step": step}) for step in (None, "upgrade")]
    figures = dict(page._figures(steps, None, ()))
    assert {"boot, BIOS", "boot, BIOS (upgrade)"} <= figures.keys()
    assert [each.machine for each in steps] == ["bios", "bios-upgrade"]
    assert "BIOS (upgrade)" in Page(page.document("x", steps)).text


@pytest.mark.parametrize("signature", ["good", "not-checked", "none", None])
def test_the_signature_of_a_commit_as_the_base_is_shown(signature):
    found = Page(page.document("x", [], result=result("x", base_signature=signature)))
    assert ("Signature of the base" in found.text) == (signature is not None)
    assert signature is None or f"Signature of the base{signature}" in found.text
