"""Prints the past: runs, one run and what it changed, one record, and the changes since a time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

from backup.config.given_services import ALL
from backup.core.model import Action
from backup.core.run_values import Counts, Run
from backup.entry.answers import By
from backup.entry.command_line.grid import GridColumn, GridRow, natural_order
from backup.entry.command_line.outcomes import as_of_text, duration_text, proof_text, show_failures
from backup.entry.command_line.terminal import key_text, plain, say, show_grid
from backup.runs.changes import RunChanges, by_service, counts_of
from backup.services.past_values import Ran, Shown

_SHORTEST_ID = 8
_AGES = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
_MIN_NAME_WIDTH, _MAX_NAME_WIDTH = 8, 30


def show_history(runs: Sequence[Run], now: datetime) -> None:
    """Prints a row for each run; below it the error, if the run failed."""
    short_ids = _short_ids([run.sync_id for run in runs])
    columns = [
        GridColumn("Status"),
        GridColumn("Run"),
        GridColumn("Service"),
        GridColumn("Verb"),
        GridColumn("Age", right=True, rank=1),
    ]
    columns += [GridColumn("Duration", right=True, rank=2)]
    columns += [GridColumn(name, right=True) for name in ("Inserted", "Updated", "Deleted")]
    columns += [GridColumn("Skipped", right=True, rank=3), GridColumn("Set aside", right=True, rank=4)]
    columns += [GridColumn("Verified", rank=5), GridColumn("Started (UTC)", rank=6), GridColumn("Asked by", rank=7)]
    columns += [GridColumn("SyncId", rank=8)]
    rows = []
    for run in runs:
        counts = run.counts
        numbers = (counts.inserted, counts.updated, counts.deleted, counts.skipped, counts.failed)
        cells = [
            *(_status(run), plain(short_ids[run.sync_id]), plain(run.service), _verb(run)),
            *(_age(run.started_at, now), duration_text(run.duration_ms), *map(str, numbers)),
            *(proof_text(run), f"{run.started_at:%Y-%m-%d %H:%M:%S}"),
            *(plain(run.trigger or ""), plain(run.sync_id)),
        ]
        rows.append(GridRow(cells, [plain(run.error)] if run.error else []))
    if rows:
        show_grid(None, columns, rows)
    else:
        say("There is no such run.")


def show_run(ran: Ran, now: datetime, skipped: int, only: str | None = None) -> None:
    """Prints what SyncHistory says of a run, and one page of its changes; `only` names the kind that was asked for.
    `skipped` is how many changes come before."""
    run, counts = ran.run, ran.run.counts
    proof = proof_text(run)
    done = f"{counts.inserted} inserted, {counts.updated} updated, {counts.deleted} deleted, {counts.skipped} skipped"
    facts = {
        "Run": run.sync_id,
        "Service": run.service,
        "Verb": f"{_verb(run)}, asked by {run.trigger}" if run.trigger else _verb(run),
        "Status": ", ".join(filter(None, (_status(run), proof))),
        "Started": f"{run.started_at:%Y-%m-%d %H:%M:%S} UTC, {_age(run.started_at, now)} ago",
        "Duration": duration_text(run.duration_ms),
        "Read as of": "" if run.read_as_of is None else as_of_text(run.read_as_of),
        "Records": done + (f", {counts.failed} set aside" if counts.failed else ""),
        "Place": run.place or "",
        "Cost": "" if run.request_charge is None else f"{run.request_charge:g} request units",
        "Error": run.error or "",
    }
    _show_facts({name: text for name, text in facts.items() if text})
    for note in run.notes:
        say(f"Note      {note}", indent=" " * 10)
    show_failures(run)
    if ran.changes:
        changes = [(kept, ran.key_to_json(kept.key)) for kept in ran.changes]
        order = list(Action)
        changes.sort(key=lambda change: (order.index(change[0].action), natural_order(change[1])))
        rows = [
            GridRow([plain(kept.action), "" if kept.side == "backup" else "in the source", key_text(key)])
            for kept, key in changes
        ]
        where = [GridColumn("Where")] if any(row.cells[1] for row in rows) else []
        rows = rows if where else [GridRow([row.cells[0], row.cells[2]]) for row in rows]
        page = f"{skipped + 1} to {skipped + len(rows)}" if skipped or ran.has_more else str(len(rows))
        show_grid(
            f"Records that it {only or 'changed'}: {page}", [GridColumn("Change"), *where, GridColumn("Key")], rows
        )
    if ran.has_more:
        say(f"There are more. --skip {skipped + len(ran.changes)} shows the next; --limit sets how many at once.")
    if ran.may_be_purged and run.may_change_backup:
        say("The run is older than the recycle bin keeps images. Some of its changes may be purged, and missing here.")


def show_past(shown: Shown, at: datetime | None) -> None:
    """Prints a record's changes, oldest first, and its values; the last values of a record that was deleted."""
    columns = [GridColumn("Changed at (UTC)"), GridColumn("Change"), GridColumn("Run"), GridColumn("SyncId", rank=1)]
    columns += [GridColumn("Version before")]
    short_ids = _short_ids([kept.sync_id for kept in shown.changes])
    rows = [
        GridRow(
            [
                *(f"{kept.at:%Y-%m-%d %H:%M:%S}", plain(kept.action)),
                *(plain(short_ids[kept.sync_id]), plain(kept.sync_id)),
                "" if kept.version is None else plain(", ".join(map(str, kept.version))),
            ]
        )
        for kept in shown.changes
    ]
    show_grid(f"Record {key_text(shown.key)}", columns, rows)
    when = "now" if at is None else f"as of {at:%Y-%m-%d %H:%M:%S %Z}"
    if shown.record is not None:
        say(f"In the backup {when}:")
        _show_facts({name: _value(value) for name, value in shown.record.items()})
        return
    say(f"In the backup {when}: no such record.")
    last = next((kept for kept in reversed(shown.changes) if kept.record is not None), None)
    if last is not None and last.record is not None:
        say(f"Before the run {short_ids[last.sync_id]} {last.action.lower()} it on {last.at:%Y-%m-%d %H:%M:%S} UTC:")
        _show_facts({name: _value(value) for name, value in last.record.items()})


def show_changes(service: str, changes: Sequence[RunChanges], since: datetime, by: By) -> None:
    """Prints a row for each day or each run, newest first, or for each service; and a total. `service` is the name that
    was asked for, which may stand for several."""
    numbers = [GridColumn(name, right=True) for name in ("Inserted", "Updated", "Deleted")]
    short_ids = _short_ids([change.run.sync_id for change in changes])
    rows: list[GridRow] = []
    if by == "day":
        columns = [GridColumn("Day (UTC)"), GridColumn("Runs", right=True), *numbers]
        for day, group in groupby(changes, key=lambda change: change.run.started_at.date()):
            day_changes = list(group)
            rows.append(GridRow([day.isoformat(), str(len(day_changes)), *_numbers(counts_of(day_changes))]))
        rows.append(GridRow(["Total", str(len(changes)), *_numbers(counts_of(changes))]))
    elif by == "service":
        columns = [GridColumn("Service"), GridColumn("Runs", right=True), *numbers]
        for name, own_changes in by_service(changes).items():
            rows.append(GridRow([plain(name), str(len(own_changes)), *_numbers(counts_of(own_changes))]))
        rows.append(GridRow(["Total", str(len(changes)), *_numbers(counts_of(changes))]))
    else:
        services = {change.run.service for change in changes}
        columns = [GridColumn("Run"), GridColumn("Started (UTC)", rank=1), GridColumn("Verb"), *numbers, GridColumn("")]
        columns[1:1] = [GridColumn("Service")] if len(services) > 1 else []
        for change in changes:
            run = change.run
            undone = f"undone by {short_ids[change.undone_by]}" if change.undone_by else ""
            undone = undone or ("undoes" if change.takes_back else "")
            began = f"{run.started_at:%Y-%m-%d %H:%M:%S}"
            own_name = [plain(run.service)] if len(services) > 1 else []
            cells = [plain(short_ids[run.sync_id]), *own_name, began, _verb(run), *_numbers(change.counts), undone]
            rows.append(GridRow(cells))
        rows.append(GridRow(["Total", *[""] * (len(columns) - 5), *_numbers(counts_of(changes)), ""]))
    whose = "all services" if service.lower() == ALL else service
    if not changes:
        say(f"Nothing of {whose} changed in the backup since {since:%Y-%m-%d %H:%M:%S} UTC.")
        return
    show_grid(f"Records of {whose} changed in the backup since {since:%Y-%m-%d %H:%M:%S} UTC", columns, rows)
    if undos := sum(not change.stands for change in changes):
        say(f"{undos} of these runs were undone, or undid such a run. Nothing is left of them, so they do not count.")


def _numbers(counts: Counts) -> list[str]:
    return [str(counts.inserted), str(counts.updated), str(counts.deleted)]


def _short_ids(ids: Sequence[str]) -> dict[str, str]:
    """The shortest beginning of each id that no other id has; all of one length."""
    length = _SHORTEST_ID
    while len({sync_id[:length] for sync_id in ids}) < len({*ids}):
        length += 1
    return {sync_id: sync_id[:length] for sync_id in ids}


def _status(run: Run) -> str:
    return plain(run.status if run.percent is None else f"{run.status} {run.percent} %")


def _verb(run: Run) -> str:
    how = [*(["forced"] if run.forced else []), *(["dry run"] if run.dry_run else [])]
    return plain(", ".join([run.verb, *how]))


def _age(moment: datetime, now: datetime) -> str:
    seconds = max(0, int((now - moment).total_seconds()))
    return next((f"{seconds // unit} {name}" for unit, name in _AGES if seconds >= unit), "0 s")


def _show_facts(facts: Mapping[str, str]) -> None:
    """Prints a line for each fact, the texts aligned."""
    width = max(_MIN_NAME_WIDTH, min(_MAX_NAME_WIDTH, max(map(len, facts), default=0)))
    for name, text in facts.items():
        say(f"{name:{width}}  {text}", indent=" " * (width + 2))


def _value(value: Any) -> str:
    """A value as a person reads it. A text is in quotes only where it could be taken for something else."""
    if value is None:
        return "null"
    if isinstance(value, str):
        return value if value.strip() == value and value not in ("", "null") else json.dumps(value, ensure_ascii=False)
    if isinstance(value, bytes):
        return f"0x{value.hex()}"
    if isinstance(value, bool | dict | list):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)
