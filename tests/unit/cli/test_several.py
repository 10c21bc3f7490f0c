"""The builds of several images that something ends: what all files say about each of them."""

import re
import signal

import pytest
from particle_os.cli.several import SeveralBuilds
from particle_os.errors import InfrastructureError, Interrupted, StageFailed
from particle_os.fleet.build_end import BuildEnd

from ..ci import results
from . import command_line


def ending(error):
    """An engine whose first build fails, and which an error ends while the second one runs."""

    def run(orders, view, ends, **options):
        first, second = orders
        ends[first.name] = BuildEnd(first, 3, 1.0, error=StageFailed("the stage failed"))
        view.began(second)
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (Interrupted(signal.SIGTERM), 143, "cancelled"),
        (InfrastructureError("the scheduler of the farm was lost"), 5, "infrastructure"),
        (OSError(28, "No space left on device"), 5, "infrastructure"),
    ],
)
def test_the_error_that_ends_all_builds_is_that_of_each_unfinished_one(
    monkeypatch, tmp_path, error, code, status
):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setattr(SeveralBuilds, "_farm", lambda several, on, lines: ending(error))
    for name in "ab":
        (tmp_path / f"{name}.yml").write_text(command_line.MINIMAL.replace("test", name))
    junit, markdown = tmp_path / "boot.xml", tmp_path / "summary.md"
    done = command_line.run(
        *("build", tmp_path / "a.yml", tmp_path / "b.yml", "--on", "local:1"),
        *("--output", tmp_path / "out", "--junit", junit, "--summary", markdown),
    )
    assert done.exit_code == code, done.output
    assert results.annotations(done.output) == ["error failed", f"error {status}"]
    assert results.of_junit(junit) == ["error", "error"]
    text = markdown.read_text()
    assert text.startswith(f"## 0 of 2 images are good: {status}\n")
    assert re.findall(r"^\| ([ab]) \| (.*?) \|", text, re.M) == [("a", "failed"), ("b", status)]
    page = (tmp_path / "out/particle-os.report.html").read_text()
    assert status in page and "b.failed" not in page
