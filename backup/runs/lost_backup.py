"""What becomes of a sync that lost connections to its backup behind its last proof. Reads only."""

from __future__ import annotations

from backup.core.errors import BackupError, StoreUnavailable
from backup.core.run_values import Run, Verb
from backup.core.workers import Workers
from backup.mirror.looked import look_at_all
from backup.mirror.pair import StorePair
from backup.runs.session import Session


def lost_behind_proof(session: Session, ended: Run) -> StoreUnavailable | None:
    """The error of a sync that has written, and lost connections to the backup since it was last asked about that:
    another server may answer since then, without the last writes. None if both sides are seen to be equal once more.

    Costs nothing without such a loss, else a look at all of both sides. What the source has changed meanwhile, or what
    has no fingerprint, counts as not seen.
    """
    has_written = ended.verb is Verb.SYNC and not ended.dry_run and ended.counts.processed
    if not has_written or not session.has_lost_backup() or _are_equal(session, ended):
        return None
    return StoreUnavailable(
        f"Connections to the {session.backup.place.label} were lost when the run had done its work. If another server "
        "answers since then, it may lack the last writes.",
        hint="Run it again: it writes what is missing.",
    )


def _are_equal(session: Session, ended: Run) -> bool:
    is_told_by_versions = session.source.traits.fingerprint_is_enough and not ended.forced
    if ended.proof is None or not is_told_by_versions:
        return False
    try:
        with Workers(2) as workers:
            pair = StorePair(session.source, session.backup, workers)
            return look_at_all(pair, ended.proof.source.records).equal is not None
    except BackupError:
        return False
