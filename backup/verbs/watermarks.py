"""How a sync goes on from the watermark of the last one, and which watermark it leaves itself."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256

from backup.mirror.writing import Steps
from backup.runs.runner import Session

_COMPARED = " compared "  # between a watermark and the time of the last full comparison
_FILTERED = " filter "  # before the hash of the filter, if there is one
_EARLY = timedelta(hours=1)  # a timer does not fire at the same second every week


def from_watermark(session: Session, steps: Steps) -> Steps:
    """The steps of a run that asks its source for what has changed since the last watermark, if the source knows that.

    Such a run records its own watermark. It takes it before it reads anything; the watermark counts once the run has
    completed, and carries the time of the last full comparison and a hash of the filter. Without a watermark, when the
    last full comparison is old, with another filter, with force, and with a limit, only stamps count. A run with a
    limit does not read first what has changed lately, because it goes by the order of keys.

    Where fingerprints are enough alone, every run is a full comparison, by them. There the source is not asked in those
    cases, and not by a dry or a resumed run.
    """
    now = steps.now()
    incremental = session.source.incremental
    if incremental is None:
        return steps
    mark = incremental.watermark()
    if (obstacle := incremental.obstacle) is not None and obstacle not in session.run.notes:
        session.note(obstacle)
    if mark is None:
        return steps
    last, run, compares_all = session.last_synced(), session.run, session.source.traits.fingerprint_is_enough
    since, compared, filtered = _parts(last.watermark if last else None)
    own_filter = sha256(session.policy.where.encode()).hexdigest()[:16] if session.policy.where else ""
    # A record that an undo brought back may have the same seconds as the record that the undo took away.
    undone = last is not None and any(later.undone for later in session.history.later(last, session.opening))
    # Records of another filter may be as many, written in the same seconds.
    full = run.forced or run.limit is not None or undone or filtered != own_filter or not since
    if not (full or compares_all):
        oldest = now - timedelta(days=session.policy.full_every_days) + _EARLY
        # What began as a full comparison stays one. Without its watermark, a sync has begun anew with other rules.
        is_another = session.resumed and _parts(run.watermark)[1] != compared
        full = is_another or datetime.fromisoformat(compared) < oldest
    if not (session.resumed and run.watermark):
        at = now.isoformat() if full or compares_all else compared
        session.run = replace(run, watermark=f"{mark}{_COMPARED}{at}{own_filter and _FILTERED}{own_filter}")
    steps = replace(steps, overlap_seconds=session.policy.overlap_seconds)
    if compares_all:
        if full or session.resumed or run.dry_run or last is None:
            return steps
        # What has changed is copied first, so the rest is probably equal, and may be compared at once.
        return replace(steps, since=since, quiet_records=last.proof.source.records if last.proof is not None else 0)
    return replace(steps, since=None if run.limit is not None else since or None, full=full)


def _parts(watermark: str | None) -> tuple[str, str, str]:
    """The mark of the source in a watermark, the time of the last full comparison, and the hash of the filter."""
    since, _, rest = (watermark or "").rpartition(_COMPARED)  # a mark may have the name of a column
    compared, _, filtered = rest.partition(_FILTERED)
    return since, compared, filtered
