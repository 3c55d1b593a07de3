"""How a sync goes on from the watermark of the last one, and which watermark it leaves itself."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import NamedTuple

from backup.core.run_values import Run
from backup.core.suggestions import quantity
from backup.mirror.steps import Steps
from backup.runs.session import Session

NO_HINT = (
    "FullEveryDays is of no use: ModifiedBy names no column, and no index begins with a rowversion as the version. "
    "All records are compared in every run."
)
"""The note where a service is to count, and its source cannot say what was written lately."""

_COMPARED = " compared "  # between a watermark and the time of the last full comparison
_FILTERED = " filter "  # before the hash of the filter, if there is one
_OF = " of "  # before the containers that it speaks of, if those have names of their own
_BESIDE, _SIDES = "-", ("source", "backup")
_LOOKS_OF_A_COPY = 8  # to copy all records takes as long as so many looks at them: docs/decisions/whole-table.md
_EARLY = timedelta(hours=1)  # a timer does not fire at the same second every week


def from_watermark(session: Session, steps: Steps) -> Steps:
    """The steps of a run that asks its source for what has changed since the last watermark, if the source knows that.

    Such a run records its own watermark. It takes it before it reads anything; the watermark counts once the run has
    completed, and carries the time of the last full comparison, a hash of the filter, and the containers it speaks of.
    Without a watermark, when the last full comparison is old, with another filter or container, with force, and with a
    limit, only stamps count. A run with a limit does not read first what has changed lately, because it goes by the
    order of keys.

    Where fingerprints are enough alone, every run is a full comparison, by them, unless the policy lets it count. There
    the source is not asked in those cases, and not by a dry or a resumed run.
    """
    now = steps.now()
    incremental = session.source.incremental
    if incremental is None:
        if session.policy.needs_hint and NO_HINT not in session.run.notes:
            session.note(NO_HINT)
        return steps
    mark = incremental.watermark()
    if (obstacle := incremental.obstacle) is not None and obstacle not in session.run.notes:
        session.note(obstacle)
    if mark is None:
        return steps
    last, run, compares_all = session.last_synced(), session.run, session.source.traits.fingerprint_is_enough
    since, compared, filtered, of = _parts(last.watermark if last else None)
    own_filter = sha256(session.policy.where.encode()).hexdigest()[:16] if session.policy.where else ""
    later = [] if last is None else session.history.later(last, session.opening)
    # A record that an undo brought back may have the same seconds as the record that the undo took away.
    undone = any(run_after.undone for run_after in later)
    # Records of another filter may be as many, written in the same seconds.
    full = run.forced or run.limit is not None or undone or filtered != own_filter or not since
    # Times of another container say nothing of this one, though it may have as many records, and of the same seconds.
    full = full or of != _containers(session)
    oldest = now - timedelta(days=session.policy.full_every_days) + _EARLY
    # A time that lies ahead is of a clock that was wrong.
    is_fresh = bool(since) and oldest <= datetime.fromisoformat(compared) <= now
    if not (full or compares_all):
        # What began as a full comparison stays one. Without its watermark, a sync has begun again with other rules.
        is_another = session.resumed and _parts(run.watermark).compared != compared
        full = is_another or not is_fresh
    catches_up = not (full or session.resumed or run.dry_run)
    counts = compares_all and catches_up and is_fresh and not later and _may_count(session, last, mark)
    if not (session.resumed and run.watermark):
        at = compared if counts or not (full or compares_all) else now.isoformat()
        session.run = replace(run, watermark=_Parts(mark, at, own_filter, _containers(session)).text)
    steps = replace(steps, overlap_seconds=session.policy.overlap_seconds)
    if compares_all:
        if not catches_up or last is None:
            return steps
        # What has changed is copied first, so the rest is probably equal, and may be compared at once.
        quiet_records = last.proof.source.records if last.proof is not None else 0
        copied_all = last.counts.inserted == quiet_records
        quiet_seconds = steps.quiet_seconds / (_LOOKS_OF_A_COPY if copied_all else 1)
        return replace(steps, since=since, quiet_records=quiet_records, quiet_seconds=quiet_seconds, counts=counts)
    return replace(steps, since=None if run.limit is not None else since or None, full=full)


def tell_what_was_compared(session: Session) -> None:
    """Notes that a run has only counted the records that its source did not name. A run that was to count, and has
    compared everything, has its time in its watermark."""
    proof, run = session.tally.proof, session.run
    if run.dry_run or proof is None or not session.source.traits.fingerprint_is_enough:
        return
    parts = _parts(run.watermark)
    if proof.only_counts:
        at = f"{datetime.fromisoformat(parts.compared):%Y-%m-%d %H:%M}"
        session.note(
            f"Both sides have {quantity(proof.source.records, 'record')}. Only those were compared that the source "
            f"names as written lately. All were compared at {at} UTC, and are every "
            f"{quantity(session.policy.full_every_days, 'day')}."
        )
    elif parts.mark and session.policy.may_count:
        session.run = replace(run, watermark=parts._replace(compared=run.started_at.isoformat()).text)


def _may_count(session: Session, last: Run | None, mark: str) -> bool:
    """Whether equal numbers may settle what the source does not name, if everything was compared not long ago: the last
    sync had the same rules, and the source's newest value has not fallen, as it does where an older state was restored.
    Nor has this app restored records since, with the values that they had.
    """
    if last is None:
        return False
    since = _parts(last.watermark).mark
    transforming, incremental, policy = session.source.transforming, session.source.incremental, session.policy
    return (
        policy.may_count
        and (last.selection, last.masks) == (policy.selection, session.source.traits.masks)
        and not (transforming is not None and transforming.may_leave_out)
        and incremental is not None
        and not incremental.has_fallen(since, mark)
        and not session.history.later(last, session.opening, restores=True)
    )


def exchanged_since(session: Session) -> list[str]:
    """The sides on which the run began with another container than it goes on with: `source`, `backup`. A container
    counts as another one, too, once its settings were changed."""
    began = _parts(session.run.watermark).of.split(_BESIDE)
    if not session.resumed or len(began) != len(_SIDES):  # an earlier release named none
        return []
    now = _containers(session).split(_BESIDE)
    return [side for side, then, here in zip(_SIDES, began, now, strict=False) if then != here]


def _containers(session: Session) -> str:
    """The containers of both sides, as `Incremental.of` has them; empty on SQL."""
    source, backup = session.source.incremental, session.backup.incremental
    return f"{source.of}{_BESIDE}{backup.of}" if source is not None and source.of and backup is not None else ""


class _Parts(NamedTuple):
    """The mark of the source in a watermark, the time of the last full comparison, the hash of the filter, and the
    containers. What is empty is not in the text; but containers stand where earlier releases look for a filter."""

    mark: str
    compared: str
    filtered: str
    of: str

    @property
    def text(self) -> str:
        more = f"{(self.filtered or self.of) and _FILTERED}{self.filtered}{self.of and _OF}{self.of}"
        return f"{self.mark}{_COMPARED}{self.compared}{more}"


def _parts(watermark: str | None) -> _Parts:
    """The parts of this watermark; an earlier release wrote some without containers."""
    since, _, rest = (watermark or "").rpartition(_COMPARED)  # a mark may have the name of a column
    rest, _, of = rest.partition(_OF)
    compared, _, filtered = rest.partition(_FILTERED)
    return _Parts(since, compared, filtered, of)
