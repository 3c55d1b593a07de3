"""A sync: first the backup's schema follows that of the source, then the records. It fails unless it is proven."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from datetime import timedelta
from math import inf
from typing import Any

from backup.core.errors import NotVerified, RecordsSetAside, SchemaMismatch
from backup.core.log import event
from backup.core.run_values import Verb
from backup.mirror.checkpoint import Checkpoint
from backup.mirror.walk import refuse_early, sync_stores
from backup.runs.columns_to_fill import columns_to_fill
from backup.runs.policy import Policy
from backup.runs.runner import Session
from backup.stores import Drift, Store
from backup.verbs.indexing import follow_indexes
from backup.verbs.lately import deleted_lately
from backup.verbs.watermarks import from_watermark, tell_what_was_compared

_SECONDS_BETWEEN_SAVES = 1.0
RULES = "Filter, columns, version, masks, transform or deletes"
MASKS_CHANGED = "The masks are others than when the sync began; it compares every record again, and cannot be undone."
"""What a person may change between two syncs, for sentences about it."""

_SOON = timedelta(seconds=1)  # what was kept up to now is older than this


def sync_with_schema(session: Session) -> None:
    """Asks the guard, adapts the backup's columns, syncs, and looks at the proof.

    To fill new columns it copies every record again, as with force. It does the same for widened columns, because
    whoever widened them may have rewritten their values under the same versions. If the run dies, SyncHistory tells the
    next run which columns to fill. When its time is up, it leaves the session unfinished, with a checkpoint. Raises
    SchemaMismatch before anything is changed, NotVerified after the sync, and what `sync_stores` raises.
    """
    run, backup, relational = session.run, session.backup, session.backup.relational
    refuse_expiring(backup, session.policy)
    try:
        if relational is None:
            drift = backup.catalog.match(session.source)
        else:
            drift = relational.drift(session.source, session.policy.on_new_column)
    except SchemaMismatch as error:
        if not run.dry_run:  # once somebody alters the columns, nothing else shows that their values are old
            session.become(added_columns=tuple(sorted({*run.added_columns, *error.columns})))
        raise
    unfilled = columns_to_fill(session.history, run.service, session.opening, drift.shared)
    to_fill = tuple(sorted({*drift.added, *drift.widened, *unfilled}))
    notes = [
        *(
            f"Column {name} is {'widened as in the source' if name in drift.widened else 'new'}; "
            "every record is copied again to fill it."
            for name in to_fill
        ),
        *notes_of(drift),
        *(f"Column {name} is not copied any more; it stays in the backup." for name in drift.removed),
        *(f"Column {name} is not copied, since OnNewColumn is ignore." for name in drift.ignored),
    ]
    masks, selection = session.source.traits.masks, session.policy.selection
    rules_changed = (run.masks, run.selection) != (masks, selection)
    if session.resumed and run.masks != masks:
        notes.append(MASKS_CHANGED)
    elif session.resumed and rules_changed and run.selection is not None:  # an earlier release wrote none
        notes.append(f"{RULES} are others than when the sync began; it compares every record again.")
    start, changed = session.start, dict[str, Any]()
    if notes:
        event("sync.schema", level=logging.WARNING, service=run.service, sync_id=run.sync_id, notes=" ".join(notes))
        changed |= {"forced": run.forced or bool(to_fill), "added_columns": to_fill}
        changed |= {"removed_columns": drift.removed, "notes": (*run.notes, *notes)}
    if rules_changed:
        changed |= {"masks": masks, "selection": selection}
    if session.resumed and (rules_changed or not {*to_fill} <= {*run.added_columns}):
        # The chunks before the checkpoint are as the rules were then, or lack values.
        start = start.begun_anew() if run.limit is None else Checkpoint()
        changed |= {"checkpoint": start.to_text(), "watermark": None if rules_changed else run.watermark}
    if changed:
        # In a single write, and before it adds the columns: the run may die right after.
        session.become(**changed)
    refuse_early(session.source, backup, session.run, session.policy.guard)
    if relational is not None and not run.dry_run:
        relational.adapt(drift)
        if session.kept_deleted:
            relational.recognize_deleted()
    if not all(backup.keys.may_hold(key) for key in (start.begin, start.after) if key is not None):
        start = Checkpoint()  # the key has another type now
    try:
        left = _sync(session, start)
    finally:
        session.note(*(note for note in session.tally.notes if note not in session.run.notes))
    if left is not None:
        session.unfinished = True
        return
    proof, failed = session.tally.proof, session.tally.counts.failed
    if proof is not None and proof.source.records == 0 and session.policy.where:
        session.note(f"The source has no record for which {session.policy.where}: see whether Where is what was meant.")
    if proof is not None and proof.differing > failed:  # records that were set aside differ, and have their own error
        set_aside = f", beside {failed} that were set aside" if failed else ""
        raise NotVerified(
            f"The sync ended, but {proof.differing - failed} records of the {backup.place.label} differ from the source"
            f"{set_aside}."
        )
    tell_what_was_compared(session)
    if session.tally.counts.remaining:
        _leave_the_rest(session)
    elif masks is not None and not session.run.dry_run:
        _purge_what_is_clear(session, masks)
    complete = not (failed or session.tally.counts.remaining or session.run.dry_run)
    if complete and relational is not None and session.kept_deleted:
        # Every row is in the source now, so a mark that is left is of a record that has come back.
        session.steps.check_lock()
        relational.forget_deleted()
    if complete:
        follow_indexes(session)


def notes_of(drift: Drift) -> list[str]:
    """What to note about columns that need no change."""
    return ["The source has no version column; every record is compared by its content."] * drift.unversioned


def _purge_what_is_clear(session: Session, masks: str) -> None:
    """Purges the images of earlier runs, once each copy has these masks for the first time: older images may show what
    the masks hide. So may this run's own, if its first slices had other masks."""
    last = session.last_synced()
    later = [] if last is None else session.history.later(last, session.opening)
    # A sync without these masks that failed, or had a limit, has written clear copies all the same.
    clear = [run for run in later if run.verb is Verb.SYNC and run.masks != masks and run.counts.processed]
    if last is None or last.masks != masks or clear:
        began, own_too = session.run.started_at, MASKS_CHANGED in session.run.notes
        purged = session.recycled.purge(session.steps.now() + _SOON if own_too else began)
        if purged:
            session.note(f"The masks are new: {purged} older images, which may show what they hide, were purged.")


def _leave_the_rest(session: Session) -> None:
    """Notes that changes remain. Such a run proves nothing of the whole, and later runs may not build on it."""
    remaining = session.tally.counts.remaining
    what = "1 change remains" if remaining == 1 else f"{remaining} changes remain"
    session.note(f"{what}: this run had a limit of {session.run.limit}. A sync without a limit makes all of them.")
    session.run = replace(session.run, watermark=None)
    session.tally.proof = None


def refuse_expiring(backup: Store, policy: Policy) -> None:
    """Raises SchemaMismatch if copies have a time to live, or if images and entries of runs may expire while an undo
    still needs them."""
    lives = {backup.place.name: inf}
    kept_seconds = timedelta(days=policy.recycle_days).total_seconds()
    for name, seconds in backup.catalog.seconds_to_live().items():
        if seconds < lives.get(name, kept_seconds):
            raise SchemaMismatch(
                f"The container {name} of the {backup.place.label} deletes its documents after {seconds} seconds. "
                "Nothing was changed.",
                hint="Turn its time to live off. That of the recycle bin and of SyncHistory may be longer than "
                "RecycleDays.",
            )


def _sync(session: Session, start: Checkpoint) -> Checkpoint | None:
    """Syncs, and saves checkpoints in SyncHistory. Returns the last checkpoint if time was up, else None."""
    tally = session.tally
    if session.resumed:
        changed = start.counts if session.run.dry_run else session.recycled.counted(session.run.sync_id)
        tally.counts = replace(changed, skipped=start.counts.skipped, remaining=start.counts.remaining)
        if start.counts.seen:  # else the run walks everything anew, and tries again what was set aside
            tally.failures = dict(session.run.failures)
            tally.counts = replace(tally.counts, failed=session.run.counts.failed)
    before = tally.counts
    saver = _Saver(session)
    quiet_records, quiet_seconds = _quiet(session)
    steps = replace(session.steps, save=saver.save, quiet_records=quiet_records, quiet_seconds=quiet_seconds)
    steps = from_watermark(session, steps)
    run = session.run
    guard = replace(
        session.policy.guard,
        deleted_lately=lambda: deleted_lately(session.history, run.service, session.steps.now(), run.sync_id),
    )
    try:
        left = sync_stores(session.source, session.backup, run, tally, guard, steps, start)
    except RecordsSetAside:
        steps.check_lock()
        session.recycled.take_back(run.sync_id, tally.aside)
        raise
    steps.check_lock()  # a run that has lost its lock must not write its entry
    session.recycled.take_back(run.sync_id, tally.aside)
    if left is not None:
        saver.save(left, always=True)
        return left
    if session.resumed and not run.dry_run:
        # This call has seen, or changed, records again that an earlier call had changed. The bin has each record once.
        seen = start.counts.seen + tally.counts.seen - before.seen - (tally.counts.deleted - before.deleted)
        changed = session.recycled.counted(run.sync_id)
        failed = tally.counts.failed
        skipped = max(0, seen - changed.inserted - changed.updated - failed)
        tally.counts = replace(changed, skipped=skipped, failed=failed, remaining=tally.counts.remaining)
    return None


def _quiet(session: Session) -> tuple[int, float]:
    """How many records the source has, if the last sync changed nothing or copied everything, else 0; and how many
    seconds that sync took.

    A source that changes now and then is not worth a look at all of it at once, which would find it changed.
    """
    last = session.last_synced() if session.backup.relational is not None else None
    if last is None or last.proof is None:
        return 0, inf
    records, counts = last.proof.source.records, last.counts
    is_quiet = counts.processed == 0 or counts.inserted == records
    return records if is_quiet else 0, (last.duration_ms or 0) / 1000


class _Saver:
    """Writes checkpoints into the run's entry: after each chunk that changed something, else at most once a second."""

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
        """How many percent of the source's records the run has walked. The last sync has counted them; else it counts
        them now, once."""
        if self._records is None:
            last = self._session.last_synced()
            counted = last.proof.source.records if last is not None and last.proof is not None else 0
            self._records = counted or self._session.source.count()
        return min(99, at.source_records * 100 // max(1, self._records))
