"""Whether somebody else has emptied a backup between two runs, or has made its table anew. Knows no store."""

from __future__ import annotations

from collections.abc import Sequence

from backup.core.errors import Interrupted
from backup.core.run_values import Run
from backup.runs.history import is_synced


def found_empty(runs: Sequence[Run]) -> Run | None:
    """The newest of these runs that found the backup empty, though the sync that completed before it had left records
    there, and no run since has deleted them; None if there is none.

    `runs` are all of a service from one of its runs on that may have changed the backup, newest first. What a run has
    found follows from its counts, so only syncs that completed by the same rules tell it. A run that died is counted by
    the bin, which knows how it changed each record first, and not what became of the record later.
    """
    empty = None
    before: Run | None = None  # the last sync that completed
    left = 0  # records, by that sync
    inserted = 0  # since then, by undos and by syncs that did not complete; less what they deleted
    surely = 0  # so many of these are there, at least
    for run in reversed(runs):
        counts = run.counts
        if is_synced(run) and run.proof is not None:
            found = counts.skipped + counts.updated + counts.deleted
            is_same = before is not None and before.selection == run.selection
            if left > 0 and is_same and found <= inserted and found < left + surely:
                empty = run
            before, left, inserted, surely = run, run.proof.backup.records, 0, 0
        else:
            inserted += counts.inserted - counts.deleted
            has_died = run.error_kind == Interrupted.__name__
            surely -= counts.deleted + counts.updated if has_died else counts.deleted - counts.inserted
    return empty
