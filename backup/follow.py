"""A sync that first lets the backup's schema follow its source's, and fails unless it is proven at its end."""

from __future__ import annotations

import logging

from backup.errors import NotVerified
from backup.log import event
from backup.recorded import Session
from backup.sync import refuse_early, sync


def sync_with_schema(session: Session) -> None:
    """Asks the guard, adapts the backup's columns, syncs, and looks at the proof.

    New columns are filled by copying every record again, as with force; a run that dies meanwhile has told the next one
    in SyncHistory what is left to fill. Raises SchemaMismatch before anything is changed, NotVerified after the sync
    was done, and what `sync` raises.
    """
    run, backup = session.run, session.backup
    drift = backup.drift(session.source, session.policy.on_new_column)
    to_fill = tuple(sorted({*drift.added, *session.history.columns_to_fill(run.service, drift.shared)}))
    notes = [
        *(f"Column {name} is new; every record is copied again to fill it." for name in to_fill),
        *(f"Column {name} is widened as in the source." for name in drift.widened),
        *(f"Column {name} is no longer in the source; it stays in the backup." for name in drift.removed),
        *(f"Column {name} is not copied, since OnNewColumn is ignore." for name in drift.ignored),
    ]
    if notes:
        event("sync.schema", level=logging.WARNING, service=run.service, sync_id=run.sync_id, notes=" ".join(notes))
        # Recorded before the columns are there, for the run may die right after.
        forced = run.forced or bool(to_fill)
        session.become(forced=forced, added_columns=to_fill, removed_columns=drift.removed, notes=tuple(notes))
    refuse_early(session.source, backup, session.run, session.policy.guard)
    if not run.dry_run:
        backup.adapt(drift)
    sync(session.source, backup, session.run, session.tally, session.policy.guard, session.steps)
    proof = session.tally.proof
    if proof is not None and not proof.verified:
        raise NotVerified(
            f"The sync ended, but {proof.differing} records of the {backup.label} differ from the source."
        )
