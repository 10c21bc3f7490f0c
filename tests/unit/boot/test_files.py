import base64
import subprocess
from importlib import resources
from types import SimpleNamespace
from xml.etree import ElementTree as ET

import pytest
from particle_os.boot import files, plot
from particle_os.system.gate import Gate
from particle_os.vm.console import QemuEnded

from ...waiting import HANG_SECONDS

NONCE = "0123456789abcdef"
# A plot in the form of `systemd-analyze plot`.
PLOT = """<?xml version="1.0" standalone="no"?>
<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd">
<svg width="880px" height="250px" version="1.1" xmlns="http://www.w3.org/2000/svg">
<!-- a comment -->
<defs><style type="text/css"><![CDATA[ rect { fill: red } ]]></style></defs>
<rect class="background" width="100%" height="100%" />
<text x="20" y="50">Startup finished in 2.5s</text>
<g transform="translate(20.000,100)">
  <line class="sec5" x1="0.000" y1="0" x2="0.000" y2="80.000" />
  <g>
    <rect class="activating" x="-3.000" y="20.000" width="38.625" height="19.000" />
    <text class="left" x="5.000" y="34.000">ssh.service (386ms)</text>
  </g>
</g>
</svg>
"""


def line(name, content):
    return f"file:{name} {base64.b64encode(content).decode()}"


def answer(*lines, nonce=NONCE, whole=True):
    last = [files.last_marker(nonce).decode()] if whole else []
    text = "\r\n".join(["files", files.first_marker(nonce).decode(), *lines, *last, ""])
    return text.encode()


def test_files_are_written_safe_to_look_at(tmp_path):
    journal = b"one\n\x1b[31mred\x07 \xff \xe2\x80\xae\n" + b"x" * 5000
    data = answer(line("journal.txt", journal), line("plot.svg", PLOT.encode()))
    files.write(data, NONCE, tmp_path, Gate())
    one, red, long = (tmp_path / "journal.txt").read_text().split("\n")
    assert (one, red) == ("one", "\\x1b[31mred\\x07 \ufffd \\u202e")
    assert len(long) == files.LINE_CHARACTERS
    assert "ssh.service" in (tmp_path / "plot.svg").read_text()


def test_a_file_in_another_encoding_is_passed_over(tmp_path):
    good = line("journal.txt", b"content")
    files.write(answer(good[:-8] + "!" + good[-8:]), NONCE, tmp_path, Gate())
    assert list(tmp_path.iterdir()) == []
    files.write(answer(good), NONCE, tmp_path, Gate())
    assert (tmp_path / "journal.txt").read_text() == "content"


@pytest.mark.parametrize(
    "name",
    ["../x", "/etc/x", "screen.png", "boot.sh", "console.log", "blame.txt", "", "a/journal.txt"],
)
def test_only_known_files_are_written(tmp_path, name):
    files.write(answer(line(name, b"content")), NONCE, tmp_path, Gate())
    assert list(tmp_path.iterdir()) == []


def test_files_of_another_run_and_before_the_answer_are_not_believed(tmp_path):
    before = f"{line('journal.txt', b'fake')}\r\n".encode()
    files.write(before + answer(line("journal.txt", b"x"), nonce="f" * 16), NONCE, tmp_path, Gate())
    assert list(tmp_path.iterdir()) == []


def test_what_came_in_time_is_kept_and_half_a_line_is_not(tmp_path):
    data = answer(line("packages.txt", b"a 1"), line("journal.txt", b"x" * 99), whole=False)
    files.write(data[:-20], NONCE, tmp_path, Gate())
    assert [path.name for path in tmp_path.iterdir()] == ["packages.txt"]


def test_noise_is_passed_over(tmp_path):
    data = answer("file:journal.txt %%%", "noise", "file:", line("packages.txt", b"a 1"))
    files.write(data.replace(b"noise", b"\xff\xfe"), NONCE, tmp_path, Gate())
    assert [path.name for path in tmp_path.iterdir()] == ["packages.txt"]


class Guest:
    """A probe that sends a piece of its answer at each read of the console."""

    def __init__(self, pieces, end=None):
        self.data, self.asked = answer(whole=False), []
        self._pieces, self._end = list(pieces), end
        self.console = self

    def send(self, data):
        self.asked.append(data)

    def read(self, seconds):
        if self._pieces:
            self.data += self._pieces.pop(0)
        elif self._end is not None:
            raise self._end
        else:
            self.clock.sleep(seconds)
        return b""


@pytest.fixture
def fetch(tmp_path, monkeypatch, clock):
    """Fetches the files with a deadline of a minute; the clock jumps when the guest is silent."""
    monkeypatch.setattr(files, "time", clock)

    def fetch(guest, with_plot=False):
        guest.clock = clock
        machine = SimpleNamespace(console=guest)
        files.fetch(
            machine, guest, NONCE, tmp_path, Gate(), clock.deadline(60), with_plot=with_plot
        )

    return fetch


@pytest.mark.parametrize(("with_plot", "order"), [(False, b"files\n"), (True, b"files plot\n")])
def test_the_probe_is_asked_and_waited_for(fetch, tmp_path, with_plot, order):
    whole = answer(line("journal.txt", b"all of it")).partition(b"files\r\n")[2]
    guest = Guest([whole[:10], whole[10:]])
    fetch(guest, with_plot=with_plot)
    assert guest.asked == [order]
    assert (tmp_path / "journal.txt").read_text() == "all of it"


@pytest.mark.parametrize("end", [None, QemuEnded(0, [])])
def test_a_guest_that_falls_silent_or_ends_is_no_failure(fetch, tmp_path, end):
    fetch(Guest([f"{line('packages.txt', b'x')}\r\n".encode()], end))
    assert (tmp_path / "packages.txt").read_text() == "x"


def test_the_output_of_tests_is_kept_safe_to_look_at(tmp_path):
    files.keep_tests(tmp_path / "none.txt", tmp_path, Gate())
    assert list(tmp_path.iterdir()) == []
    output = tmp_path / "output"
    output.write_bytes(b"FAILED \x1b[31m it says token-value\n" + b"x" * files.FILE_BYTES)
    files.keep_tests(output, tmp_path, Gate([b"token-value"]))
    text = (tmp_path / "pytest.txt").read_text()
    assert text.startswith("FAILED \\x1b[31m it says ***\nxxx")
    assert len(text) < 2000


def test_the_probe_hands_over_what_the_host_reads(tmp_path):
    """Runs the script's own function in a real shell, with stand-ins for the guest's programs."""
    script = resources.files("particle_os.boot").joinpath("probe.sh").read_text()
    functions = script.partition('echo "PARTICLE-OS-PROBE $1"')[0].replace("exec >/dev/ttyS1", "")
    programs = tmp_path / "bin"
    programs.mkdir()
    (tmp_path / "plot").write_text(
        PLOT.replace("<g>", "<g>\n<title>ssh.service:\nAfter:\n  x</title>")
    )
    outputs = {
        "systemd-analyze": f"cat {tmp_path}/$1",
        "dpkg-query": "yes | head -c 3000000",
        "journalctl": "exit 1",
    }
    for name, body in outputs.items():
        (programs / name).write_text(f"#!/bin/sh\n{body}\n")
        (programs / name).chmod(0o755)
    text = f"{functions}\nfiles {NONCE} plot"
    done = subprocess.run(
        ["sh", "-c", text], env={"PATH": f"{programs}:/usr/bin:/bin"}, capture_output=True,
        timeout=HANG_SECONDS,
    )  # fmt: skip
    files.write(done.stdout, NONCE, tmp_path, Gate())
    assert (tmp_path / "blame.txt").read_text() == "     0.386s ssh.service\n"
    assert (tmp_path / "packages.txt").stat().st_size <= files.FILE_BYTES
    assert not (tmp_path / "journal.txt").exists()
    assert "ssh.service (386ms)" in (tmp_path / "plot.svg").read_text()
    assert b"After" not in base64.b64decode(done.stdout.partition(b"plot.svg ")[2].split()[0])


def test_a_plot_keeps_its_shapes_and_words():
    top = ET.fromstring(plot.redrawn(PLOT.encode()))
    space = f"{{{plot.SVG}}}"
    assert [e.tag.removeprefix(space) for e in top.iter()] == [
        "svg", "style", "rect", "text", "g", "line", "g", "rect", "text",
    ]  # fmt: skip
    assert top.attrib == {"width": "880px", "height": "250px"}
    assert [e.text for e in top.iter(f"{space}text")] == [
        "Startup finished in 2.5s",
        "ssh.service (386ms)",
    ]
    assert top.find(f".//{space}rect[@class='activating']").attrib == {
        "class": "activating", "x": "-3.000", "y": "20.000", "width": "38.625", "height": "19.000",
    }  # fmt: skip
    assert top.find(f"{space}g").attrib == {"transform": "translate(20.000,100)"}
    assert "red" not in top.find(f"{space}style").text


def test_the_plot_of_a_slow_boot_is_squeezed():
    labels = "".join(f'<text class="sec" x="{s}00.000">{s}.0s</text>' for s in range(80))
    wide = PLOT.replace("880px", "8000px").replace("</svg>", f"{labels}</svg>")
    top = ET.fromstring(plot.redrawn(wide.encode()))
    space = f"{{{plot.SVG}}}"
    assert top.attrib == {"width": "1600.000", "height": "250px"}
    bar = top.find(f".//{space}rect[@class='activating']")
    assert (bar.get("x"), bar.get("width"), bar.get("height")) == ("-0.600", "7.725", "19.000")
    assert top.find(f"{space}rect").get("width") == "100%"
    found = [(e.text, e.get("x")) for e in top.iter(f"{space}text") if e.get("class") == "sec"]
    assert found == [(f"{s}.0s", f"{s * 20}.000") for s in range(0, 80, 5)]


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [("386ms", 0.386), ("12.345s", 12.345), ("1min 2.345s", 62.345), ("1h 2min 3s", 3723.0),
     ("2min", 120.0)],
)  # fmt: skip
def test_a_plot_tells_how_long_units_took(duration, seconds):
    drawn = plot.redrawn(PLOT.replace("386ms", duration).encode())
    assert plot.unit_times(drawn) == [("ssh.service", pytest.approx(seconds))]


def test_units_are_listed_from_the_slowest(tmp_path):
    more = "<text>slow.service (1min 1ms)</text><text>kernel</text></svg>"
    picture = PLOT.replace("</svg>", more).encode()
    files.write(answer(line("plot.svg", picture)), NONCE, tmp_path, Gate())
    assert (tmp_path / "blame.txt").read_text() == (
        "    60.001s slow.service\n     0.386s ssh.service\n"
    )


@pytest.mark.parametrize(
    "part",
    [
        "<script>alert(1)</script>",
        "<a href='http://example.org/'><text>x</text></a>",
        "<image href='http://example.org/x.png'/>",
        "<use href='http://example.org/x.svg#a'/>",
        "<foreignObject><body xmlns='http://www.w3.org/1999/xhtml'>x</body></foreignObject>",
        "<style>@import 'http://example.org/x.css';</style>",
        "<set attributeName='href' to='javascript:alert(1)'/>",
        "<text onclick='alert(1)'>x</text>",
        "<rect style='fill: url(http://example.org/x)'/>",
        "<rect x='calc(1px)' class='A\"' transform='url(#x)' fill='url(#x)'/>",
        "<h:script xmlns:h='http://www.w3.org/1999/xhtml'>alert(1)</h:script>",
    ],
)
def test_nothing_in_a_plot_runs_or_loads(part):
    found = plot.redrawn(PLOT.replace("</svg>", f"{part}</svg>").encode())
    assert found is not None
    own = found.replace(plot.SVG, "")
    for word in ("script", "href", "http", "onclick", "import", "url", "calc", "fore", "set "):
        assert word not in own


def test_words_in_a_plot_stay_words():
    odd = "a&lt;script&gt;\u202eb" + "x" * 1000
    top = ET.fromstring(plot.redrawn(PLOT.replace("ssh.service", odd).encode()))
    text = top.findall(f".//{{{plot.SVG}}}text")[-1].text
    assert text.startswith("a<script>\\u202ebxxx")
    assert len(text) < plot.CHARACTERS + 10


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"not XML",
        b"<svg/>",
        b"<html xmlns='http://www.w3.org/1999/xhtml'/>",
        PLOT.encode("utf-16"),
        PLOT.replace("</svg>", "").encode(),
        PLOT.replace("<svg", "<!DOCTYPE svg [<!ATTLIST g a CDATA 'A'>]><svg", 1).encode(),
        PLOT.replace(
            '"http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd">',
            '"x" [<!ATTLIST g a CDATA "A">]>',
        ).encode(),
        PLOT.replace(
            '"http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd">', '"x" [<!ENTITY a "b">]>'
        ).encode(),
    ],
)
def test_what_is_no_plot_is_left_out(data):
    assert plot.redrawn(data) is None


def test_a_plot_is_bounded():
    deep = "<g>" * 3000 + "</g>" * 3000
    wide = "<rect/>" * (plot.SHAPES + 1000)
    found = plot.redrawn(PLOT.replace("</svg>", f"{deep}{wide}</svg>").encode())
    assert found is not None
    assert found.count("<g") < 20
    assert plot.SHAPES - 100 < found.count("<rect") <= plot.SHAPES
