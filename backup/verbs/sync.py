"""A sync that first lets the backup's schema follow its source's, and fails unless it is proven at its end."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from datetime import datetime, timedelta
from math import inf

from backup.core.errors import NotVerified, RecordsSetAside, SchemaMismatch
from backup.core.log import event
from backup.mirror.checkpoint import Checkpoint
from backup.mirror.walk import refuse_early, sync_stores
from backup.mirror.writing import Steps
from backup.runs.policy import Policy
from backup.runs.runner import Session
from backup.stores import Store
from backup.verbs.lately import deleted_lately

_SECONDS_BETWEEN_SAVES = 1.0
_COMPARED = " compared "  # between a watermark and the time of the last full comparison
_EARLY = timedelta(hours=1)  # a timer does not fire at the same second every week


def sync_with_schema(session: Session) -> None:
    """Asks the guard, adapts the backup's columns, syncs, and looks at the proof.

    New columns are filled by copying every record again, as with force, and widened ones as well, for whoever widened
    them may have rewritten their values under the same versions. A run that dies meanwhile has told the next one in
    SyncHistory what is left to fill. When time was up, the session is left unfinished, with a checkpoint. Raises
    SchemaMismatch before anything is changed, NotVerified after the sync was done, and what `sync` raises.
    """
    run, backup, relational = session.run, session.backup, session.backup.relational
    refuse_expiring(backup, session.policy)
    try:
        if relational is None:
            drift = backup.catalog.match(session.source)
        else:
            drift = relational.drift(session.source, session.policy.on_new_column)
    except SchemaMismatch as error:
        if not run.dry_run:  # once somebody has altered them, nothing shows that their values are old
            session.become(added_columns=tuple(sorted({*run.added_columns, *error.columns})))
        raise
    unfilled = session.history.columns_to_fill(run.service, session.opening, drift.shared)
    to_fill = tuple(sorted({*drift.added, *drift.widened, *unfilled}))
    notes = [
        *(
            f"Column {name} is {'widened as in the source' if name in drift.widened else 'new'}; "
            "every record is copied again to fill it."
            for name in to_fill
        ),
        *(("The source has no version column; every record is compared by its content.",) * drift.unversioned),
        *(f"Column {name} is no longer in the source; it stays in the backup." for name in drift.removed),
        *(f"Column {name} is not copied, since OnNewColumn is ignore." for name in drift.ignored),
    ]
    if notes:
        event("sync.schema", level=logging.WARNING, service=run.service, sync_id=run.sync_id, notes=" ".join(notes))
        # Recorded before the columns are there, for the run may die right after.
        forced = run.forced or bool(to_fill)
        session.become(forced=forced, added_columns=to_fill, removed_columns=drift.removed, notes=(*run.notes, *notes))
    refuse_early(session.source, backup, session.run, session.policy.guard)
    if relational is not None and not run.dry_run:
        relational.adapt(drift)
    start = session.start
    if not all(backup.keys.may_hold(key) for key in (start.begin, start.after) if key is not None):
        start = Checkpoint()  # of keys of another type
    if session.resumed and not {*to_fill} <= {*run.added_columns}:  # what was walked before has not their values
        start = start.begun_anew()
    left = _sync(session, start)
    if left is not None:
        session.unfinished = True
        return
    proof, failed = session.tally.proof, session.tally.counts.failed
    if proof is not None and proof.source.records == 0 and session.policy.where:
        session.note(f"The source has no record for which {session.policy.where}: see whether Where is what was meant.")
    if proof is not None and proof.differing > failed:  # those set aside differ, and have an error of their own
        others = f", beside {failed} that were set aside" if failed else ""
        raise NotVerified(
            f"The sync ended, but {proof.differing - failed} records of the {backup.place.label} differ from the source"
            f"{others}."
        )


def refuse_expiring(backup: Store, policy: Policy) -> None:
    """Raises SchemaMismatch if copies would delete themselves, or images and runs while an undo may still need them."""
    lives = {backup.place.name: inf}
    kept_seconds = timedelta(days=policy.recycle_days).total_seconds()
    for name, seconds in backup.catalog.seconds_to_live().items():
        if seconds < lives.get(name, kept_seconds):
            raise SchemaMismatch(
                f"What the container {name} of the {backup.place.label} holds deletes itself after {seconds} seconds. "
                "Nothing was changed.",
                hint="Turn its time to live off. The recycle bin's and SyncHistory's may be longer than RecycleDays.",
            )


def _sync(session: Session, start: Checkpoint) -> Checkpoint | None:
    """The sync, with its checkpoints in SyncHistory; returns the last one if time was up."""
    tally = session.tally
    if session.resumed:
        changed = start.counts if session.run.dry_run else session.recycled.counted(session.run.sync_id)
        tally.counts = replace(changed, skipped=start.counts.skipped)
        if start.counts.seen:  # else everything is walked anew, and the records set aside are tried again
            tally.failures = dict(session.run.failures)
            tally.counts = replace(tally.counts, failed=session.run.counts.failed)
    before = tally.counts
    saver = _Saver(session)
    steps = _from_watermark(session, replace(session.steps, save=saver.save))
    run = session.run
    guard = replace(session.policy.guard, deleted_lately=lambda: deleted_lately(session))
    try:
        left = sync_stores(session.source, session.backup, run, tally, guard, steps, start)
    except RecordsSetAside:
        steps.check_lock()
        session.recycled.take_back(run.sync_id, tally.aside)
        raise
    steps.check_lock()  # who has lost the lock may no longer say how the run stands
    session.recycled.take_back(run.sync_id, tally.aside)
    if left is not None:
        saver.save(left, always=True)
        return left
    if session.resumed and not run.dry_run:
        # What an earlier call had changed was met again, or changed again; the bin has each record once.
        met = start.counts.seen + tally.counts.seen - before.seen - (tally.counts.deleted - before.deleted)
        changed = session.recycled.counted(run.sync_id)
        failed = tally.counts.failed
        skipped = max(0, met - changed.inserted - changed.updated - failed)
        tally.counts = replace(changed, skipped=skipped, failed=failed)
    return None


def _from_watermark(session: Session, steps: Steps) -> Steps:
    """The steps of a run that asks the source for recent changes, if it knows them; the run notes its own watermark.

    That is taken before anything is read, and counts once the run is completed. It carries the time of the last full
    comparison: without one, or once that is old, or with force, only stamps count.
    """
    now = steps.now()
    incremental = session.source.incremental
    mark = None if incremental is None else incremental.watermark()
    if mark is None:
        return steps
    last = session.last_synced()
    since, _, compared = ((last and last.watermark) or "").partition(_COMPARED)
    oldest = now - timedelta(days=session.policy.full_every_days) + _EARLY
    # What an undo brought back may have the very seconds of what it took away.
    undone = last is not None and any(run.undone for run in session.history.later(last, session.opening))
    full = session.run.forced or undone or not since or datetime.fromisoformat(compared) < oldest
    if not (session.resumed and session.run.watermark):
        at = now.isoformat() if full else compared
        session.run = replace(session.run, watermark=f"{mark}{_COMPARED}{at}")
    overlap = session.policy.overlap_seconds
    return replace(steps, since=since or None, overlap_seconds=overlap, full=full)


class _Saver:
    """Writes checkpoints into the run's entry: after every chunk that changed something, else at most once a second."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._saved_at, self._processed = time.monotonic(), session.tally.counts.processed
        self._records: int | None = None

    def save(self, at: Checkpoint, *, always: bool = False) -> None:
        session = self._session
        processed, now = session.tally.counts.processed, time.monotonic()
        if always or processed != self._processed or now - self._saved_at >= _SECONDS_BETWEEN_SAVES:
            session.steps.check_lock()
            tally = session.tally
            session.become(
                counts=tally.counts,
                failures=(*tally.failures.items(),),
                checkpoint=at.to_text(),
                percent=self._percent(at),
            )
            self._saved_at, self._processed = now, processed

    def _percent(self, at: Checkpoint) -> int:
        """Of the source's records as the last sync counted them, or as they are counted now."""
        if self._records is None:
            last = self._session.last_synced()
            counted = last.proof.source.records if last is not None and last.proof is not None else 0
            self._records = counted or self._session.source.count()
        return min(99, at.source_records * 100 // max(1, self._records))
