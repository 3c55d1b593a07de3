"""What the command line shows: tables, lines, a progress bar, errors in words. Results on standard output only."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from backup.core.errors import BackupError, Interrupted
from backup.core.log import redact, visible
from backup.core.model import Counts, Run
from backup.entry import http
from backup.entry.answers import report_of
from backup.entry.health import word_of
from backup.mirror.comparison import Report
from backup.mirror.proof import Kind
from backup.runs.condition import hint_of
from backup.runs.history_entries import trigger_column
from backup.runs.runner import NOBODY, Observer, Outcome, foreseen
from backup.services.registry import Registry
from backup.services.service import Shown
from backup.stores.exact_json import record_to_text

# No markup: what comes from data, servers and settings is shown as it is, whatever rich would read in it.
_AS_IT_IS: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False}
out = Console(**_AS_IT_IS, width=None if sys.stdout.isatty() else 200)
err = Console(**_AS_IT_IS, stderr=True)


@contextmanager
def errors_shown(as_json: bool) -> Iterator[None]:
    """Turns an error into a message and exit code 1."""
    try:
        yield
    except typer.Exit:
        raise
    except Exception as caught:
        error = foreseen(caught)
        if as_json:
            _print_json(http.error_answer(error))
        else:
            what = "" if isinstance(error, Interrupted) else type(error).__name__
            _show_trouble(what, str(error), error.hint)
        raise typer.Exit(1) from None


def print_answer(answer: http.Answer, as_json: bool, show: Callable[[], None]) -> None:
    if as_json:
        _print_json(answer)
    else:
        show()
    if answer.status != 200:
        raise typer.Exit(1)


def _print_json(answer: http.Answer) -> None:
    text = answer.json
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # an output that knows few characters; JSON can say all in ASCII
        text = json.dumps(answer.body)
    print(text)


def _show_trouble(what: str, message: str, hint: str) -> None:
    named = ((what, "bold red"), " ") if what else ()
    err.print(Text.assemble(*named, plain(message)), soft_wrap=True)
    if hint:
        err.print(plain(hint), soft_wrap=True)


def plain(text: str) -> str:
    """The text as a terminal may have it: without secrets, and without characters that it would obey."""
    return visible(redact(text))


def print_lines(answer: http.Answer) -> None:
    """A line for each of the answer's results, and what to do about the first that failed."""
    for entry in answer.body["Results"]:
        out.print(
            plain("  ".join(f"{name}={value}" for name, value in entry.items() if value is not None)), soft_wrap=True
        )
    if answer.body.get("Hint"):
        err.print(plain(answer.body["Hint"]), soft_wrap=True)


def show_health(state: http.State) -> None:
    """How each side answered, and why all is not well, in full."""
    table = _table(None, "Service", "Side", "Status", "Milliseconds")
    for check in state.checks:
        table.add_row(check.service, check.side, word_of(check.error), str(check.duration_ms))
    if state.checks:
        out.print(table)
    out.print(state.status)
    for concern in state.concerns:
        whose = " ".join(filter(None, (concern.service, concern.side)))
        since = "" if concern.since is None else f" Since {concern.since:%Y-%m-%d %H:%M:%S %Z}."
        what = " ".join(filter(None, (concern.sync_id, concern.reason + since, concern.error, concern.detail)))
        _show_trouble(whose or "settings", what, concern.detail_hint or hint_of(concern.error))


def runs_of(registry: Registry, services: list[str], limit: int) -> list[Run]:
    runs = [run for name in services for run in registry.get(name).history(limit)]
    return sorted(runs, key=lambda run: run.started_at, reverse=True)


def show_outcomes(title: str | None, outcomes: list[Outcome]) -> None:
    """A table of counts, what the runs want known, and of dry runs the records that would change. The title is for runs
    that did not fail."""
    failed = any(outcome.error for outcome in outcomes)
    out.print(runs_table(None if failed else title, [outcome.run for outcome in outcomes]))
    for outcome in outcomes:
        if outcome.changes:
            table = _table(f"{outcome.run.service}: the first {len(outcome.changes)} records", "Change", "Key")
            for key, what in outcome.changes:
                table.add_row(plain(what), _key(list(key)))
            out.print(table)
        if outcome.run.failures:
            table = _table(f"{outcome.run.service}: records set aside", "Key", "Reason")
            for text, reason in outcome.run.failures:
                table.add_row(_key(json.loads(text)), plain(reason))
            out.print(table)
        for note in outcome.run.notes:
            out.print(plain(f"{outcome.run.service}: {note}"), soft_wrap=True)
        if outcome.error:
            _show_trouble(outcome.run.service, str(outcome.error), outcome.error.hint)


def show_verified(outcomes: list[Outcome]) -> None:
    """What verifies found."""
    show_outcomes(None, outcomes)
    for outcome in outcomes:
        if (report := report_of(outcome)) is not None:
            _show_report(outcome, report)


def _show_report(outcome: Outcome, report: Report) -> None:
    counts = ", ".join(f"{report.counts[kind]} {kind}" for kind in Kind)
    verdict = "Verified" if outcome.run.verified else "NOT verified"
    proof = report.proof
    out.print(
        f"{verdict}: {outcome.run.service}: {proof.source.records} records in the source, "
        f"{proof.backup.records} in the backup; {counts}; "
        f"{proof.in_flight} in flight; {report.compared} compared whole"
    )
    if report.differences:
        table = _table(f"The first {len(report.differences)} differences", "Kind", "Key", "What differs")
        for one in report.differences:
            table.add_row(one.kind, _key(list(one.key)), plain(", ".join(one.names)))
        out.print(table)


def show_past(shown: Shown, at: datetime | None) -> None:
    """A record's changes, oldest first, and the record."""
    table = _table(f"Record {_key(shown.key)}", "Changed at (UTC)", "Change", "SyncId", "Version before")
    for kept in shown.changes:
        before = "" if kept.version is None else ", ".join(map(str, kept.version))
        table.add_row(f"{kept.at:%Y-%m-%d %H:%M:%S.%f}", plain(kept.action), plain(kept.sync_id), plain(before))
    out.print(table)
    when = "now" if at is None else f"as of {at:%Y-%m-%d %H:%M:%S %Z}"
    out.print(f"In the backup {when}:")
    out.print(
        plain("there is none" if shown.record is None else record_to_text(shown.record, zipped=False)), soft_wrap=True
    )


def show_history(runs: list[Run]) -> None:
    """A table of past runs, and why those failed that did."""
    out.print(runs_table("SyncHistory", runs, past=True))
    for run in runs:
        if run.error:
            out.print(Text.assemble((plain(run.service), "red"), plain(f" {run.sync_id}: {run.error}")), soft_wrap=True)


def _key(parts: list[Any]) -> str:
    text = str(parts[0]) if len(parts) == 1 else json.dumps(parts, ensure_ascii=False)
    return plain(text) if text.strip() == text != "" else plain(json.dumps(text, ensure_ascii=False))


def _table(title: str | None, *columns: str) -> Table:
    shown = None if title is None else plain(title)
    return Table(*columns, title=shown, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)


def runs_table(title: str | None, runs: list[Run], *, past: bool = False) -> Table:
    """Runs as rows of counts; `past` ones also with when they started, who asked and their id."""
    table = _table(title)
    for column in ("Started (UTC)", "Trigger", "SyncId") if past else ():
        table.add_column(column, no_wrap=True)
    for column in ("Service", "Status", "Verified"):
        table.add_column(column)
    for column in ("Inserted", "Updated", "Deleted", "Skipped", "Failed", "Milliseconds"):
        table.add_column(column, justify="right")
    for run in runs:
        counts = run.counts
        told = (
            f"{run.started_at:%Y-%m-%d %H:%M:%S}",
            trigger_column(run) + (", forced" if run.forced else "") + (", dry run" if run.dry_run else ""),
            plain(run.sync_id),
        )
        numbers = (counts.inserted, counts.updated, counts.deleted, counts.skipped, counts.failed, run.duration_ms or 0)
        verified = {True: "yes", False: "NO", None: ""}[run.verified]
        table.add_row(*(told if past else ()), plain(run.service), plain(run.status), verified, *map(str, numbers))
    return table


@contextmanager
def progress_bars(registry: Registry, service: str) -> Iterator[Observer]:
    """On a terminal a bar for each service; elsewhere the log's lines are enough."""
    if not err.is_terminal:
        yield NOBODY
        return
    logging.getLogger("backup").setLevel(logging.WARNING)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as bars:
        tasks = {name: bars.add_task(name, total=_source_count(registry, name)) for name in registry.chosen(service)}
        yield _Bars(bars, tasks)


class _Bars(Observer):
    """Moves the bar of each service."""

    def __init__(self, bars: Progress, tasks: Mapping[str, TaskID]) -> None:
        self._bars, self._tasks = bars, tasks

    def progress(self, service: str, counts: Counts) -> None:
        self._bars.update(self._tasks[service], completed=counts.seen - counts.deleted)


def _source_count(registry: Registry, name: str) -> int | None:
    try:
        return registry.get(name).count()
    except BackupError:
        return None  # the run itself will say why
