"""The time of a run: that of the backup's server, where there is one, so that no client's clock bends the history."""

from __future__ import annotations

import time
from datetime import timedelta

from backup.core.model import Now
from backup.stores import Store


def elapsed() -> float:
    """Seconds of a clock that goes on while the process is stopped and, where the system can, the machine asleep."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def clock_of(backup: Store, now: Now) -> Now:
    """A clock that goes on from the time that the backup's server gives, asked once; `now` where there is no server.

    Raises what the store raises.
    """
    started = backup.server_time()
    if started is None:
        return now
    asked = elapsed()
    return lambda: started + timedelta(seconds=elapsed() - asked)
