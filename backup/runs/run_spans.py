"""What a run tells OpenTelemetry: its span, and its numbers. Costs nothing while nobody listens."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import asdict

from backup.core import spans
from backup.core.errors import Locked
from backup.core.run_values import Run
from backup.runs.outcome import Outcome


def span_of(run: Run) -> AbstractContextManager[spans.Span]:
    """The span of the run, while it lasts."""
    about = {"service": run.service, "verb": run.verb, "sync_id": run.sync_id, "trigger": run.trigger}
    return spans.span("backup.run", **about, forced=run.forced, dry_run=run.dry_run)


def tell_span(span: spans.Span, outcome: Outcome) -> None:
    """Says in the run's span how it ended."""
    run = outcome.run
    span.tell(status=run.status, verified=run.verified, request_charge=run.request_charge, **vars(run.counts))
    if outcome.error is not None:
        span.failed(outcome.error)


def count_run(outcome: Outcome) -> None:
    """Adds an ended run to the numbers. One that only met another run is none."""
    run = outcome.run
    if not spans.is_heard() or run.completed_at is None or run.dry_run or isinstance(outcome.error, Locked):
        return
    spans.count("backup.runs", service=run.service, verb=run.verb, status=run.status)
    spans.measure("backup.run.duration", (run.duration_ms or 0) / 1000, service=run.service, verb=run.verb)
    for change, number in asdict(run.counts).items():
        if number and change != "remaining":
            spans.count("backup.records", number, service=run.service, verb=run.verb, change=change)
    if run.request_charge:
        spans.count("backup.request_units", run.request_charge, service=run.service, verb=run.verb)
