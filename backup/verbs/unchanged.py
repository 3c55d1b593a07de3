"""A quiet sync in a few statements: both sides are asked for one fingerprint before the run has an entry.

It settles only what it can prove completely. Everything else is left to the run.
"""

from __future__ import annotations

from backup.core.errors import ConfigError, Interrupted, StoreError, TransientStoreError
from backup.core.run_values import Run
from backup.core.workers import Workers
from backup.mirror.looked import Looked, look_at_all
from backup.mirror.pair import StorePair
from backup.mirror.proof import are_equal, of_fingerprint
from backup.mirror.walk import SECONDS_FOR_THE_REST
from backup.runs.opening import Opening
from backup.runs.outcome import Unchanged
from backup.runs.policy import Policy
from backup.runs.unchanged_runs import may_build_on
from backup.stores import Store
from backup.verbs.schema import notes_of

SMALL_RECORDS = 10_000
"""A table with more records at its last sync is looked at as long as one statement about all of it is quick enough."""


def find_unchanged(
    source: Store, backup: Store, opening: Opening, seconds_left: float, policy: Policy, parallelism: int
) -> Unchanged | Looked | None:
    """What the sync of a table proves, if its last sync changed nothing, its columns are as they should be, and both
    sides are equal now. Else what a look at all of a large table has shown, so that the run need not look again; None
    if there was none. Costs the catalogue and a fingerprint of each side.

    A large table is looked at only where the run would begin with the same look.
    """
    last = next((run for run in opening.newest if not run.only_compares), None)
    if last is None or not may_build_on(last) or last.selection != policy.selection:
        return None
    if last.proof is None or last.counts.processed:
        return None
    copy = backup.relational
    if copy is None or source.relational is None:
        return None
    try:
        drift = copy.drift(source, policy.on_new_column)
        # Only a run takes the first watermark, or says why the source has none.
        if not drift.is_followed or (source.incremental is not None and last.watermark is None):
            return None
        if backup.traits.follows_indexes and copy.index_plan(source).missing:
            return None
        is_small = last.proof.source.records <= SMALL_RECORDS
        looked = _small_look(source, backup) if is_small else _look(source, backup, last, seconds_left, parallelism)
    except (ConfigError, StoreError):  # the run meets it again, and its entry says so
        return None
    if looked is None or looked.equal is None:
        return looked
    # If nothing has changed, what was in the backup up to the last watermark still is.
    watermark = None if source.incremental is None else last.watermark
    return Unchanged(looked.equal, tuple(notes_of(drift)), watermark)


def _small_look(source: Store, backup: Store) -> Looked | None:
    """The proof of all of a small table, if both sides are equal; else None: to look again costs little."""
    assert source.relational is not None  # noqa: S101 - for mypy; the caller has looked
    assert backup.relational is not None  # noqa: S101 - the same
    with Workers(1 if source.traits.in_process else 2) as workers:  # a thread costs more than so short a statement
        left, right = workers.both(source.relational.small_fingerprint, backup.relational.small_fingerprint)
    return None if left is None or not are_equal(left, right) else Looked(of_fingerprint(left))


def _look(source: Store, backup: Store, last: Run, seconds_left: float, parallelism: int) -> Looked | None:
    """What a look at all of a large table shows, if the run would begin with it; else None."""
    assert last.proof is not None  # noqa: S101 - for mypy; the caller has looked
    records, seconds = last.proof.source.records, (last.duration_ms or 0) / 1000
    # What the source names as changed is copied before all is compared.
    may_look = source.incremental is None and seconds_left > SECONDS_FOR_THE_REST
    for side in (source.relational, backup.relational):
        may_look = may_look and side is not None and side.may_look_at_once(records, seconds)
    if not may_look:
        return None
    try:
        with Workers(min(2, parallelism)) as workers:
            return look_at_all(StorePair(source, backup, workers), records)
    except TransientStoreError as error:
        return Looked(unanswered=error if error.unanswered else None)
    except (StoreError, Interrupted):  # the run does not ask once more for all of it; or it is left to another call
        return Looked()
