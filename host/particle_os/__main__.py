"""The console script."""

import signal
import sys

# Much that the modules below import exists on Linux only.
if sys.platform != "linux":
    sys.stderr.write(f"error: particle-os runs on Linux, not on {sys.platform}: use a Linux VM\n")
    sys.exit(5)

# Ctrl-C during the imports ends the program without a traceback.
signal.signal(signal.SIGINT, signal.SIG_DFL)

from particle_os import cli  # noqa: E402
from particle_os.errors import EXIT_INFRASTRUCTURE, EXIT_SIGNAL  # noqa: E402
from particle_os.system import standard_streams  # noqa: E402


def main() -> None:
    """Runs the command line; the console script."""
    standard_streams.prepare()
    try:
        cli.main()
    except SystemExit as ended:
        sys.exit(_status(ended.code))


def _status(code: str | int | None) -> str | int | None:
    """The exit status, which says when a success could not be printed. A failure keeps its own."""
    try:
        lost = standard_streams.lost()
    except BrokenPipeError:
        standard_streams.discard_output()
        return code or EXIT_SIGNAL + signal.SIGPIPE
    if lost is None:
        return code
    sys.stderr.write(f"error: standard output cannot be written: {lost.strerror}\n")
    return code or EXIT_INFRASTRUCTURE


if __name__ == "__main__":
    main()
