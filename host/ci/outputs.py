"""Prints the outputs of a CI job as lines NAME=VALUE, as the file GITHUB_OUTPUT takes them.

Its argument is the output directory of the build. `status` is that of NAME.result.json; `unknown`
without a result. `image` is the first image, `report` the page for people, and `directory` the
place of both: that of NAME.failed for an image that is not published.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

LIMIT = 64 << 20


def outputs(directory: Path) -> dict[str, str]:
    """The outputs of the newest build in a directory."""
    found = [*directory.glob("*.result.json"), *directory.glob("*.failed/*.result.json")]
    results = [path for path in found if path.is_file() and path.stat().st_size < LIMIT]
    if not results:
        return {"status": "unknown", "image": "", "report": "", "directory": ""}
    path = max(results, key=lambda path: path.stat().st_mtime_ns)
    result = json.loads(path.read_text())
    report = path.with_name(path.name.removesuffix(".result.json") + ".report.html")
    image = next((artifact["path"] for artifact in result["artifacts"]), None)
    there = image is not None and (path.parent / image).is_file()
    return {
        "status": result["status"],
        "image": str(path.parent / image) if there else "",
        "report": str(report) if report.is_file() else "",
        "directory": str(path.parent),
    }


def main() -> None:
    for name, value in outputs(Path(sys.argv[1])).items():
        # A line break would begin another output.
        sys.stdout.write(f"{name}={''.join(c for c in value if c.isprintable())}\n")


if __name__ == "__main__":
    main()
