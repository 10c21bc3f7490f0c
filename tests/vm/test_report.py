"""Checks the report in a browser, with the window of a phone and of a desktop."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.report.test_page import HOSTILE, full
from tests.vm.conftest import CONFINE, Account, Outcome

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


def seen(account: Account, text: str, width: int) -> Any:
    """The findings of the page's script, in a browser of the ordinary user."""
    page = account.write(account.directory / "looking.html", LOOKING % (width, html.escape(text)))
    profile = account.make_directory("chromium")
    confined = [sys.executable, str(CONFINE), str(account.uid), str(account.gid)]
    done = subprocess.run(
        [*confined, *CHROMIUM, f"--user-data-dir={profile}", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        env=account.environment,
        cwd=account.directory,
    )
    found = re.search(r"</iframe>\s*<pre>(\{.*\})</pre>", done.stdout)
    assert found, (done.stdout[-500:], done.stderr[-2000:])
    return json.loads(html.unescape(found[1]))


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
