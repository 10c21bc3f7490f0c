"""GitHub's runner, as far as an action with `run` steps sees it (actions/runner).

A step with `run` becomes a file that `sh -e` runs in the workspace, with its `env` and the runner's
variables and files (src/Runner.Worker/Handlers). `if` and the expressions of the action are
evaluated. The actions for cache and artifacts are played, with tar and with files.

A job that is cancelled: the process of the step gets SIGINT, after 7.5 s SIGTERM, and after 2.5 s
more SIGKILL (src/Runner.Sdk/ProcessInvoker.cs). Then the steps with `always()` run. No signal comes
into a container: there the runner only ends its own `docker exec`.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

TOP = Path(__file__).parents[2]
CONTAINER = Path(__file__).with_name("container.py")
ACTION = yaml.safe_load((TOP / "action.yml").read_text())
EXPRESSION = re.compile(r"\$\{\{ ([a-z.-]+) \}\}")
FILES = ("GITHUB_ENV", "GITHUB_OUTPUT", "GITHUB_PATH", "GITHUB_STATE", "GITHUB_STEP_SUMMARY")

# Called with the process of the step; it ends the step as a runner does.
Cancel = Callable[[subprocess.Popen[bytes]], None]


@dataclass
class Ended:
    """A step that has ended: its outcome, exit status, outputs and time."""

    outcome: str
    status: int | None = None
    outputs: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass
class Runner:
    """A machine that runs jobs with the action. What is in `stored` outlives the machine."""

    directory: Path
    stored: Path
    environment: Mapping[str, str]
    # The command that confines a step.
    confined: tuple[str, ...] = (sys.executable, str(CONTAINER))
    # The directory of the action.
    action: Path = TOP
    steps: dict[str, Ended] = field(default_factory=dict)
    log: str = ""
    summary: str = ""

    def __post_init__(self) -> None:
        for place in (self.workspace, self.temp, self.artifact, self.stored):
            place.mkdir(parents=True, exist_ok=True)

    def retire(self, place: Path) -> None:
        """Moves the files of the machine away, so that another one can have its paths."""
        self.directory.rename(place)
        self.directory = place

    @property
    def workspace(self) -> Path:
        return self.directory / "work"

    @property
    def temp(self) -> Path:
        return self.directory / "temp"

    @property
    def artifact(self) -> Path:
        """The directory with the files of the artifact."""
        return self.directory / "artifact"

    def run(self, given: Mapping[str, str], cancel: Cancel | None = None) -> dict[str, str]:
        """Runs a job with the inputs `given`; returns the outputs of the action.

        `cancel` ends the step that builds.
        """
        unknown = set(given) - set(ACTION["inputs"])
        assert not unknown, unknown
        inputs = {name: str(i.get("default", "")) for name, i in ACTION["inputs"].items()}
        self._contexts: dict[str, str] = {
            "runner.temp": str(self.temp), "runner.os": "Linux", "runner.arch": "X64",
            **{f"inputs.{name}": value for name, value in {**inputs, **given}.items()},
        }  # fmt: skip
        for number, step in enumerate(ACTION["runs"]["steps"]):
            self._take(step, f"{number}", cancel if step.get("id") == "build" else None)
        return {name: self._filled(out["value"]) for name, out in ACTION["outputs"].items()}

    def outcome(self, name: str) -> str:
        """The outcome of the step with a name: success, failure, cancelled or skipped."""
        return self.steps[name].outcome

    def _take(self, step: dict[str, Any], number: str, cancel: Cancel | None) -> None:
        began = time.monotonic()
        if not self._wanted(step.get("if")):
            ended = Ended("skipped")
        elif "run" in step:
            ended = self._run(step, number, cancel)
        else:
            ended = self._play(step)
        ended.seconds = time.monotonic() - began
        self.steps[step["name"]] = ended
        if "id" in step:
            self._contexts[f"steps.{step['id']}.outcome"] = ended.outcome
            for name, value in ended.outputs.items():
                self._contexts[f"steps.{step['id']}.outputs.{name}"] = value

    def _wanted(self, condition: str | None) -> bool:
        """Whether a step runs; conditions without always() hold only while all goes well."""
        terms = (condition or "success()").split(" && ")
        well = all(s.outcome in ("success", "skipped") for s in self.steps.values())
        return all(map(self._holds, terms)) and ("always()" in terms or well)

    def _holds(self, term: str) -> bool:
        if term in ("always()", "success()"):
            return True
        if found := re.fullmatch(r"([a-z.-]+) (==|!=) '([^']*)'", term.strip()):
            return (self._value(found[1]) == found[3]) == (found[2] == "==")
        if found := re.fullmatch(r"!endsWith\(([a-z.-]+), ([a-z.-]+)\)", term.strip()):
            return not self._value(found[1]).endswith(self._value(found[2]))
        raise AssertionError(f"no such condition: {term}")

    def _value(self, name: str) -> str:
        # An output that is not there is empty, like that of a step that did not run.
        return self._contexts.get(name, "") if name.startswith("steps.") else self._contexts[name]

    def _filled(self, text: str) -> str:
        filled = EXPRESSION.sub(lambda found: self._value(found[1]), text)
        assert "${{" not in filled, filled
        return filled

    def _run(self, step: dict[str, Any], number: str, cancel: Cancel | None) -> Ended:
        assert step["shell"] == "sh"
        script = self.temp / f"{number}.sh"
        script.write_text(self._filled(step["run"]))
        files = {name: self.temp / f"{name}-{number}" for name in FILES}
        for file in files.values():
            file.touch()
        environment = {
            **self.environment,
            **{name: self._filled(str(value)) for name, value in step.get("env", {}).items()},
            **{name: str(path) for name, path in files.items()},
            "CI": "true", "GITHUB_ACTIONS": "true", "GITHUB_ACTION_PATH": str(self.action),
            "GITHUB_WORKSPACE": str(self.workspace), "RUNNER_TEMP": str(self.temp),
            "RUNNER_OS": "Linux", "RUNNER_ARCH": "X64",
        }  # fmt: skip
        log = self.temp / f"{number}.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [*self.confined, "sh", "-e", str(script)],
                cwd=self.workspace, env=environment, stdin=subprocess.DEVNULL,
                stdout=stream, stderr=stream,
            )  # fmt: skip
            if cancel is not None:
                cancel(process)
            # The process in a container goes on, and the runner does not wait for it.
            status = process.poll() if cancel is not None else process.wait()
        self.log += log.read_text()
        self.summary += files["GITHUB_STEP_SUMMARY"].read_text()
        lines = files["GITHUB_OUTPUT"].read_text().splitlines()
        outcome = "cancelled" if cancel else "success" if status == 0 else "failure"
        return Ended(outcome, status, dict(line.split("=", 1) for line in lines))

    def _play(self, step: dict[str, Any]) -> Ended:
        given = {name: self._filled(value) for name, value in step["with"].items()}
        match step["uses"].partition("@")[0]:
            case "actions/cache/restore":
                return Ended("success", None, self._restore(given["restore-keys"], given["path"]))
            case "actions/cache/save":
                self._save(given["key"], given["path"])
            case "actions/upload-artifact":
                self._upload(given["path"].split())
            case other:
                raise AssertionError(f"no such action: {other}")
        return Ended("success")

    def _caches(self, paths: str) -> Path:
        """The directory of the caches with these paths; a job finds no cache with other paths."""
        found = self.stored / hashlib.sha256(paths.encode()).hexdigest()[:16]
        found.mkdir(exist_ok=True)
        return found

    def _restore(self, prefix: str, paths: str) -> dict[str, str]:
        """The newest cache whose key begins so, as `tar -P` packs it."""
        caches = self._caches(paths).glob(f"{prefix}*")
        found = sorted(caches, key=lambda path: path.stat().st_mtime_ns)
        if not found:
            return {}
        subprocess.run(["tar", "-xPf", found[-1], "-C", self.workspace], check=True)
        return {"cache-matched-key": found[-1].name}

    def _save(self, key: str, paths: str) -> None:
        place = self._caches(paths) / key
        if place.exists():
            return
        there = [path for path in paths.split() if Path(path).exists()]
        argv = ["tar", "--posix", "-cPf", place, "-C", self.workspace, *there]
        subprocess.run(argv, check=True)

    def saved(self) -> list[str]:
        """The keys of all caches."""
        return sorted(path.name for path in self.stored.glob("*/*"))

    def _upload(self, patterns: list[str]) -> None:
        """Copies files and directories, without those that are hidden, as the action does."""
        for pattern in patterns:
            for path in self.workspace.glob(pattern.rstrip("/")):
                place = self.artifact / path.relative_to(self.workspace)
                place.parent.mkdir(parents=True, exist_ok=True)
                if path.is_dir():
                    hidden = shutil.ignore_patterns(".*")
                    shutil.copytree(path, place, dirs_exist_ok=True, ignore=hidden)
                else:
                    shutil.copyfile(path, place)

    def uploaded(self) -> set[str]:
        """The names of the files in the artifact."""
        return {str(p.relative_to(self.artifact)) for p in self.artifact.rglob("*") if p.is_file()}
