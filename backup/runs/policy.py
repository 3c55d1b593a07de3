"""What a service may do to its backup, and how long it keeps images and history."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from backup.mirror.guard import Guard
from backup.stores import OnNewColumn


@dataclass(frozen=True)
class Policy:
    """A service's limits, what it does about new columns of the source, and how many days it keeps images and history.

    A source with a watermark is asked for what changed since `overlap_seconds` before the watermark. Every
    `full_every_days` a sync compares everything. On SQL every sync does, unless it `may_count`: then those in between
    copy what the source names, and count both sides. A run sets aside no more than `max_failed_records`. `where` says
    in words which records belong to the service; empty for all. `selection` is a mark of the filter and the columns.
    `of_set`: patterns chose its tables, so nobody may have read their names.
    `needs_hint`: it is to count, so a source that cannot say what was written lately is worth a note.
    """

    guard: Guard = field(default_factory=Guard)
    on_new_column: OnNewColumn = "add"
    recycle_days: float = 30
    overlap_seconds: float = 300
    full_every_days: float = 7
    max_failed_records: int = 100
    history_days: float = 400
    where: str = ""
    selection: str | None = None
    may_count: bool = False
    of_set: bool = False
    needs_hint: bool = False

    def kept_since(self, now: datetime) -> datetime:
        """The time before which images may be purged already."""
        return now - timedelta(days=self.recycle_days)

    def history_since(self, now: datetime) -> datetime:
        """The time before which entries of runs may be purged already."""
        return now - timedelta(days=self.history_days)
