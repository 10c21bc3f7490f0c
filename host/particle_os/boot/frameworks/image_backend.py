"""testinfra's connection to a booted image; testinfra imports it in the process of pytest."""

from __future__ import annotations

import base64
from typing import Any

from testinfra.backend.base import BaseBackend, CommandResult  # type: ignore[import-untyped]

from particle_os.boot.frameworks.boot_test_link import link


class ImageBackend(BaseBackend):  # type: ignore[misc]
    """Runs testinfra's commands in the image."""

    NAME = "particle-os"

    def get_pytest_id(self) -> str:
        return "image"

    def run(self, command: str, *args: str, **kwargs: Any) -> CommandResult:
        words = self.encode(self.get_command(command, *args))
        done = link().run(words)
        out, err = (base64.b64decode(done[name]) for name in ("out", "err"))
        return self.result(done["status"], words, out, err)
