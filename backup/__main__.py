"""The command line as a program: `backup …` where it is installed, `python -m backup …` anywhere."""

from __future__ import annotations

import os
import signal


def main() -> None:
    """Runs the command line."""
    # The next import takes a moment. A Ctrl-C in it may end the process at once: no run has begun.
    signal.signal(signal.SIGINT, lambda *_: _end())
    from backup.entry.command_line.app import run

    run()


def _end() -> None:
    os.write(2, b"Interrupted before a run began; run it again.\n")
    os._exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
