"""The console script."""

import signal

# Ctrl-C during the imports ends the program without a traceback.
signal.signal(signal.SIGINT, signal.SIG_DFL)

from particle_os.cli import main  # noqa: E402

if __name__ == "__main__":
    main()
