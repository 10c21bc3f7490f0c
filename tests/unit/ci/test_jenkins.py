"""The pipeline for Jenkins in docs/ci.md: its script, run as Jenkins runs it."""

import json
import re
import shutil
import signal

import pytest

from ...runners import jenkins, played
from ...runners.github import TOP
from ...waiting import until
from . import results

pytestmark = pytest.mark.slow

PAGE = (TOP / "docs/ci.md").read_text()
(PIPELINE,) = re.findall(r"```groovy\n(.*?)```", PAGE, re.DOTALL)
INSTALLED = "/opt/particle-os"


@pytest.fixture
def start(tmp_path):
    """Starts the script of the pipeline, for a build that ends in a given way."""
    played.install(tmp_path)
    shutil.copytree(tmp_path / "venv-to-be", tmp_path / "installed")
    (tmp_path / "workspace").mkdir()
    (script,) = jenkins.scripts(PIPELINE)
    assert INSTALLED in script
    script = script.replace(INSTALLED, str(tmp_path / "installed")).replace(
        "image.yml", "leaky.yml"
    )

    def started(ends):
        environment = {**played.environment(tmp_path, ends), "XDG_CACHE_HOME": str(tmp_path / "c")}
        return jenkins.start(script, tmp_path / "workspace", environment)

    return started


@pytest.mark.parametrize("ends", results.TABLE)
def test_exit_status_junit_and_result_agree(start, tmp_path, ends):
    status, cases, _, _, told = results.TABLE[ends]
    process = start(ends)
    log = process.communicate()[0]
    assert process.returncode == status, log
    output = tmp_path / "workspace/out"
    assert results.of_junit(output / "boot.xml") == cases
    (result,) = output.rglob("leaky.result.json")
    assert json.loads(result.read_text())["status"] == told
    assert results.left_behind(output, tmp_path / "c/particle-os") == []


def test_an_aborted_job_leaves_its_logs_and_nothing_else(start, tmp_path):
    process = start("wait")
    until((tmp_path / "started").exists)
    jenkins.signal_all(signal.SIGTERM)
    log = process.communicate()[0]
    # The shell ends first; Jenkins waits for the end of all processes.
    assert process.returncode in (-signal.SIGTERM, 128 + signal.SIGTERM)
    until(lambda: jenkins.processes() == [])
    assert "error: ended by SIGTERM" in log
    output = tmp_path / "workspace/out"
    assert results.of_junit(output / "boot.xml") == ["error"]
    assert (output / "leaky.failed/leaky.log").is_file()
    assert results.left_behind(output, tmp_path / "c/particle-os") == []
