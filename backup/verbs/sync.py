"""A sync: first the backup's schema follows that of the source, then the records. It fails unless it is proven."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta
from math import inf
from typing import Any

from backup.core.errors import NotVerified, RecordsSetAside, SchemaMismatch
from backup.core.model import Action
from backup.core.run_values import Status, Verb
from backup.core.suggestions import quantity
from backup.mirror.checkpoint import Checkpoint
from backup.mirror.one_sync import sync_stores
from backup.runs.emptied import found_empty
from backup.runs.policy import Policy
from backup.runs.session import Session
from backup.stores import Store
from backup.verbs.indexing import follow_indexes
from backup.verbs.lately import deleted_lately
from backup.verbs.records_of_others import refuse_records_of_others
from backup.verbs.schema import MASKS_CHANGED, follow_schema, refuse_altered
from backup.verbs.watermarks import exchanged_since, from_watermark, tell_what_was_compared

_SECONDS_BETWEEN_SAVES = 1.0
_LOST = "Connections to the backup were lost, so all is compared once more."
_WALKED_AGAIN: tuple[str, ...] = (
    "Connections to the backup were lost on the way, so all was compared once more.",
    "They were lost on the way once more, so all was compared a third time.",
)
_CHANGED_MEANWHILE: tuple[str, ...] = (
    "Others have removed or added records of the backup while the run was at work, so all was compared once more.",
)
_SOON = timedelta(seconds=1)  # what was kept up to now is older than this


def sync_with_schema(session: Session) -> None:
    """Brings the backup's columns in line, syncs, and looks at the proof.

    When its time is up, it leaves the session unfinished, with a checkpoint. Raises what `refuse_records_of_others` and
    `follow_schema` raise before the first record is written, then what `sync_stores` and `refuse_altered` raise, and
    NotVerified after the sync.
    """
    refuse_expiring(session.backup, session.policy)
    if session.policy.of_set and not session.run.allow_mass_delete:
        refuse_records_of_others(session.source, session.backup, session.run.service, session.opening)
    start = _from_the_same(session, follow_schema(session))
    if _sync_surely(session, start) is not None:
        session.unfinished = True
        return
    refuse_altered(session)
    _refuse_unproven(session)
    _refuse_promises(session)
    _tell_what_is_older(session, start)
    _tell_what_was_emptied(session)
    tell_what_was_compared(session)
    if session.tally.counts.remaining:
        _leave_the_rest(session)
    elif session.source.traits.masks is not None and not session.run.dry_run:
        _purge_what_is_clear(session, session.source.traits.masks)
    if not (session.tally.counts.failed or session.tally.counts.remaining or session.run.dry_run):
        _complete(session)


def _from_the_same(session: Session, start: Checkpoint) -> Checkpoint:
    """Where the run begins: at the beginning, if an earlier call of it has walked another container of this name."""
    exchanged = exchanged_since(session)
    if not exchanged:
        return start
    start = start.begun_anew() if session.run.limit is None else Checkpoint()
    for side in exchanged:
        session.note(
            f"The container of the {side} is another one than when the run began, or has other settings now; it "
            "compares everything again."
        )
    session.become(checkpoint=start.to_text(), watermark=None)
    return start


def _refuse_unproven(session: Session) -> None:
    """Raises NotVerified if other records differ than those that were set aside, which have their own error."""
    proof, failed = session.tally.proof, session.tally.counts.failed
    if proof is None:
        return
    if proof.source.records == 0 and session.policy.where:
        session.note(f"The source has no record for which {session.policy.where}: see whether Where is what was meant.")
    if proof.differing > failed:
        set_aside = f", beside {failed} that were set aside" if failed else ""
        raise NotVerified(
            f"The sync ended, but the {session.backup.place.label} differs from the source in "
            f"{quantity(proof.differing - failed, 'record')}{set_aside}."
        )


def _refuse_promises(session: Session) -> None:
    """Raises what the backup's server would refuse of all that a dry run has counted."""
    counts, relational = session.tally.counts, session.backup.relational
    if session.run.dry_run and relational is not None:
        numbers = {Action.INSERTED: counts.inserted, Action.UPDATED: counts.updated, Action.DELETED: counts.deleted}
        relational.refuse_unwritable([action for action, number in numbers.items() if number])


def _tell_what_is_older(session: Session, start: Checkpoint) -> None:
    """Notes of a run of several calls as of when it mirrors the source: its walk passes each part once."""
    has_passed = start.complete or start.wrapped or start.after != start.begin
    if session.resumed and has_passed and not session.run.dry_run:
        at = f"{session.run.started_at:%Y-%m-%d %H:%M:%S} UTC"
        session.note(
            f"The run took several calls. The backup has all that the source had at {at}. What the source has changed "
            "since then, where an earlier call had been, is left to the next sync."
        )


def _tell_what_was_emptied(session: Session) -> None:
    """A note of a run that found nothing in the backup, though the last one had left records there."""
    last, counts = session.last_synced(), session.tally.counts
    if last is None or counts.failed or counts.remaining or session.run.dry_run:
        return
    run = replace(session.run, status=Status.COMPLETED, counts=counts, proof=session.tally.proof)
    if found_empty([run, *session.history.later(last, session.opening), last]) is run:
        session.note(
            "The last sync had left records in the backup, and this one found none: somebody else has emptied it, or "
            "made it anew. What it held before is known only as far as single runs changed it."
        )


def _complete(session: Session) -> None:
    """Does what needs a backup that has every record of its source."""
    relational = session.backup.relational
    if relational is not None and session.kept_deleted:
        # Every row is in the source now, so a mark that is left is of a record that has come back.
        session.steps.check_lock()
        relational.forget_deleted()
    follow_indexes(session)


def _purge_what_is_clear(session: Session, masks: str) -> None:
    """Masks the copies of deleted records and purges the images of earlier runs, once each copy has these masks for the
    first time: they may show what the masks hide. So may this run's own images, if its first slices had other masks."""
    last = session.last_synced()
    later = [] if last is None else session.history.later(last, session.opening)
    # A sync without these masks that failed, or had a limit, has written clear copies all the same.
    clear = [run for run in later if run.verb is Verb.SYNC and run.masks != masks and run.counts.processed]
    if last is None or last.masks != masks or clear:
        began, own_too = session.run.started_at, MASKS_CHANGED in session.run.notes
        purged = session.recycled.purge(session.steps.now() + _SOON if own_too else began)
        if purged:
            images = "older {} that may show what they hide {}"
            older = quantity(purged, images.format("image", "was"), images.format("images", "were"))
            session.note(f"The masks are new: {older} purged.")
        if session.backup.kept_deletes is not None:  # last: a table may want values that have to go
            masked = session.backup.kept_deletes.mask(session.steps.check_lock)
            if masked:
                copies = quantity(masked, "copy of a deleted record was", "copies of deleted records were")
                session.note(f"The masks are new: {copies} masked.")


def _leave_the_rest(session: Session) -> None:
    """Notes that changes remain. Such a run proves nothing of the whole, and later runs may not build on it."""
    remaining = session.tally.counts.remaining
    changes = quantity(remaining, "change remains", "changes remain")
    session.note(f"{changes}: this run had a limit of {session.run.limit}. A sync without a limit makes all of them.")
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
                f"The container {name} of the {backup.place.label} deletes its documents after "
                f"{quantity(seconds, 'second')}. Nothing was changed.",
                hint="Turn its time to live off. That of the recycle bin and of SyncHistory may be longer than "
                "RecycleDays.",
            )


def _sync_surely(session: Session, start: Checkpoint) -> Checkpoint | None:
    """As `_sync`; and once more from the beginning where connections to the backup were lost after it had written, and
    where the backup has not as many records as the calls of the run have proven one part after the other.
    Raises NotVerified if that never ends, and at once with a limit: nobody knows how much of it is used up."""
    while True:
        stopped_at = _sync(session, start)
        if stopped_at is not None:
            return stopped_at
        if _LOST in session.run.notes:
            session.run = replace(session.run, notes=tuple(note for note in session.run.notes if note != _LOST))
            reasons = _WALKED_AGAIN
        elif _was_changed_meanwhile(session):
            reasons = _CHANGED_MEANWHILE
        else:
            return None
        further = [note for note in reasons if note not in session.run.notes]  # with those of earlier calls
        if session.run.limit is not None or not further:
            break
        session.note(further[0])
        keep = session.recycled.recorder(session.run, session.steps.now, resumed=True)
        session.resumed, session.steps, start = True, replace(session.steps, keep=keep, looked=None), Checkpoint()
        session.tally.walk_again()
    session.tally.proof = None
    label = session.backup.place.label
    if reasons is _CHANGED_MEANWHILE:
        raise NotVerified(
            f"The {label} has another number of records than the run has proven: others write to it. What was written "
            "stays.",
            hint="See who writes to the backup, and run it again.",
        )
    times = f", {len(_WALKED_AGAIN) + 1} times" if session.run.limit is None else ""
    raise NotVerified(
        f"Connections to the {label} were lost after the run had written{times}. So nobody knows whether its server "
        "has it all. What was written stays.",
        hint="Run it again.",
    )


def _was_changed_meanwhile(session: Session) -> bool:
    """Whether others have removed or added records of the backup where an earlier call of the run had been."""
    proof = session.tally.proof
    if not session.resumed or session.run.dry_run or session.run.limit is not None or proof is None:
        return False
    return session.backup.count() != proof.backup.records


def _sync(session: Session, start: Checkpoint) -> Checkpoint | None:
    """Syncs, and saves checkpoints in SyncHistory. Returns the last checkpoint if time was up, else None."""
    tally = session.tally
    if session.resumed:
        changed = start.counts if session.run.dry_run else session.recycled.counted(session.run.sync_id)
        tally.counts = replace(changed, skipped=start.counts.skipped, remaining=start.counts.remaining)
        if start.counts.seen:  # else the run walks everything, and tries what was set aside once more
            tally.failures = dict(session.run.failures)
            tally.counts = replace(tally.counts, failed=session.run.counts.failed)
    before = tally.counts
    saver = _Saver(session)
    steps = replace(session.steps, save=saver.save, **_last_sizes(session))
    steps = from_watermark(session, steps)
    run = session.run
    guard = replace(
        session.policy.guard,
        deleted_lately=lambda: deleted_lately(session.history, run.service, session.steps.now(), run.sync_id),
    )
    try:
        stopped_at = sync_stores(session.source, session.backup, run, tally, guard, steps, start)
    except RecordsSetAside:
        steps.check_lock()
        session.recycled.take_back(run.sync_id, tally.aside)
        raise
    steps.check_lock()  # a run that has lost its lock must not write its entry
    saver.note_loss()
    session.recycled.take_back(run.sync_id, tally.aside)
    if stopped_at is not None:
        saver.save(stopped_at, always=True)
        return stopped_at
    if session.resumed and not run.dry_run:
        # This call has seen, or changed, records again that an earlier call had changed. The bin has each record once.
        seen = start.counts.seen + tally.counts.seen - before.seen - (tally.counts.deleted - before.deleted)
        changed = session.recycled.counted(run.sync_id)
        failed = tally.counts.failed
        # What an earlier call had inserted or updated, and this one has deleted, was not seen.
        written = changed.inserted + changed.updated - max(0, tally.counts.deleted - changed.deleted)
        skipped = max(0, seen - written - failed)
        tally.counts = replace(changed, skipped=skipped, failed=failed, remaining=tally.counts.remaining)
    return None


def _last_sizes(session: Session) -> dict[str, Any]:
    """How many records the last sync saw, how many seconds it took, and whether the source is quiet, as `Steps` says.

    A source is quiet if that sync changed nothing or copied everything. One that changes now and then is not worth a
    look at all of it at once that only says whether it has changed.
    """
    last = session.last_synced() if session.backup.relational is not None else None
    if last is None or last.proof is None:
        return {}
    records, counts = last.proof.source.records, last.counts
    is_quiet = counts.processed == 0 or counts.inserted == records
    seconds = (last.duration_ms or 0) / 1000
    return {"records": records, "quiet_records": records if is_quiet else 0, "quiet_seconds": seconds}


class _Saver:
    """Writes checkpoints into the run's entry: after each chunk that changed something, else at most once a second."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._saved_at, self._processed = time.monotonic(), session.tally.counts.processed
        self._records: int | None = None
        self._processed_before = self._processed

    def note_loss(self) -> None:
        """Notes that connections to the backup were lost after this call had written. Of what stands before a
        checkpoint that is there, nothing is missing then; but of what this process has proven since, something may."""
        session = self._session
        has_written = session.tally.counts.processed != self._processed_before
        is_new = not session.run.dry_run and _LOST not in session.run.notes
        if session.has_lost_backup() and has_written and is_new:
            session.note(_LOST)

    def save(self, at: Checkpoint, *, always: bool = False) -> None:
        session = self._session
        processed, now = session.tally.counts.processed, time.monotonic()
        if always or processed != self._processed or now - self._saved_at >= _SECONDS_BETWEEN_SAVES:
            session.steps.check_lock()
            self.note_loss()
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
