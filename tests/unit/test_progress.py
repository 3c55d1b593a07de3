"""The progress of several services as that of one run."""

from __future__ import annotations

from dataclasses import replace

from backup.core.model import utc_now
from backup.core.run_values import Counts, Proof, Run, Status, Total, Trigger
from backup.runs.outcome import Observer, Outcome
from backup.services.service import NO_OPTIONS
from backup.services.several_as_one import CallOfSeveral, ProgressAsOne, as_one
from backup.services.turns import new_run_of_several


class Listener(Observer):
    """What it was told last."""

    def __init__(self) -> None:
        self.counts, self.percent = Counts(), 0

    def progress(self, service: str, counts: Counts) -> None:
        assert service == "shop"
        self.counts = counts

    def walked(self, run: Run) -> None:
        assert run.service == "shop"
        assert run.percent is not None
        self.percent = run.percent


def run_of(service: str, inserted: int = 0, percent: int | None = None, proof: Proof | None = None) -> Run:
    counts = Counts(inserted=inserted)
    return Run(service, Trigger.JOB, False, utc_now(), counts=counts, percent=percent, proof=proof)


def ended(run: Run) -> Outcome:
    return Outcome(run.ended(Status.COMPLETED, utc_now(), run.counts, None))


def test_progress_of_several_services_goes_on_from_earlier_slices_and_counts_a_resumed_run_once() -> None:
    listener = Listener()
    earlier = replace(new_run_of_several("shop", Trigger.JOB, NO_OPTIONS), counts=Counts(inserted=10), percent=50)
    progress = ProgressAsOne(earlier, listener, CallOfSeveral.NEXT)
    progress.expects(4)
    progress.started(run_of("shop/a", 4))  # resumed: these 4 are among the 10
    progress.progress("shop/a", Counts(inserted=5))
    progress.progress("shop/b", Counts(inserted=2))
    assert listener.counts == Counts(inserted=13)
    percents = []
    for run, has_ended in ((run_of("a", percent=40), False), (run_of("b"), True), (run_of("a", percent=20), False)):
        if has_ended:
            progress.ended(ended(run))
        else:
            progress.walked(run)
        percents.append(listener.percent)
    assert percents == [55, 67, 67]  # a second run of one service does not set it back
    for name in "abcd":
        progress.ended(ended(run_of(name)))
    assert listener.percent == 99  # it has not ended before its record says so


def test_a_run_of_several_services_has_proven_what_all_slices_have_or_claims_nothing() -> None:
    first = new_run_of_several("shop", Trigger.JOB, NO_OPTIONS)
    a, b = (run_of(name, 3, proof=Proof(Total(3, 1), Total(3, 1))) for name in "ab")
    left = as_one(first, [ended(a), Outcome(run_of("b", 1, percent=50))]).run
    assert (left.status, left.percent, left.counts.inserted) == (Status.IN_PROGRESS, 75, 4)
    assert left.proof is not None
    assert left.proof.backup.records == 3
    whole = as_one(replace(left, counts=Counts(inserted=3)), [ended(b)]).run
    assert whole.proof is not None
    assert (whole.proof.backup.records, whole.counts.inserted, whole.percent) == (6, 6, None)
    assert as_one(replace(left, proof=None), [ended(b)]).run.proof is None
    assert as_one(first, [ended(a), ended(run_of("b"))]).run.proof is None
