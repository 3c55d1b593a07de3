"""Several runs told as one: their progress, and how they ended. Runs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import Enum
from threading import Lock
from typing import NamedTuple

from backup.core.errors import BackupError, Cancelled, Interrupted, Locked, SetFailed, SetNotWhole
from backup.core.log import redact
from backup.core.model import utc_now
from backup.core.run_values import Counts, Proof, Run, Status
from backup.core.suggestions import quantity
from backup.mirror.tally import first_of_each_outcome
from backup.runs.outcome import Observer, Outcome

_NAMED = 5


class CallOfSeveral(Enum):
    """Which call of a run of several services it is. What the calls before have counted has, or has not, what open runs
    have done so far: a call that died has left the counts of ended runs alone."""

    FIRST = "first"
    NEXT = "next"
    AFTER_DEATH = "after death"


class RunSoFar(NamedTuple):
    """A run of several services with the counts, the percent and the proof of its calls until now; which call is next;
    and what failed in those before."""

    run: Run
    call: CallOfSeveral = CallOfSeveral.FIRST
    failure: SetFailed | None = None


class ProgressAsOne(Observer):
    """Tells an observer the progress of several services as that of one run. For any thread.

    `run` is what the calls before this one have made of it: its counts, and its percent.
    """

    def __init__(self, run: Run, observer: Observer, call: CallOfSeveral) -> None:
        self.run, self._call = run, call
        self._observer, self._expected, self._lock = observer, 1, Lock()
        self._counts: dict[str, Counts] = {}
        self._percent_of: dict[str, int] = {}

    def expects(self, services: int) -> None:
        """As `Observer` says."""
        self._expected = services

    def started(self, run: Run) -> None:
        """As `Observer` says. What a resumed run has counted before is in its next counts again, so it is no more among
        those of earlier calls."""
        if self._call is not CallOfSeveral.AFTER_DEATH:
            with self._lock:
                self.run = replace(self.run, counts=self.run.counts.less(run.counts))

    def progress(self, service: str, counts: Counts) -> None:
        """As `Observer` says."""
        self._counts[service] = counts
        self._observer.progress(self.run.service, sum(list(self._counts.values()), self.run.counts))

    def walked(self, run: Run) -> None:
        """As `Observer` says."""
        self._tell(run.service, run.percent or 0)

    def ended(self, outcome: Outcome) -> None:
        """As `Observer` says."""
        self._tell(outcome.run.service, (outcome.run.percent or 0) if outcome.in_progress else 100)

    def _tell(self, service: str, percent: int) -> None:
        self._percent_of[service] = max(percent, self._percent_of.get(service, 0))
        walked = sum(list(self._percent_of.values()))
        self._observer.walked(replace(self.run, percent=_percent_of_all(self.run, walked, self._expected)))


def _percent_of_all(run: Run, walked: int, services: int) -> int:
    """How far all services are together: those of earlier calls of the run, and these, which have walked so many
    percent each, added up."""
    before = run.percent or 0
    return min(99, before + (100 - before) * walked // (100 * max(1, services)))


def as_one(
    run: Run, outcomes: Sequence[Outcome], failure: SetFailed | None = None, *, consistent: bool = False
) -> Outcome:
    """Returns the outcome of all these syncs as that of one run.

    It is in progress while one of them is. It has failed with SetFailed if some failed; with Locked if these only met
    other runs. It has proven what all of them have proven. It has read as of one moment if all of them have read as of
    the same.

    - `run`: what was asked for, with the counts, the percent and the proof of its earlier calls. If these have no
      proof, the run has none either.
    - `failure`: what failed in its earlier calls.
    - `consistent`: it was to read as of one moment, and says whether it did.
    """
    counts = sum((outcome.run.counts for outcome in outcomes), run.counts)
    failures = [(outcome.run.service, outcome.error) for outcome in outcomes if outcome.error is not None]
    errors = tuple(error for _, error in failures)
    unfinished = sum(outcome.in_progress for outcome in outcomes)
    proofs = [outcome.run.proof for outcome in outcomes if not outcome.in_progress and outcome.run.proof is not None]
    is_known = run.proof is not None and len(proofs) + unfinished == len(outcomes)
    proof = sum(proofs, run.proof or Proof()) if is_known else None
    stops = [error for error in errors if isinstance(error, Cancelled | Interrupted)]
    error: BackupError | None = None
    if stops:
        error = stops[0]
    elif errors:
        only_met_others = all(isinstance(error, Locked) for error in errors)
        error = errors[0] if only_met_others else _set_failed(run.service, failures, len(outcomes), unfinished)
    if failure is not None and not stops:
        error = failure if error is None else _both(failure, error)
    if unfinished and not stops:
        walked = sum((outcome.run.percent or 0) if outcome.in_progress else 100 for outcome in outcomes)
        percent = _percent_of_all(run, walked, len(outcomes))
        return Outcome(replace(run, status=Status.IN_PROGRESS, counts=counts, percent=percent, proof=proof), error)
    status = Status.COMPLETED if error is None else Status.FAILED
    charges = [outcome.run.request_charge for outcome in outcomes if outcome.run.request_charge is not None]
    run = replace(run, error_kind=type(error).__name__ if error else None, proof=proof)
    run = replace(run, request_charge=sum(charges) if charges else None)
    moments = {outcome.run.read_as_of for outcome in outcomes}
    run = replace(run, read_as_of=moments.pop() if len(moments) == 1 else None)
    if consistent and run.read_as_of is not None:
        run = replace(
            run, notes=(*run.notes, f"Its tables were read as of one moment: {run.read_as_of:%Y-%m-%d %H:%M:%S} UTC.")
        )
    elif consistent:
        others = [outcome.run.service for outcome in outcomes if outcome.run.read_as_of is None]
        but = f": not {first_of(others)}" if len(others) < len(outcomes) else ""
        run = replace(run, notes=(*run.notes, f"Its tables were not all read as of one moment{but}."))
    return Outcome(run.ended(status, utc_now(), counts, redact(str(error)) if error else None), error)


def _set_failed(name: str, failures: Sequence[tuple[str, BackupError]], number: int, unfinished: int) -> SetFailed:
    named = first_of([f"{service} ({type(error).__name__})" for service, error in failures])
    done = number - len(failures) - unfinished
    kind = SetNotWhole if name in dict(failures) else SetFailed
    return kind(
        f"{len(failures)} of {quantity(number, 'service')} of {name} failed: {named}. "
        f"{quantity(done, 'was', 'were')} done. {failures[0][0]}: "
        f"{failures[0][1]}",
        hint=failures[0][1].hint or None,
        errors=tuple(error for _, error in failures),
    )


def _both(failure: SetFailed, error: BackupError) -> SetFailed:
    """The failure of earlier calls and what failed in this one."""
    errors = error.errors if isinstance(error, SetFailed) else (error,)
    kind = SetNotWhole if isinstance(failure, SetNotWhole) or isinstance(error, SetNotWhole) else SetFailed
    return kind(f"{failure} {error}", hint=failure.hint or None, errors=errors)


def first_of(names: Sequence[str]) -> str:
    """Returns the first of the names in a sentence, and how many more there are."""
    rest = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + rest


def runs_as_one(outcomes: Sequence[Outcome]) -> Outcome:
    """Returns several runs of one service as one outcome: that of the last run, with what all have written, changed and
    noted. `outcomes` are in the order of the runs."""
    last, counts = outcomes[-1], outcomes[-1].run.counts
    written = {
        kind: sum(getattr(outcome.run.counts, kind) for outcome in outcomes[:-1])
        for kind in ("inserted", "updated", "deleted")
    }
    skipped = max(0, counts.skipped - written["inserted"] - written["updated"])
    run = replace(
        last.run,
        started_at=outcomes[0].run.started_at,
        counts=replace(counts.plus(**written), skipped=skipped),
        notes=tuple(dict.fromkeys(note for outcome in outcomes for note in outcome.run.notes)),
    )
    changes = dict.fromkeys(change for outcome in outcomes for change in outcome.changes)
    return replace(last, run=run, changes=first_of_each_outcome(changes))
