"""Runs a server, and ends it when standard input does: closed on purpose, or as its owner was killed.

`python -I -S guard.py COMMAND…`, a process for each server: so it imports little.
"""

import signal
import subprocess
import sys
import threading

STOP_SECONDS = 10


def guard(command: list[str]) -> int:
    """The exit code of the server, once it has ended."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored behind a shell's `&`, and the server would inherit that
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def end_with_owner() -> None:
        sys.stdin.read()
        server.send_signal(signal.SIGINT)  # for PostgreSQL: without waiting for its clients
        try:
            server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()

    threading.Thread(target=end_with_owner, daemon=True).start()
    return server.wait()


if __name__ == "__main__":
    sys.exit(guard(sys.argv[1:]))
