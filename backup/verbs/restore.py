"""Writes the backup's newest state, or that of a time, into the source or another place. Never changes the backup."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime

from backup.core.batched import batched
from backup.core.errors import BadRequest, GuardTripped, NotInitialized, SourceMissing
from backup.core.model import Action, Key
from backup.core.run_values import Run, Verb
from backup.core.suggestions import quantity
from backup.mirror.pending_deletes import PendingDeletes
from backup.runs.emptied import found_empty
from backup.runs.session import Session
from backup.stores import Store
from backup.verbs.indexing import make_indexes
from backup.verbs.lately import ELSEWHERE, deleted_from_source_lately
from backup.verbs.past_run import PastRun
from backup.verbs.pieces import FEWEST_AT_ONCE
from backup.verbs.restore_spec import RestoreSpec
from backup.verbs.restoring import Restoring
from backup.verbs.undo import find_run, refuse_lost, refuse_other_keys, refuse_purged

_NAMED_AT_MOST = 10
_OLDER = "The platform's own backups may reach further back."


def restore(session: Session, into: Store, spec: RestoreSpec, *, elsewhere: bool = False) -> None:
    """Makes the place of the store `into` hold what the spec says; creates the place if it is missing. A dry run only
    counts and names. `elsewhere`: the place is not the source.

    A record that is newer in the place than in the backup, or that does not belong to the service any more, is named
    and left alone, unless `overwrite_newer`. A record that only the place has is left alone, unless `delete_extra`.
    Then deletes come last, after the guard has seen their number. The restore decides both once it has locked the
    record, and first keeps in the bin what it replaces. It skips records that are equal already, so a restore that
    failed half-way may be repeated. If the spec names a run, it looks only at the records that the run changed. It
    tries again at the end what a constraint refused. It reads again what it wrote, so the counts are of what is there.

    Another place than the source gets the backup's secondary indexes, once all records are there. Of a source with
    masked columns it changes only the others, and only in records that exist, if the spec says so.

    Raises, before a record is changed:

    - BadRequest for text that is not a key, for a time that the bin does not reach, and for masked columns;
    - UnknownRun for an unknown run, and Conflict for a run whose images the bin does not all have;
    - SchemaMismatch when the place cannot hold the records.

    Raises StoreError or RecordsSetAside when something was not written or deleted, after all else was. Raises what the
    stores, the guard and the lock raise.
    """
    if elsewhere and session.run.verb is Verb.RESTORE:
        session.note(f"{ELSEWHERE}{into.place.label}.")
    if spec.at is not None:
        _refuse_unknown(session, spec.at)
    past = None if spec.run is None else _past_run(session, spec.run, spec.only)
    keys = tuple(dict.fromkeys(map(session.backup.keys.from_text, spec.keys)))
    images = _count_images(session, keys, spec.at, past)
    runs_since = () if spec.at is None else _runs_since(session, spec.at)
    _refuse_masked(into, spec)
    _refuse_marked(session)
    into_exists = _prepare(session, into)
    if elsewhere and spec == RestoreSpec():
        _note_deleted(session)
    restoring = Restoring(session, into, into_exists, spec, keys, runs_since, past=past, elsewhere=elsewhere)
    with PendingDeletes() as extra:
        wanted = existing = 0
        for piece in restoring.pieces():
            restored = restoring.restore(piece)
            wanted, existing = wanted + restored.wanted, existing + len(piece.place_stamps)
            extra.add([*restored.extra.items()])
        if not keys and past is None:
            wanted += restoring.relayed + restoring.equal + restoring.gone_since()
            existing += restoring.equal
        if spec.delete_extra and not spec.deletes_later and len(extra):
            if keys or past is not None:  # the guard always compares with the whole side
                wanted, existing = session.backup.count(), into.count()
            guard, allowed = session.policy.guard, session.run.allow_mass_delete
            if not elsewhere:
                guard = replace(guard, deleted_lately=lambda: deleted_from_source_lately(session))
            label, dry_run = session.backup.place.label, session.run.dry_run
            guard.check_deletes(len(extra), wanted, existing, label, allowed=allowed, dry_run=dry_run)
            _refuse_referred(into, extra, spec.beside if dry_run else ())
            triggers = () if into.relational is None else into.relational.triggers_on_delete()
            session.note(*(f"The {into.place.label} has a trigger on deletes: {name}." for name in triggers))
            for batch in extra.batches(into.traits.batch_size):
                restoring.delete(dict(batch))
        elif len(extra):
            which = "{} only in" if past is None else "that the run inserted {} in"
            records = quantity(len(extra), f"record {which.format('is')}", f"records {which.format('are')}")
            fate = "another run deletes them" if spec.deletes_later else "without delete-extra they stay"
            session.note(f"{records} the {into.place.label}; {fate}.")
    restoring.try_again()
    if not session.run.dry_run:
        session.note(*(() if into.relational is None else into.relational.advance_counters()))
    restoring.finish()
    refuse_lost(_count_images(session, keys, spec.at, past), images)
    is_whole = not keys and past is None and not spec.deletes_later
    if elsewhere and is_whole and session.run.verb is Verb.RESTORE and not session.run.dry_run:
        make_indexes(session, into, session.backup)


def exists(store: Store) -> bool:
    """Whether the store's database and its table or container exist. Raises StoreUnavailable when the server does not
    answer."""
    try:
        next(store.chunks())
    except (SourceMissing, NotInitialized):
        return False
    return True


def _refuse_masked(into: Store, spec: RestoreSpec) -> None:
    """Raises BadRequest when the backup has only masked or transformed values of some of the source's columns."""
    if into.transforming is not None and into.transforming.may_leave_out:
        raise BadRequest(
            f"The backup has what a function made of the records of the {into.place.label}. Nobody knows which of its "
            "values are the source's, so none is written there. Nothing was changed.",
            hint="Restore into another place: --to.",
        )
    kind = "masked" if into.transforming is None else "masked or transformed"
    if (names := into.copies.masked) and not spec.without_masked:
        raise BadRequest(
            f"The backup has only {kind} values of {', '.join(sorted(names))}, which must not get into the "
            f"{into.place.label}. Nothing was changed.",
            hint="Restore without them, into records that exist: --without-masked on the command line, "
            "`withoutMasked` over HTTP. Or restore into another place: --to.",
        )


def _refuse_marked(session: Session) -> None:
    """Raises BadRequest when copies may be marked as deleted that the rules do not know as such any more."""
    if session.kept_deleted:
        raise BadRequest(
            f"The {session.backup.place.label} may have copies of records that the source had deleted, since deletes "
            "was keep in its last sync, and now it is mirror. Nothing was changed.",
            hint='Sync first, which deletes these copies. Or write deletes = "keep" for the restore.',
        )


def _past_run(session: Session, sync_id: str, only: Action | None) -> PastRun:
    """The run whose changes to restore. Raises what an undo of it raises, except for later changes."""
    run = find_run(session, sync_id)
    refuse_other_keys(session, run)
    refuse_purged(session, run)
    action = "changed" if only is None else only.lower()
    session.note(f"Restores what the run {run.sync_id} {action}, as it was before.")
    return PastRun(run, only, session.backup, session.recycled)


def _count_images(session: Session, keys: Sequence[Key], moment: datetime | None, past: PastRun | None) -> int:
    """How many images the bin has of which the restore needs some: those later than the moment, or those of its run.
    Of some keys it looks at theirs alone: millions of others may be later."""
    if moment is not None and keys:
        parts = batched(keys, FEWEST_AT_ONCE)  # as many as have their images in memory later
        return sum(len(session.recycled.of_keys(part, moment, records=False)) for part in parts)
    if moment is not None:
        return session.recycled.count_later(moment)
    return 0 if past is None else session.recycled.number_changed(past.run.sync_id)


def _refuse_unknown(session: Session, moment: datetime) -> None:
    """Raises BadRequest for a time at which the bin does not know the backup's state."""
    written = f"{moment:%Y-%m-%d %H:%M:%S %Z}"
    if moment > session.run.started_at:
        raise BadRequest(
            f"The time {written} lies ahead. Nothing was changed.", hint="Leave the time out for the newest state."
        )
    if moment < session.policy.kept_since(session.run.started_at):
        raise BadRequest(
            f"The state as of {written} is not known any more: RecycleDays is {session.policy.recycle_days:g}. "
            "Nothing was changed.",
            hint=_OLDER,
        )
    service = session.run.service
    session.history.refuse_unplaced(service, moment)
    first = session.history.first_synced(service)
    if first is None:
        last = next(iter(session.history.newest_syncs(service, 1, ended=True)), None)
        why = "" if last is None or last.error is None else f" The last one failed: {last.error}"
        raise BadRequest(
            f"The state as of {written} is not known: no sync of {service} has completed yet. Nothing was "
            f"changed.{why}",
            hint="Mend what the syncs say; times after a sync that completes are known. Or leave the time out: that "
            "restores the newest copies.",
        )
    if moment < session.history.timeline(service, session.steps.now()).ended(first):
        raise BadRequest(
            f"The state as of {written} is not known: it lies before the end of the first sync that completed. "
            "Nothing was changed.",
            hint=_OLDER,
        )


def _refuse_referred(into: Store, extra: PendingDeletes, beside: Collection[str]) -> None:
    """Raises GuardTripped when rows of other tables, except those of `beside`, refer to records that the restore would
    delete. It would neither count nor keep what the server does to those rows."""
    if into.relational is None:
        return
    rows_of: Counter[str] = Counter()
    for batch in extra.batches(into.traits.batch_size):
        rows_of.update(into.relational.referring([key for key, _ in batch], but=beside))
    if rows_of:
        named = ", ".join(f"{quantity(rows, 'row')} of {reference}" for reference, rows in rows_of.items())
        raise GuardTripped(
            f"{quantity(len(extra), 'record')} would be deleted in the {into.place.label}, to which other rows refer: "
            f"{named}. Nothing was deleted; what was inserted and updated stands.",
            hint="Delete or change those rows first, or restore without delete-extra. Nothing else lets this pass.",
        )


def _note_deleted(session: Session) -> None:
    kept = session.backup.kept_deletes
    if kept is not None and (deleted := kept.count()):
        copies = quantity(
            deleted, "record that the source has deleted stays", "records that the source has deleted stay"
        )
        session.note(f"{copies} in the backup and {'is' if deleted == 1 else 'are'} not restored.")


def _prepare(session: Session, into: Store) -> bool:
    """Makes the place if it is missing, and checks that it can hold the records. Returns whether it exists now; in a
    dry run it need not."""
    existed = exists(into)
    if not existed and session.run.dry_run:
        session.note(f"The {into.place.label} does not exist and would be made.")
        return False
    if not existed:
        into.catalog.make_source_of(session.backup)
        session.note(f"The {into.place.label} did not exist and was made.")
    missing_columns = session.backup.catalog.match(into).removed
    session.note(*(f"The {into.place.label} does not have the backup's column {name}." for name in missing_columns))
    return True


def _runs_since(session: Session, moment: datetime) -> Sequence[Run]:
    """The runs that ended after the moment. Raises BadRequest when the bin lacks the images of a run."""
    service, timeline = session.run.service, session.history.timeline(session.run.service, session.steps.now())
    runs = session.history.since(service, moment, timeline)
    if doubted := timeline.doubted(moment):
        named = ", ".join(
            f"{sync_id} ({at:%Y-%m-%d %H:%M:%S %Z})" for sync_id, at in [*doubted.items()][:_NAMED_AT_MOST]
        )
        session.note(
            f"A clock was wrong: the times of {quantity(len(doubted), 'run')} contradict the order of the runs, which "
            f"decided what the state was then. See whether it is the one that is meant: {named}."
        )
    for run in runs:
        if run.counts.processed and next(session.recycled.of_run(run.sync_id), None) is None:
            raise BadRequest(
                f"The state as of {moment:%Y-%m-%d %H:%M:%S %Z} is not known: the recycle bin has no image of the run "
                f"{run.sync_id}, which has changed records since. Nothing was changed.",
                hint=_OLDER,
            )
    if runs and (emptied := found_empty(session.history.from_synced(service, runs[-1]))) is not None:
        raise BadRequest(
            f"The state as of {moment:%Y-%m-%d %H:%M:%S %Z} is not known: the run {emptied.sync_id} found no record in "
            f"the {session.backup.place.label}, where the sync before it had left some. Somebody else has emptied it "
            "since then, or made it anew. Nothing was changed.",
            hint="Name a time after that run has ended. What single runs changed can still be seen, and restored with "
            "--run.",
        )
    for run in runs:
        if not session.recycled.knows_keys_of(run.sync_id):
            raise BadRequest(
                f"The state as of {moment:%Y-%m-%d %H:%M:%S %Z} is not known: the key of the "
                f"{session.backup.place.label} has another type than when the run {run.sync_id} changed its records. "
                "Nothing was changed.",
                hint="Name a time after the type has changed, or give the key its old type again.",
            )
    return runs
