"""What a service may do to its backup, and for how long it keeps what it replaced, and its history."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from backup.mirror.guard import Guard
from backup.stores import OnNewColumn


@dataclass(frozen=True)
class Policy:
    """A service's limits, what a new column of the source means, and how many days recycle bin and history keep.

    Of a source that tells what was written since a watermark, the last `overlap_seconds` before it are asked again, and
    every `full_every_days` everything is compared. A run sets aside no more than `max_failed_records`. `where` is
    what the settings say, in words, of which records belong to the service; empty where they say nothing.
    """

    guard: Guard = field(default_factory=Guard)
    on_new_column: OnNewColumn = "add"
    recycle_days: float = 30
    overlap_seconds: float = 300
    full_every_days: float = 7
    max_failed_records: int = 100
    history_days: float = 400
    where: str = ""

    def kept_since(self, now: datetime) -> datetime:
        """The time before which images may have been purged."""
        return now - timedelta(days=self.recycle_days)

    def history_since(self, now: datetime) -> datetime:
        """The time before which the entries of runs may be gone."""
        return now - timedelta(days=self.history_days)
