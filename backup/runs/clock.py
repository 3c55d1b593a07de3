"""The time of a run: the time of the backup's server, if it has one, so that wrong clocks of clients do no harm."""

from __future__ import annotations

import time
from datetime import timedelta

from backup.core.model import Now
from backup.stores import Store


def elapsed() -> float:
    """Seconds of a clock that also runs while the process is stopped and, if the system can, the machine sleeps."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def clock_of(backup: Store, now: Now) -> Now:
    """A clock that starts at the time of the backup's server, which it asks once; `now` if there is no server.

    Raises what the store raises.
    """
    started = backup.server_time()
    if started is None:
        return now
    asked = elapsed()
    return lambda: started + timedelta(seconds=elapsed() - asked)
