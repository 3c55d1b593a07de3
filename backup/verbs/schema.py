"""What a sync does before it copies: it brings the backup's columns in line with the source, and notes what changed."""

from __future__ import annotations

import logging
from typing import Any

from backup.core.errors import SchemaMismatch
from backup.core.log import event
from backup.mirror.checkpoint import Checkpoint
from backup.mirror.one_sync import refuse_early
from backup.runs.columns_to_fill import columns_to_fill
from backup.runs.session import Session
from backup.stores import Drift

RULES = "Filter, columns, version, masks, transform or deletes"
"""What a person may change between two syncs, for sentences about it."""

MASKS_CHANGED = "The masks are others than when the sync began; it compares every record again, and cannot be undone."


def follow_schema(session: Session) -> Checkpoint:
    """Compares the columns of both sides, asks the guard, and alters the backup's table. Returns where the sync begins.

    To fill new columns the sync copies every record again, as with force. It does the same for widened columns, because
    whoever widened them may have rewritten their values under the same versions. If the run dies, SyncHistory tells the
    next run which columns to fill. Raises SchemaMismatch, and what `refuse_early` raises, before anything is changed.
    """
    drift = _drift_of(session)
    unfilled = columns_to_fill(session.history, session.run.service, session.opening, drift.shared)
    start = _tell_changes(session, drift, to_fill=tuple(sorted({*drift.added, *drift.widened, *unfilled})))
    backup, relational = session.backup, session.backup.relational
    refuse_early(session.source, backup, session.run, session.policy.guard)
    if relational is not None and not session.run.dry_run:
        relational.adapt(drift)
        if session.kept_deleted:
            relational.recognize_deleted()
    if not all(backup.keys.may_hold(key) for key in (start.begin, start.after) if key is not None):
        return Checkpoint()  # the key has another type now
    return start


def refuse_altered(session: Session) -> None:
    """Raises SchemaMismatch if a column of the source has got another type since a run that has written began: its
    values were written as of the old type; or if another table or container has its name now: the backup may have
    records of both. Or if another container has the backup's name: it lacks what was written before. Writes into the
    entry which columns the next run has to fill."""
    relational = session.source.relational
    if session.run.dry_run or not session.tally.counts.processed:
        return
    if relational is None:
        for store, harm in ((session.source, "may have documents of both"), (session.backup, "may lack documents")):
            if store.catalog.is_another():
                raise SchemaMismatch(
                    f"Another container took the place of the {store.place.label} while the run was at work. The "
                    f"backup {harm}.",
                    hint="Sync again: it compares everything.",
                )
        return
    names, is_other_table = relational.altered()
    if names:
        session.become(added_columns=tuple(sorted({*session.run.added_columns, *names})))
        if is_other_table:
            raise SchemaMismatch(
                f"Another table took the place of the {session.source.place.label} while the run was at work. The "
                "backup may have records of both.",
                hint="Sync again: it copies every record again.",
            )
        columns = f"column{'s' * (len(names) > 1)} {', '.join(sorted(names))}"
        raise SchemaMismatch(
            f"The {columns} of the {session.source.place.label} got another type while the run was at work. What it "
            "wrote before may lack a part of the values.",
            hint="Sync again: it follows the new type where it can, and copies every record again.",
        )


def notes_of(drift: Drift) -> list[str]:
    """What to note about columns that need no change."""
    return ["The source has no version column; every record is compared by its content."] * drift.unversioned


def _drift_of(session: Session) -> Drift:
    run, backup = session.run, session.backup
    try:
        if backup.relational is None:
            return backup.catalog.match(session.source)
        return backup.relational.drift(session.source, session.policy.on_new_column)
    except SchemaMismatch as error:
        if not run.dry_run:  # once somebody alters the columns, nothing else shows that their values are old
            session.become(added_columns=tuple(sorted({*run.added_columns, *error.columns})))
        raise


def _tell_changes(session: Session, drift: Drift, to_fill: tuple[str, ...]) -> Checkpoint:
    """Writes into the run's entry how columns and rules differ from those of before. Returns where the sync begins: at
    the beginning, if what an earlier call has walked followed others."""
    run, start = session.run, session.start
    masks, selection = session.source.traits.masks, session.policy.selection
    rules_changed = (run.masks, run.selection) != (masks, selection)
    notes = _notes_on_columns(drift, to_fill)
    if session.resumed and run.masks != masks:
        notes.append(MASKS_CHANGED)
    elif session.resumed and rules_changed and run.selection is not None:  # an earlier release wrote none
        notes.append(f"{RULES} are others than when the sync began; it compares every record again.")
    changed = dict[str, Any]()
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
        # In a single write, and before the columns are added: the run may die right after.
        session.become(**changed)
    return start


def _notes_on_columns(drift: Drift, to_fill: tuple[str, ...]) -> list[str]:
    return [
        *(
            f"Column {name} is {'widened as in the source' if name in drift.widened else 'new'}; "
            "every record is copied again to fill it."
            for name in to_fill
        ),
        *notes_of(drift),
        *(f"Column {name} is not copied any more; it stays in the backup." for name in drift.removed),
        *(f"Column {name} is not copied, since OnNewColumn is ignore." for name in drift.ignored),
    ]
