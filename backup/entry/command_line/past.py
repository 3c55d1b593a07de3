"""What is printed of the past: runs, one run with what it changed, one record, and what changed over some time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

from backup.core.model import Action, Counts, Run, Verb
from backup.entry.answers import By
from backup.entry.command_line.grid import GridColumn, GridRow, as_people_count
from backup.entry.command_line.outcomes import duration_text, proof_text, show_failures
from backup.entry.command_line.terminal import key_text, plain, say, show_grid
from backup.runs.changes import RunChanges, counts_of
from backup.services.past import Ran, Shown

_SHORTEST_ID = 8
_AGES = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
_LEAST_NAME, _MOST_NAME = 8, 30


def show_history(runs: Sequence[Run], now: datetime) -> None:
    """A row for each run, and below it why it failed, if it did."""
    short = _short([run.sync_id for run in runs])
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
            *(_status(run), plain(short[run.sync_id]), plain(run.service), _verb(run)),
            *(_age(run.started_at, now), duration_text(run.duration_ms), *map(str, numbers)),
            *(proof_text(run, whole=run.verb is Verb.DRILL), f"{run.started_at:%Y-%m-%d %H:%M:%S}"),
            *(plain(run.trigger or ""), plain(run.sync_id)),
        ]
        rows.append(GridRow(cells, [plain(run.error)] if run.error else []))
    if rows:
        show_grid(None, columns, rows)
    else:
        say("There are no such runs.")


def show_run(ran: Ran, now: datetime, skipped: int) -> None:
    """All that is known of a run, and some of what it changed."""
    run, counts = ran.run, ran.run.counts
    proof = proof_text(run, whole=run.verb is Verb.DRILL)
    done = f"{counts.inserted} inserted, {counts.updated} updated, {counts.deleted} deleted, {counts.skipped} skipped"
    facts = {
        "Run": run.sync_id,
        "Service": run.service,
        "Verb": f"{_verb(run)}, asked by {run.trigger}" if run.trigger else _verb(run),
        "Status": ", ".join(filter(None, (_status(run), proof))),
        "Started": f"{run.started_at:%Y-%m-%d %H:%M:%S} UTC, {_age(run.started_at, now)} ago",
        "Duration": duration_text(run.duration_ms),
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
        changes.sort(key=lambda one: (order.index(one[0].action), as_people_count(one[1])))
        rows = [
            GridRow([plain(kept.action), "" if kept.side == "backup" else "in the source", key_text(key)])
            for kept, key in changes
        ]
        beyond = [GridColumn("Where")] if any(row.cells[1] for row in rows) else []
        rows = rows if beyond else [GridRow([row.cells[0], row.cells[2]]) for row in rows]
        first = f"after {skipped}, " if skipped else ""
        show_grid(
            f"What it changed, {first}{len(rows)} records:", [GridColumn("Change"), *beyond, GridColumn("Key")], rows
        )
    if ran.more:
        say(f"There are more: --skip {skipped + len(ran.changes)} shows the next, --limit how many at once.")
    if ran.may_be_purged and run.may_change_backup:
        say("It is older than the recycle bin keeps images: what it changed may be purged.")


def show_past(shown: Shown, at: datetime | None) -> None:
    """A record's changes, oldest first, and the record; of one that is gone what it was last."""
    columns = [GridColumn("Changed at (UTC)"), GridColumn("Change"), GridColumn("Run"), GridColumn("SyncId", rank=1)]
    columns += [GridColumn("Version before")]
    short = _short([kept.sync_id for kept in shown.changes])
    rows = [
        GridRow(
            [
                *(f"{kept.at:%Y-%m-%d %H:%M:%S}", plain(kept.action)),
                *(plain(short[kept.sync_id]), plain(kept.sync_id)),
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
    say(f"In the backup {when}: there is none.")
    last = next((kept for kept in reversed(shown.changes) if kept.record is not None), None)
    if last is not None and last.record is not None:
        say(f"Before the run {last.sync_id} {last.action.lower()} it on {last.at:%Y-%m-%d %H:%M:%S} UTC:")
        _show_facts({name: _value(value) for name, value in last.record.items()})


def show_changes(service: str, changes: Sequence[RunChanges], since: datetime, by: By) -> None:
    """A row for each day, or each run, newest first, and all together."""
    numbers = [GridColumn(name, right=True) for name in ("Inserted", "Updated", "Deleted")]
    short = _short([one.run.sync_id for one in changes])
    rows: list[GridRow] = []
    if by == "day":
        columns = [GridColumn("Day (UTC)"), GridColumn("Runs", right=True), *numbers]
        for day, some in groupby(changes, key=lambda one: one.run.started_at.date()):
            of_day = list(some)
            rows.append(GridRow([day.isoformat(), str(len(of_day)), *_numbers(counts_of(of_day))]))
        rows.append(GridRow(["Together", str(len(changes)), *_numbers(counts_of(changes))]))
    else:
        columns = [GridColumn("Run"), GridColumn("Started (UTC)"), GridColumn("Verb"), *numbers, GridColumn("")]
        for one in changes:
            undone = f"undone by {short[one.undone_by]}" if one.undone_by else "undoes" if one.takes_back else ""
            began = f"{one.run.started_at:%Y-%m-%d %H:%M:%S}"
            cells = [plain(short[one.run.sync_id]), began, _verb(one.run), *_numbers(one.counts), undone]
            rows.append(GridRow(cells))
        rows.append(GridRow(["Together", "", "", *_numbers(counts_of(changes)), ""]))
    if not changes:
        say(f"Nothing of {service} changed in the backup since {since:%Y-%m-%d %H:%M:%S} UTC.")
        return
    show_grid(f"Records of {service} changed in the backup since {since:%Y-%m-%d %H:%M:%S} UTC", columns, rows)
    if undos := sum(not one.stands for one in changes):
        say(f"{undos} of these runs are undone, or undid those: nothing is left of them, and they do not count.")


def _numbers(counts: Counts) -> list[str]:
    return [str(counts.inserted), str(counts.updated), str(counts.deleted)]


def _short(ids: Sequence[str]) -> dict[str, str]:
    """The beginnings of the ids, all of one length, by which they are told apart."""
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
    """A line for each, the texts under each other."""
    width = max(_LEAST_NAME, min(_MOST_NAME, max(map(len, facts), default=0)))
    for name, text in facts.items():
        say(f"{name:{width}}  {text}", indent=" " * (width + 2))


def _value(value: Any) -> str:
    """A value as a person reads it: texts as they are, unless they could be taken for something else."""
    if value is None:
        return "null"
    if isinstance(value, str):
        return value if value.strip() == value and value not in ("", "null") else json.dumps(value, ensure_ascii=False)
    if isinstance(value, bytes):
        return f"0x{value.hex()}"
    if isinstance(value, bool | dict | list):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)
