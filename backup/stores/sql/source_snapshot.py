"""Holds the database of a source as of one moment, for the runs that read it together."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from backup.core.errors import BackupError, StoreError
from backup.stores.sql.access import SqlAccess
from backup.stores.sql.declared import split_name, wanted_name
from backup.stores.sql.engines.snapshot import Snapshot, SnapshotReads


class SourceSnapshot:
    """A held snapshot of a source's database. `close` ends it, and may be repeated."""

    def __init__(self, access: SqlAccess, snapshot: Snapshot) -> None:
        """`access` has begun the snapshot, and is its own."""
        self._access, self._snapshot = access, snapshot

    @property
    def at(self) -> datetime:
        """Its moment, in UTC, by the clock of the source's server."""
        return self._snapshot.at

    def reads(self) -> SnapshotReads:
        """Reads in the snapshot, for one run."""
        return SnapshotReads(self._snapshot)

    def refusal(self, table: str) -> BackupError | None:
        """Why the table cannot be read in the snapshot; None if it can."""
        reason = self._snapshot.unreadable.get(wanted_name(self._access.dialect, *split_name(table)))
        if reason is None:
            return None
        return StoreError(
            f"The {self._access.label} cannot hold {table} as it was at one moment, and consistent is true: {reason} "
            "Nothing of it was read.",
            hint="Let the login SELECT from all of it. A foreign or external table and a materialized view cannot be "
            "held: name such a one in exclude, and in a set without consistent.",
        )

    def close(self) -> None:
        """Ends the snapshot and gives its connection back. Raises nothing."""
        self._snapshot.close()
        self._access.close()


def begun(access: SqlAccess, tables: Sequence[str]) -> SourceSnapshot:
    """Begins a snapshot in which these tables can be read. Raises what `SqlAccess.begin_snapshot` raises."""
    names = [wanted_name(access.dialect, *split_name(table)) for table in tables]
    return SourceSnapshot(access, access.begin_snapshot(names))
