"""The time of a run: the time of the backup's server, if it has one, so that wrong clocks of clients do no harm."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import NamedTuple

from backup.core.model import Now
from backup.stores import Store


def elapsed() -> float:
    """Seconds of a clock that also runs while the process is stopped and, if the system can, the machine sleeps."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def since(moment: float) -> timedelta:
    """How long ago `elapsed` said this."""
    return timedelta(seconds=elapsed() - moment)


class ServerTime(NamedTuple):
    """A time of a server's clock, and what `elapsed` said once its answer was here."""

    at: datetime
    elapsed: float

    def clock(self) -> datetime:
        """The time of the server's clock now."""
        return self.at + since(self.elapsed)


def clock_of(backup: Store, now: Now, server_time: ServerTime | None = None) -> Now:
    """A clock that starts at the time of the backup's server; `now` if there is no server.

    It asks the server once, unless its time is known. Raises what the store raises.
    """
    if server_time is None:
        at = backup.server_time()
        if at is None:
            return now
        server_time = ServerTime(at, elapsed())
    return server_time.clock
