"""Types of values that both recipes and the command line take."""

from __future__ import annotations

from typing import Annotated

from particle_agent.contract.options import Text

from particle_os.architecture import (
    ARCHITECTURES,
    Architecture,
    BootFirmware,
    BuildArchitecture,
)

__all__ = ["ARCHITECTURES", "Architecture", "BootFirmware", "BuildArchitecture", "ProxyChoice"]

ProxyChoice = Annotated[
    str,
    Text(
        "'auto', 'none', or the URL of a proxy such as 'http://127.0.0.1:3142'",
        r"auto|none|http://([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?):[1-9][0-9]{0,4}/?",
    ),
]
