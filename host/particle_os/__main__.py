"""The console script. Until the program is there, Ctrl-C ends it as it ends any other."""

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)

from particle_os.cli import main  # noqa: E402

if __name__ == "__main__":
    main()
