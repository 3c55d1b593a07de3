"""The one moment as of which a sync of a whole set reads its source, where backup.toml says `consistent = true`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING

from backup.core.errors import BackupError, StoreError
from backup.core.log import event
from backup.runs.session import Session, Work
from backup.services.set_specs import SetSpecs
from backup.services.spec import ServiceSpec
from backup.stores.sides import begin_snapshot

if TYPE_CHECKING:
    from backup.stores.sql.engines.snapshot import SnapshotReads
    from backup.stores.sql.source_snapshot import SourceSnapshot

NOT_ONE_MOMENT = "This table was not read as of one moment with the others of its set"
ALONE = f"{NOT_ONE_MOMENT}: only a sync of the whole set is."
"""The note of a run that was not asked for with its whole set."""

_PAUSED = "the sync took more than one call"
_PART = "a sync with a limit leaves changes for a later one"


class SetSnapshot:
    """A snapshot of a set's source, begun when somebody first reads in it. For any thread. `close` it."""

    def __init__(self, specs: SetSpecs, tables: Sequence[str]) -> None:
        """`tables` are those of the set."""
        self._specs, self._tables = specs, tables
        self._lock = Lock()
        self._begun: SourceSnapshot | None = None
        self._error: BackupError | None = None

    def reads_of(self, table: str | None) -> SnapshotReads:
        """Reads in the snapshot, for one run; of this table, if there is one. Raises the same error to everybody if the
        snapshot could not begin, and why the table cannot be read in it."""
        with self._lock:
            if self._error is not None:
                raise self._error
            if self._begun is None:
                self._begun = self._begin()
        refusal = None if table is None else self._begun.refusal(table)
        if refusal is not None:
            raise refusal
        return self._begun.reads()

    def refusals(self) -> list[BackupError]:
        """Begins the snapshot; returns why not, or why some of its tables cannot be read in it."""
        refusals = []
        for table in self._tables:
            try:
                self.reads_of(table)
            except BackupError as error:
                if error not in refusals:
                    refusals.append(error)
        return refusals

    def close(self) -> None:
        """Ends the snapshot; nothing can be read in it any more. Raises nothing."""
        with self._lock:
            begun, self._begun = self._begun, None
            self._error = self._error or StoreError(
                "What held the source as of one moment has ended. Nothing was read."
            )
        if begun is not None:
            begun.close()
            event("snapshot.ended", set=self._specs.name, at=begun.at)

    def _begin(self) -> SourceSnapshot:
        try:
            begun = begin_snapshot(self._specs.side("source"), [*self._tables], self._specs.limits)
        except BackupError as error:
            self._error = error
            name = self._specs.name
            event("snapshot.refused", level=logging.WARNING, set=name, error=error, hint=error.hint)
            raise
        event("snapshot.begun", set=self._specs.name, at=begun.at, tables=len(self._tables))
        return begun


class SourceReading:
    """Where one sync reads its source: in the snapshot of its set, if there is one, else as it is now."""

    def __init__(self, spec: ServiceSpec, snapshot: SetSnapshot | None = None) -> None:
        self._spec, self._snapshot = spec, snapshot
        self._reads: SnapshotReads | None = None

    def begun(self) -> SnapshotReads | None:
        """The reads in the snapshot; None without one. Raises why it cannot be read there."""
        if self._snapshot is not None:
            self._reads = self._snapshot.reads_of(self._spec.source.table)
        return self._reads

    def told(self, work: Work) -> Work:
        """The work, which at its end says as of when it has read its source. If that was not one moment, it notes why.

        Only of a set that is to be read as of one moment.
        """

        def work_and_tell(session: Session) -> None:
            work(session)
            if not session.unfinished:  # else whoever resumes it tells
                self._tell(session)

        return work_and_tell if self._spec.is_consistent else work

    def _tell(self, session: Session) -> None:
        reads = self._reads
        if reads is None:
            session.note(f"{NOT_ONE_MOMENT}: {_PAUSED}." if session.resumed else ALONE)
        elif reads.outside is not None:
            session.note(f"{NOT_ONE_MOMENT}: what held the source's state is gone ({reads.outside.rstrip('.')}).")
        elif session.tally.counts.remaining:
            session.note(f"{NOT_ONE_MOMENT}: {_PART}.")
        elif not session.tally.counts.failed:  # else the run fails, for what it has set aside
            session.run = replace(session.run, read_as_of=reads.read_as_of)
