"""Whether somebody else has emptied a backup between two runs, or has made its table anew. Knows no store."""

from __future__ import annotations

from collections.abc import Sequence

from backup.core.run_values import Run
from backup.runs.history import is_synced


def found_empty(runs: Sequence[Run]) -> Run | None:
    """The newest of these runs that found the backup empty, though the sync that completed before it had left records
    there, and no run since has deleted them; None if there is none.

    `runs` are all of a service from one of its runs on that may have changed the backup, newest first. What a run has
    found follows from its counts, so only syncs that completed by the same rules tell it.
    """
    empty = None
    before: Run | None = None  # the last sync that completed
    inserted = 0  # since then, by undos and by syncs that did not complete; less what they deleted
    for run in reversed(runs):
        counts = run.counts
        if is_synced(run) and run.proof is not None:
            found = counts.skipped + counts.updated + counts.deleted - inserted
            had = before is not None and before.proof is not None and before.proof.backup.records > 0
            is_same = before is not None and before.selection == run.selection
            if had and is_same and found <= 0:
                empty = run
            before, inserted = run, 0
        else:
            inserted += counts.inserted - counts.deleted
    return empty
