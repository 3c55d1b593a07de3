"""Writes the backup's state, now or as of a time, into the source or another place. Never changes the backup."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from backup.core.errors import BadRequest, GuardTripped, NotInitialized, SourceMissing
from backup.core.model import Action, Run, Verb
from backup.mirror.pending_deletes import PendingDeletes
from backup.runs.runner import Session
from backup.stores import Store
from backup.verbs.lately import ELSEWHERE, deleted_from_source_lately
from backup.verbs.past_run import PastRun
from backup.verbs.restoring import Restoring, Wish
from backup.verbs.undo import find_run, refuse_other_keys, refuse_purged

_OLDER = "The platform's own backups may reach further back."


def restore(session: Session, place: Store, wish: Wish, *, elsewhere: bool = False) -> None:
    """Makes the place hold what the wish says, and makes the place where it is missing. A dry run only counts and
    names. `elsewhere`: the place is not the source.

    A record that is newer in the place than in the backup, or is none of the service's any more, is named and left
    alone, unless `overwrite_newer`. One that only the place has is left alone, unless `delete_extra`; then deletes come
    last, after the guard has seen their number. Both are decided when the record is locked to be changed, and what is
    replaced is kept in the bin first. Records that are equal already are skipped, so a restore that failed half-way may
    be repeated. Where the wish names a run, no other records are looked at than those that it changed. What a
    constraint refuses is tried again after all else. What was written is looked up: the counts are of what is there.
    Raises BadRequest for a key that is none, or a time that the bin does not reach; UnknownRun or Conflict for a run
    that is none, or of which the bin does not have all; SchemaMismatch when the place cannot hold the records;
    StoreError or RecordsSetAside when something was not written or deleted, after all else was; what the stores, the
    guard or the lock raise.
    """
    _refuse_contradiction(wish)
    if elsewhere and session.run.verb is Verb.RESTORE:
        session.note(f"{ELSEWHERE}{place.place.label}.")
    if wish.at is not None:
        _refuse_unknown(session, wish.at)
    past = None if wish.run is None else _past_run(session, wish.run, wish.only)
    keys = tuple(dict.fromkeys(map(session.backup.keys.from_text, wish.keys)))
    runs_since = () if wish.at is None else _runs_since(session, wish.at)
    there = _prepare(session, place)
    restoring = Restoring(session, place, there, wish, keys, runs_since, past=past, elsewhere=elsewhere)
    with PendingDeletes() as extra:
        wanted = held = 0
        for piece in restoring.pieces():
            done = restoring.restore(piece)
            wanted, held = wanted + done.wanted, held + len(piece.theirs)
            extra.add([*done.extra.items()])
        if not keys and past is None:
            wanted += restoring.gone_since()
        if wish.delete_extra and len(extra):
            if keys or past is not None:  # of the whole side, as ever
                wanted, held = session.backup.count(), place.count()
            guard, allowed = session.policy.guard, session.run.allow_mass_delete
            if not elsewhere:
                guard = replace(guard, deleted_lately=lambda: deleted_from_source_lately(session))
            guard.check_deletes(len(extra), wanted, held, session.backup.place.label, allowed=allowed)
            _refuse_referred(place, extra)
            triggers = () if place.relational is None else place.relational.triggers_on_delete()
            session.note(*(f"The {place.place.label} has a trigger on deletes: {name}." for name in triggers))
            for batch in extra.batches(place.traits.batch_size):
                restoring.delete(dict(batch))
        elif len(extra):
            which = "are only in" if past is None else "that the run inserted are in"
            session.note(f"{len(extra)} records {which} the {place.place.label}; without delete-extra they stay.")
    restoring.again()
    if not session.run.dry_run:
        session.note(*(() if place.relational is None else place.relational.advance_counters()))
    restoring.finish()


def exists(place: Store) -> bool:
    """Whether the place's database and table or container are there. Raises StoreUnavailable when nobody can tell."""
    try:
        next(place.chunks())
    except (SourceMissing, NotInitialized):
        return False
    return True


def _refuse_contradiction(wish: Wish) -> None:
    if wish.run is not None and wish.at is not None:
        raise BadRequest("A time and a run are named, and each names a state.", hint="Name one of them.")
    if wish.only is not None and wish.run is None:
        raise BadRequest(
            f"What was only {wish.only.lower()} is asked for, and no run is named that did it.",
            hint="Name the run: --run on the command line, `run` over HTTP.",
        )


def _past_run(session: Session, sync_id: str, only: Action | None) -> PastRun:
    """The run whose changes are to be restored. Raises what an undo of it would, but for later changes."""
    run = find_run(session, sync_id)
    refuse_other_keys(session, run)
    refuse_purged(session, run)
    done = "changed" if only is None else only.lower()
    session.note(f"Restores what the run {run.sync_id} {done}, as it was before.")
    return PastRun(run, only, session.backup, session.recycled)


def _refuse_unknown(session: Session, moment: datetime) -> None:
    """Raises BadRequest for a time of which the bin does not know the backup's state."""
    written = f"{moment:%Y-%m-%d %H:%M:%S %Z}"
    if moment > session.run.started_at:
        raise BadRequest(f"{written} lies ahead.", hint="Leave the time out for the newest state.")
    if moment < session.policy.kept_since(session.run.started_at):
        raise BadRequest(
            f"The state as of {written} is not known any more: RecycleDays is {session.policy.recycle_days:g}.",
            hint=_OLDER,
        )
    service = session.run.service
    session.history.refuse_unplaced(service, moment)
    first = session.history.first_synced(service)
    if first is None or moment < session.history.timeline(service, session.steps.now()).ended(first):
        raise BadRequest(
            f"The state as of {written} is not known: it lies before the end of the first sync that completed.",
            hint=_OLDER,
        )


def _refuse_referred(place: Store, extra: PendingDeletes) -> None:
    """Raises GuardTripped when rows of other tables refer to what is to be deleted: what becomes of those is neither
    counted nor kept."""
    if place.relational is None:
        return
    found: Counter[str] = Counter()
    for batch in extra.batches(place.traits.batch_size):
        found.update(place.relational.referring([key for key, _ in batch]))
    if found:
        named = ", ".join(f"{rows} rows of {reference}" for reference, rows in found.items())
        raise GuardTripped(
            f"{len(extra)} records would be deleted in the {place.place.label}, to which others refer: {named}. "
            "Nothing was deleted; what was inserted and updated stands.",
            hint="Delete or change those rows first, or restore without delete-extra. Nothing else lets this pass.",
        )


def _prepare(session: Session, place: Store) -> bool:
    """Makes the place if it must, and checks that it can hold the records; returns whether it is there now."""
    there = exists(place)
    if not there and session.run.dry_run:
        session.note(f"The {place.place.label} does not exist and would be made.")
        return False
    if not there:
        place.catalog.make_source_of(session.backup)
        session.note(f"The {place.place.label} did not exist and was made.")
    dropped = session.backup.catalog.match(place).removed
    session.note(*(f"Column {name} of the backup has no place in the {place.place.label}." for name in dropped))
    return True


def _runs_since(session: Session, moment: datetime) -> Sequence[Run]:
    """The runs that ended after the moment. Raises BadRequest when the bin does not know what one of them replaced."""
    service, timeline = session.run.service, session.history.timeline(session.run.service, session.steps.now())
    runs = session.history.since(service, moment, timeline)
    for run in runs:
        if run.counts.processed and next(session.recycled.of_run(run.sync_id), None) is None:
            raise BadRequest(
                f"The state as of {moment:%Y-%m-%d %H:%M:%S %Z} is not known: the recycle bin has nothing of the run "
                f"{run.sync_id}, which changed records since.",
                hint=_OLDER,
            )
        if not session.recycled.knows_keys_of(run.sync_id):
            raise BadRequest(
                f"The state as of {moment:%Y-%m-%d %H:%M:%S %Z} cannot be told: the key of the "
                f"{session.backup.place.label} has another type than when the run {run.sync_id} changed its records.",
                hint="Name a time after the type has changed, or give the key its old type again.",
            )
    return runs
