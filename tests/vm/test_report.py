"""Checks the report in a browser, with the window of a phone and of a desktop."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
import zlib
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from tests.unit.report.test_page import HOSTILE, full
from tests.vm.conftest import CONFINE, Account, Outcome
from tests.waiting import HANG_SECONDS

Built = tuple[Outcome, Path]

CHROMIUM = """chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run
--disable-background-networking --disable-component-update --disable-sync
--disable-dev-shm-usage --dump-dom --timeout=20000 --window-size=1400,1000""".split()
WIDTHS = {"phone": 390, "small-phone": 320, "desk": 1280}
# The report runs no script, so it is a frame of a page whose script inspects it.
LOOKING = """<!DOCTYPE html>
<meta charset="utf-8">
<iframe width="%d" height="800" style="border: 0" srcdoc="%s"></iframe>
<pre></pre>
<script>
onload = () => {
  const frame = document.querySelector("iframe").contentWindow;
  const inside = frame.document;
  inside.querySelectorAll("details").forEach((e) => { e.open = true; });
  const room = inside.documentElement.clientWidth;
  const outside = [...inside.querySelectorAll("main *")].filter(
    (e) => e.getBoundingClientRect().right > room + 0.5);
  const parts = [...inside.querySelectorAll("header, section, h2, .bar, pre, footer")];
  document.querySelector("pre").textContent = JSON.stringify({
    title: inside.title,
    width: frame.innerWidth,
    overflow: inside.documentElement.scrollWidth - room,
    outside: outside.map((e) => e.tagName + "." + e.className),
    unseen: parts.filter((e) => e.clientWidth === 0 || e.clientHeight === 0).length,
    parts: parts.length,
    images: [...inside.images].map((i) => [i.complete, i.naturalWidth, i.clientWidth]),
    loaded: frame.performance.getEntriesByType("resource").map((e) => e.name.slice(0, 30)),
    ran: frame.ran === true,
  });
};
</script>
"""
# The axe of Deque Systems, in the frame itself: the page has no script, and its policy allows none.
AXE = files("axe_core_python").joinpath("axe.min.js")
EXAMINING = """<script>%s</script>
<script>
onload = async () => {
  document.querySelectorAll("details").forEach((e) => { e.open = true; });
  const found = await axe.run(document, {resultTypes: ["violations"]});
  parent.document.querySelector("pre").textContent = JSON.stringify({
    dark: matchMedia("(prefers-color-scheme: dark)").matches,
    width: innerWidth,
    passes: found.passes.length,
    violations: found.violations.map((v) => [v.id, v.nodes.map((n) => n.html.slice(0, 200))]),
  });
};
</script>
"""
FRAME = """<!DOCTYPE html>
<meta charset="utf-8">
<iframe width="%d" height="800" style="border: 0" srcdoc="%s"></iframe>
<pre></pre>
"""
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
# The order of Blink's enumeration PreferredColorScheme.
SCHEMES = {"dark": 0, "light": 1}


def seen(account: Account, text: str, width: int) -> Any:
    """The findings of the page's script, in a browser of the ordinary user."""
    return printed(browse(account, LOOKING % (width, html.escape(text))))


def browse(account: Account, text: str, *options: str) -> str:
    """The standard output of a browser that has opened a page."""
    page = account.write(account.directory / "looking.html", text)
    profile = account.make_directory("chromium")
    confined = [sys.executable, str(CONFINE), str(account.uid), str(account.gid)]
    done = subprocess.run(
        [*confined, *CHROMIUM, *options, f"--user-data-dir={profile}", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        env=account.environment,
        cwd=account.directory,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def printed(output: str) -> Any:
    found = re.search(r"</iframe>\s*<pre>(\{.*\})</pre>", output, re.DOTALL)
    assert found, output[-500:]
    return json.loads(html.unescape(found[1]))


def examined(account: Account, text: str, width: int, scheme: str) -> Any:
    """The findings of axe in a page, with all of its parts open."""
    assert POLICY.search(text)
    script = EXAMINING % AXE.read_text(encoding="utf-8").replace("</script>", "<\\/script>")
    inner = html.escape(POLICY.sub("", text) + script)
    option = f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}"
    waiting = "--virtual-time-budget=60000"
    found = printed(browse(account, FRAME % (width, inner), option, waiting))
    assert found["dark"] == (scheme == "dark")
    assert found["width"] == width
    return found


def pdf_pages(data: bytes) -> list[bytes]:
    """The content of each page of a PDF file of Chromium, whose objects lie open in the file."""
    objects = {
        int(number): body
        for number, body in re.findall(
            rb"^(\d+) 0 obj\n(.*?)\nendobj", data, re.DOTALL | re.MULTILINE
        )
    }
    kids = next(
        re.findall(rb"(\d+) 0 R", re.search(rb"/Kids \[(.*?)\]", b)[1])  # type: ignore[index]
        for b in objects.values()
        if b"/Type /Pages" in b and b"/Kids" in b
    )
    found = []
    for kid in kids:
        contents = re.search(rb"/Contents (\d+) 0 R", objects[int(kid)])
        assert contents
        stream = objects[int(contents[1])].partition(b"stream\n")[2].rpartition(b"\nendstream")[0]
        found.append(zlib.decompress(stream))
    return found


def check(found: Any, width: int) -> None:
    assert found["width"] == width
    assert found["overflow"] == 0
    assert found["outside"] == []
    assert found["unseen"] == 0
    assert found["parts"] > 20
    assert [name for name in found["loaded"] if not name.startswith("data:")] == []
    assert not found["ran"]


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_the_report_of_a_build_fits(account: Account, built: Built, width: int) -> None:
    text = (built[1] / "minimal-test.report.html").read_text()
    found = seen(account, text, width)
    check(found, width)
    assert found["title"] == "minimal-test: passed"
    # The first image is the screen of QEMU's VGA, shown as wide as the window allows.
    (complete, natural, shown), *others = found["images"]
    assert complete and natural >= 640 and 200 < shown <= min(natural, width)
    assert others == []


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_a_hostile_guest_gets_nothing(account: Account, tmp_path: Path, width: int) -> None:
    text = HOSTILE.replace("alert(1)", "ran=true") + "x" * 300
    found = seen(account, full(text, tmp_path), width)
    check(found, width)
    assert found["title"].startswith("</pre></title></style><script>")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_nothing(
    account: Account, built: Built, tmp_path: Path, width: int, scheme: str
) -> None:
    pages = [(built[1] / "minimal-test.report.html").read_text(), full("some text", tmp_path)]
    for text in pages:
        found = examined(account, text, width, scheme)
        assert found["violations"] == []
        assert found["passes"] > 15


def test_axe_finds_what_is_wrong(account: Account, tmp_path: Path) -> None:
    text = full("some text", tmp_path).replace('<html lang="en">', "<html>")
    found = examined(account, text.replace("--soft: #5c666e", "--soft: #bbbbbb"), 390, "light")
    assert {"html-has-lang", "color-contrast"} <= {name for name, _ in found["violations"]}


def printed_pages(account: Account, text: str) -> list[bytes]:
    file = account.directory / "report.pdf"
    browse(account, text, f"--print-to-pdf={file}")
    return pdf_pages(file.read_bytes())


def texts(page: bytes) -> int:
    """The number of texts of a page: each begins with a matrix of its own."""
    return len(re.findall(rb" Tm\b", page))


def test_the_printed_report_begins_on_its_first_page(account: Account, built: Built) -> None:
    text = (built[1] / "minimal-test.report.html").read_text()
    pages = printed_pages(account, text)
    whole = text.replace("@media print {", "@media print { .card { break-inside: avoid; }", 1)
    assert whole != text
    assert texts(pages[0]) > texts(printed_pages(account, whole)[0]) + 10
    pictures = [name for page in pages for name in set(re.findall(rb"/(X\d+) Do", page))]
    assert pictures and len(pictures) == len(set(pictures)), "no picture lies on two pages"
