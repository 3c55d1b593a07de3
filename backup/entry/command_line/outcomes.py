"""Prints runs that have just ended: their counts, notes and errors. Also prints the app's health."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from datetime import datetime

from backup.core.batched import first_of_each
from backup.core.run_values import Run
from backup.core.suggestions import quantity
from backup.entry.answers import Answer, report_of
from backup.entry.command_line.grid import GridColumn, GridRow, natural_order
from backup.entry.command_line.terminal import is_terminal, key_text, plain, say, show_grid, show_trouble
from backup.entry.health import HealthState, side_status
from backup.mirror.proof import DifferenceKind
from backup.mirror.tally import CHANGES_NAMED
from backup.mirror.verification import Report, has_compared_whole
from backup.runs.condition import Concern, hint_of
from backup.runs.outcome import Outcome

_SECOND, _MINUTE, _HOUR = 1_000, 60_000, 3_600_000
_FIRST_COLUMNS = ("Service", "Status", "ErrorMessage")

TOLD_APART = 3
"""What more services share is printed once, with their number."""

NAMED_ON_TERMINAL = 20
"""How many records of each kind a terminal shows: the counts above them must not scroll away."""

NOTHING_WRITTEN = "Nothing was written. Without --dry-run this would change:"
"""The title of what a dry run of a sync prints."""


def duration_text(milliseconds: int | None) -> str:
    """`405 ms`, `3.4 s`, `12 m 5 s`, `3 h 12 m`; empty for a run in progress."""
    if milliseconds is None:
        return ""
    if milliseconds < _SECOND:
        return f"{milliseconds} ms"
    if milliseconds < _MINUTE:
        return f"{milliseconds / _SECOND:.1f} s"
    if milliseconds < _HOUR:
        return f"{milliseconds // _MINUTE} m {milliseconds % _MINUTE // _SECOND} s"
    return f"{milliseconds // _HOUR} h {milliseconds % _HOUR // _MINUTE} m"


def as_of_text(at: datetime) -> str:
    """`2026-11-30 00:54:37.123 UTC`."""
    return f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1_000:03d} UTC"


def proof_text(run: Run) -> str:
    """What the run has proven of its two sides; empty if it proves nothing."""
    if run.counts.remaining:
        return quantity(run.counts.remaining, "remains", "remain")
    if run.verified is None:
        return ""
    if run.verified:
        return "contents equal" if has_compared_whole(run) else "versions equal"
    if run.proof is not None and run.proof.only_counts:
        return "numbers equal"
    return "NOT equal" if run.proof is not None and run.proof.differing else "NOT proven"


def show_outcomes(title: str | None, outcomes: Sequence[Outcome]) -> None:
    """Prints counts and notes of the runs, and the records that dry runs would change. The title is left out if a run
    failed."""
    failed = any(outcome.error for outcome in outcomes)
    proofs = [proof_text(outcome.run) for outcome in outcomes]
    columns = [GridColumn("Service"), GridColumn("Status"), *([GridColumn("Verified")] if any(proofs) else [])]
    columns += [GridColumn(name, right=True) for name in ("Inserted", "Updated", "Deleted", "Skipped")]
    columns += [GridColumn("Duration", right=True, rank=1)]
    if any(outcome.run.counts.failed for outcome in outcomes):
        columns.append(GridColumn("Set aside", right=True))
    rows = []
    for outcome, proof in zip(outcomes, proofs, strict=True):
        run, counts = outcome.run, outcome.run.counts
        numbers = (counts.inserted, counts.updated, counts.deleted, counts.skipped)
        cells = [plain(run.service), plain(run.status), *([proof] if any(proofs) else []), *map(str, numbers)]
        rows.append(GridRow([*cells, duration_text(run.duration_ms), str(counts.failed)]))
    show_grid(None if failed else title, columns, rows)
    moments = {outcome.run.read_as_of for outcome in outcomes}
    for moment in sorted(moment for moment in moments if moment is not None):
        services = [outcome.run.service for outcome in outcomes if outcome.run.read_as_of == moment]
        which = ", ".join(services) if len(services) < len(outcomes) or len(services) == 1 else "All"
        which += " was" if len(services) == 1 else " were"
        say(f"{which} read as of one moment: {as_of_text(moment)}.", indent="  ")
    _show_all_details(outcomes)
    _show_errors(outcomes)


def _show_errors(outcomes: Sequence[Outcome]) -> None:
    """Prints each error and what to do; once, with their number, if more than a few services have the same."""
    services_with: dict[tuple[str, str], list[str]] = {}
    for outcome in outcomes:
        if outcome.error is not None:
            services_with.setdefault((str(outcome.error), outcome.error.hint), []).append(outcome.run.service)
    for (message, hint), services in services_with.items():
        for subject in services if len(services) <= TOLD_APART else [quantity(len(services), "service")]:
            show_trouble(subject, message, hint)


def _show_all_details(outcomes: Sequence[Outcome], show_more: Callable[[Outcome], None] = lambda _: None) -> None:
    """Prints what each run did and notes, and `show_more` of it. A note of more than a few services stands once, at the
    end, with their number."""
    services_with = Counter(note for outcome in outcomes for note in outcome.run.notes)
    shared = {note: number for note, number in services_with.items() if number > TOLD_APART}
    for outcome in outcomes:
        _show_details(outcome, shared)
        show_more(outcome)
    for note, number in shared.items():
        say(f"{quantity(number, 'service')}: {note}", indent="  ")


def _show_details(outcome: Outcome, told_together: Collection[str]) -> None:
    run = outcome.run
    if outcome.changes:
        changes = [(list(key), change) for key, change in outcome.changes]
        changes.sort(key=lambda change: (change[1], natural_order(change[0])))
        rows = [GridRow([plain(change), key_text(key)]) for key, change in changes]
        is_cut = max(Counter(change for _, change in changes).values()) >= CHANGES_NAMED
        _show_first_of_each_kind(
            f"{run.service}: {'the first ' if is_cut else ''}{quantity(len(rows), 'change')}",
            [GridColumn("Change"), GridColumn("Key")],
            rows,
        )
    show_failures(run)
    for note in run.notes:
        if note not in told_together:
            say(f"{run.service}: {note}", indent="  ")


def show_failures(run: Run) -> None:
    """Prints the records that a run set aside, and why."""
    if run.failures:
        failures = sorted(
            ((json.loads(key), why) for key, why in run.failures), key=lambda failure: natural_order(failure[0])
        )
        rows = [GridRow([key_text(key), plain(why)]) for key, why in failures]
        show_grid(f"{run.service}: records set aside", [GridColumn("Key"), GridColumn("Reason")], rows)


def show_verified(outcomes: Sequence[Outcome]) -> None:
    """Prints what verifies have seen: numbers of records and of differences, then the records that differ."""
    columns = [GridColumn("Service"), GridColumn("Verified")]
    columns += [GridColumn(side, right=True, rank=1) for side in ("Source", "Backup")]
    columns += [GridColumn(kind.title(), right=True) for kind in DifferenceKind]
    columns += [GridColumn("Compared whole", right=True, rank=3), GridColumn("In flight", right=True, rank=4)]
    columns += [GridColumn("Duration", right=True, rank=2)]
    rows = []
    for outcome in outcomes:
        run, report = outcome.run, report_of(outcome)
        verdict = plain(run.status) if outcome.error else proof_text(run) or "NOT proven"
        numbers = [""] * (len(columns) - 3)
        if report is not None:
            proof, counts = report.proof, [report.counts[kind] for kind in DifferenceKind]
            seen = (proof.source.records, proof.backup.records, *counts, report.compared, proof.in_flight)
            numbers = [str(number) for number in seen]
        rows.append(GridRow([plain(run.service), verdict, *numbers, duration_text(run.duration_ms)]))
    show_grid(None, columns, rows)

    def show_differences(outcome: Outcome) -> None:
        if (report := report_of(outcome)) is not None:
            _show_differences(outcome.run.service, report)

    _show_all_details(outcomes, show_differences)
    _show_errors(outcomes)


def _show_differences(service: str, report: Report) -> None:
    if not report.differences:
        return
    differences = [(list(difference.key), difference) for difference in report.differences]
    differences.sort(key=lambda pair: (pair[1].kind, natural_order(pair[0])))
    rows = [
        GridRow([plain(difference.kind), key_text(key), plain(", ".join(difference.names))])
        for key, difference in differences
    ]
    columns = [GridColumn("Kind"), GridColumn("Key")]
    columns += [GridColumn("What differs")] if any(row.cells[2] for row in rows) else []
    total = sum(report.counts[kind] for kind in DifferenceKind)
    first = f"the first {len(rows)} of " if total > len(rows) else ""
    _show_first_of_each_kind(f"{service}: {first}{quantity(total, 'difference')}", columns, rows)


def _show_first_of_each_kind(title: str, columns: Sequence[GridColumn], rows: Sequence[GridRow]) -> None:
    """Shows the rows; a row's first cell is its kind. On a terminal only the first of each kind, and how many more."""
    shown = first_of_each(rows, lambda row: row.cells[0], NAMED_ON_TERMINAL) if is_terminal() else rows
    show_grid(title, columns, shown)
    if left := len(rows) - len(shown):
        say(f"And {left} more, which --json and a file name.")


def show_results(answer: Answer) -> None:
    """Prints a row for each result of the answer, and the hint for the first that failed."""
    results = answer.body["Results"]
    names = list(dict.fromkeys(name for entry in results for name in entry if name not in _FIRST_COLUMNS))
    columns = [GridColumn("Service"), GridColumn("Status"), *(GridColumn(name, right=True) for name in names)]
    rows = [
        GridRow(
            [plain(str(entry.get(column.title, ""))) for column in columns],
            [plain(entry["ErrorMessage"])] if entry.get("ErrorMessage") else [],
        )
        for entry in results
    ]
    show_grid(None, columns, rows)
    if answer.body.get("Hint"):
        show_trouble("", "", answer.body["Hint"])


def show_health(state: HealthState) -> None:
    """Prints how each side answered, and everything that is not well."""
    columns = [GridColumn("Service"), GridColumn("Side"), GridColumn("Status"), GridColumn("Milliseconds", right=True)]
    rows = [
        GridRow([plain(check.service), check.side, side_status(check.error), str(check.duration_ms)])
        for check in state.checks
    ]
    if rows:
        show_grid(None, columns, rows)
    say(state.status)
    for concerns in _alike(state.concerns):
        concern, others = concerns[0], len(concerns) - 1
        subject = " ".join(filter(None, (concern.service, concern.side))) or "settings"
        since = "" if concern.since is None else f" Since {concern.since:%Y-%m-%d %H:%M:%S %Z}."
        error = ": ".join(filter(None, (concern.error, concern.detail)))
        run = f"Run {concern.sync_id[:8]}." if concern.sync_id else ""
        detail = " ".join(filter(None, (concern.reason + since, run, error)))
        if others:
            subject += f", and {others} more"
        show_trouble(subject, detail, concern.detail_hint or hint_of(concern.error))


def _alike(concerns: Sequence[Concern]) -> list[list[Concern]]:
    """The concerns one by one; but together what more than a few services have, if only the service's name differs."""
    groups: dict[tuple[str | None, ...], list[Concern]] = {}
    for concern in concerns:
        service = concern.service or ""
        detail = concern.detail.replace(service, "").replace(service.rpartition("/")[2], "") if service else ""
        alike = (concern.side, concern.reason, concern.error, concern.detail_hint, detail)
        groups.setdefault(alike, []).append(concern)
    parts = (([group] if len(group) > TOLD_APART else [[concern] for concern in group]) for group in groups.values())
    return [concerns_told for part in parts for concerns_told in part]
