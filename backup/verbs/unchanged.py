"""A quiet sync in a few statements: both sides are asked for one fingerprint before the run has an entry.

It settles only what it can prove completely. Everything else is left to the run.
"""

from __future__ import annotations

from backup.core.errors import ConfigError, StoreError
from backup.core.workers import Workers
from backup.mirror import proof
from backup.runs.opening import Opening
from backup.runs.outcome import Unchanged
from backup.runs.policy import Policy
from backup.runs.unchanged_runs import may_build_on
from backup.stores import Store
from backup.verbs.schema import notes_of

SMALL_RECORDS = 10_000
"""A table with more records at its last sync is walked in chunks: its fingerprint is what costs there."""


def find_unchanged(source: Store, backup: Store, opening: Opening, policy: Policy) -> Unchanged | None:
    """What the sync of a small table proves, if its last sync changed nothing, its columns are as they should be, and
    the fingerprints of both sides are equal; else None. Costs the catalogue and a fingerprint of each side."""
    last = next((run for run in opening.newest if not run.only_compares), None)
    if last is None or not may_build_on(last) or last.selection != policy.selection:
        return None
    if last.proof is None or last.proof.source.records > SMALL_RECORDS or last.counts.processed:
        return None
    original, copy = source.relational, backup.relational
    if original is None or copy is None:
        return None
    try:
        drift = copy.drift(source, policy.on_new_column)
        # Only a run takes the first watermark, or says why the source has none.
        if not drift.is_followed or (source.incremental is not None and last.watermark is None):
            return None
        with Workers(1 if source.traits.in_process else 2) as workers:  # a thread costs more than so short a statement
            left, right = workers.both(original.small_fingerprint, copy.small_fingerprint)
        if left is None or not proof.are_equal(left, right):
            return None
        if backup.traits.follows_indexes and copy.index_plan(source).missing:
            return None
    except (ConfigError, StoreError):  # the run meets it again, and its entry says so
        return None
    # If nothing has changed, what was in the backup up to the last watermark still is.
    watermark = None if source.incremental is None else last.watermark
    return Unchanged(proof.of_fingerprint(left), tuple(notes_of(drift)), watermark)
