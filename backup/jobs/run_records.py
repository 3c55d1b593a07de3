"""Summaries of runs, of all services: what pages and alarms read, so that they wake no database.

What a run did to data is in SyncHistory beside that data. Its summary lies here, under keys that change together:
`run:` has it in the order of time, newest first; `runid:`, `runof:`, `runstatus:` and `runverb:` lead to it by its
id, service, status and verb. When a run ends it is added to `day:` (all services of a day), to `stat:` (a service's
day) and to `last:` (a service's last success, failure, verify and drill).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

from backup.core.errors import BackupError, BadRequest, Locked, StoreUnavailable
from backup.core.log import event
from backup.core.model import Run, Status, Verb
from backup.jobs.job import Job
from backup.jobs.key_values import NEW, Change, Item, KeyValues
from backup.jobs.records import PAGE_AT_MOST, hashed, order_of
from backup.runs.outcome import Observer, Outcome

_TRIES = 20
_SCANNED_AT_MOST = 1_000
_NOTES_AT_MOST = 20
_FAILURES_AT_MOST = 20
_AFTER_MARKS = "g"  # comes after hexadecimal digits
_STEP = 1.1  # a duration is known to within a tenth
_LAST = {Verb.SYNC: "success", Verb.VERIFY: "verify", Verb.DRILL: "drill"}


class RunPage(NamedTuple):
    """Some of the runs, newest first, and the cursor of what follows; None at the end. It may be empty and have one."""

    runs: Sequence[Mapping[str, Any]]
    cursor: str | None


class RunRecords:
    """The summaries. Several threads and processes may use them at once."""

    def __init__(self, keys: KeyValues) -> None:
        self._keys = keys

    def save(self, run: Run, *, job_id: str | None = None, hint: str | None = None, scheduled: bool = False) -> None:
        """Keeps the run's summary as it stands; counts it in the numbers of its day once it has ended.

        `scheduled`: it is an occurrence of the schedule. Saving an ended run again changes nothing.
        """
        order = order_of(run.started_at, run.sync_id.replace("-", "")[:8])
        for _ in range(_TRIES):
            pointer = self._keys.get(f"runid:{run.sync_id}")
            order = pointer.value["order"] if pointer else order
            item = self._keys.get(f"run:{order}") if pointer else None
            before = item.value if item else None
            if before is not None and before.get("completedAt"):
                return
            after = _summary(run, job_id or (before or {}).get("jobId"), hint)
            changes = [Change(f"run:{order}", after, item.etag if item else NEW)]
            if pointer is None:
                changes.append(Change(f"runid:{run.sync_id}", {"order": order}, NEW))
            old = () if before is None else _leading_to(before, order)
            changes += [Change(key, None) for key in old if key not in _leading_to(after, order)]
            changes += [Change(key, {}) for key in _leading_to(after, order) if key not in old]
            if run.completed_at is not None and not run.dry_run:
                changes += self._counted(run, scheduled)
            if self._keys.commit(changes):
                return
        raise StoreUnavailable(f"The summary of run {run.sync_id} could not be written: too many changed it at once.")

    def get(self, sync_id: str) -> Mapping[str, Any] | None:
        """The summary of this run, or of the only one whose id begins so; None where there is none."""
        pointers = self._keys.scan(f"runid:{sync_id.lower()}", limit=2) if _is_id(sync_id) else []
        if len(pointers) > 1:
            raise BadRequest(f"Several runs begin with {sync_id}.", hint="Write more of the id.")
        item = self._keys.get(f"run:{pointers[0].value['order']}") if pointers else None
        return None if item is None else item.value

    def page(
        self,
        *,
        service: str | None = None,
        status: Status | None = None,
        verb: Verb | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> RunPage:
        """The runs that began from `since` on and before `until`, newest first.

        Cost: what is on the page; with more than one of service, status and verb at most 1,000 summaries.
        """
        wanted = min(max(1, limit), PAGE_AT_MOST)
        prefix = "run:"
        for name, value in (("verb", verb), ("status", status), ("of", hashed(service) if service else None)):
            prefix = f"run{name}:{value}:" if value else prefix
        after = _position(cursor, prefix) or (f"{prefix}{order_of(until, _AFTER_MARKS)}" if until else "")
        runs: list[Mapping[str, Any]] = []
        scanned = 0
        while True:
            items = self._keys.scan(prefix, after=after, limit=wanted + 1)
            for item in items:
                if len(runs) == wanted or scanned >= _SCANNED_AT_MOST:
                    return RunPage(runs, after)
                scanned, after = scanned + 1, item.key
                run = self._run(item)
                if run is None:
                    continue
                if since and datetime.fromisoformat(run["startedAt"]) < since:
                    return RunPage(runs, None)
                if _matches(run, service, status, verb):
                    runs.append(run)
            if len(items) <= wanted:
                return RunPage(runs, None)

    def day(self, of: date) -> Mapping[str, Mapping[str, Any]]:
        """The numbers of the day (UTC), by service: runs, completed, failed, and records by what was done to them."""
        item = self._keys.get(f"day:{of.isoformat()}")
        return item.value if item else {}

    def days(self, service: str, first: date, last: date) -> Mapping[date, Mapping[str, Any]]:
        """The service's numbers of the days from first to last (UTC) that have any."""
        prefix = f"stat:{hashed(service)}:"
        items = self._keys.scan(prefix, after=f"{prefix}{(first - timedelta(days=1)).isoformat()}", limit=1_000)
        found = {date.fromisoformat(item.key.rpartition(":")[2]): item.value for item in items}
        return {day: numbers for day, numbers in found.items() if day <= last}

    def last(self, service: str) -> Mapping[str, Any]:
        """The service's last `success`, `failure`, `verify` and `drill`, each with its time, run and error."""
        item = self._keys.get(f"last:{hashed(service)}")
        return item.value if item else {}

    def _run(self, item: Item) -> Mapping[str, Any] | None:
        if item.key.startswith("run:"):
            return item.value
        found = self._keys.get(f"run:{item.key.rpartition(':')[2]}")
        return None if found is None else found.value

    def _counted(self, run: Run, scheduled: bool) -> list[Change]:
        """What the end of a run makes of the numbers."""
        ended = (run.completed_at or run.started_at).astimezone(UTC)
        changes = []
        last = self._keys.get(f"last:{hashed(run.service)}")
        entry = {"at": ended.isoformat(), "syncId": run.sync_id, "error": run.error, "errorKind": run.error_kind}
        kind = "failure" if run.status is Status.FAILED else _LAST.get(run.verb)
        if kind is not None:
            value = {**(last.value if last else {}), "service": run.service, kind: entry}
            changes.append(Change(f"last:{hashed(run.service)}", value, last.etag if last else NEW))
        if run.verb is not Verb.SYNC:
            return changes
        for key, inside in ((f"day:{ended.date()}", run.service), (f"stat:{hashed(run.service)}:{ended.date()}", None)):
            item = self._keys.get(key)
            value = dict(item.value) if item else {}
            if inside is None:
                value = _added(value, run, scheduled, with_durations=True)
            else:
                value[inside] = _added(value.get(inside, {}), run, scheduled)
            changes.append(Change(key, value, item.etag if item else NEW))
        return changes


class RunKeeper(Observer):
    """Keeps the summaries of the runs that it is told of. A record that cannot be written fails no run: that is
    logged."""

    def __init__(self, runs: RunRecords, job: Job | None = None) -> None:
        """`job`: the runs are what became of this job."""
        self._runs, self._job_id = runs, job.job_id if job else None
        self._scheduled = job is not None and job.occurrence is not None

    def started(self, run: Run) -> None:
        """As `Observer` says."""
        self._save(run)

    def ended(self, outcome: Outcome) -> None:
        """As `Observer` says. A run that found another one at work is none."""
        if not isinstance(outcome.error, Locked):
            self._save(outcome.run, outcome.error.hint if outcome.error else None)

    def _save(self, run: Run, hint: str | None = None) -> None:
        try:
            self._runs.save(run, job_id=self._job_id, hint=hint, scheduled=self._scheduled)
        except BackupError as error:
            event("runs.not_saved", level=logging.WARNING, service=run.service, sync_id=run.sync_id, error=error)


def percentile(durations: Iterable[Mapping[str, int]], share: float) -> int | None:
    """The milliseconds that this share of the runs did not exceed, to within a tenth; None without runs."""
    merged: dict[int, int] = {}
    for histogram in durations:
        for step, number in histogram.items():
            merged[int(step)] = merged.get(int(step), 0) + number
    left = math.ceil(share * sum(merged.values()))
    for power in sorted(merged):
        left -= merged[power]
        if left <= 0:
            return round(math.pow(_STEP, power))
    return None


def _added(numbers: Mapping[str, Any], run: Run, scheduled: bool, *, with_durations: bool = False) -> Any:
    added = dict(numbers)

    def add(name: str, by: float) -> None:
        added[name] = added.get(name, 0) + by

    add("runs", 1)
    add("completed" if run.status is Status.COMPLETED else "failed", 1)
    if run.status is Status.COMPLETED and scheduled:
        add("scheduled", 1)
    for name, count in asdict(run.counts).items():
        add(f"{name}Records" if name == "failed" else name, count)
    if with_durations and run.duration_ms is not None:
        add("seconds", run.duration_ms / 1000)
        step = str(round(math.log(max(1, run.duration_ms), _STEP)))
        histogram = dict(added.get("durations", {}))
        histogram[step] = histogram.get(step, 0) + 1
        added["durations"] = histogram
    return added


def _summary(run: Run, job_id: str | None, hint: str | None) -> dict[str, Any]:
    """What is kept of a run, by the names of the JSON API."""
    kept: dict[str, Any] = {
        "syncId": run.sync_id,
        "service": run.service,
        "verb": run.verb.value,
        "trigger": run.trigger.value if run.trigger else None,
        "status": run.status.value,
        "startedAt": run.started_at.isoformat(),
        "completedAt": run.completed_at.isoformat() if run.completed_at else None,
        "durationMs": run.duration_ms,
        "counts": asdict(run.counts),
        "percent": run.percent,
        "forced": run.forced,
        "dryRun": run.dry_run,
        "verified": run.verified,
        "error": run.error,
        "errorKind": run.error_kind,
        "hint": hint,
        "notes": list(run.notes[:_NOTES_AT_MOST]),
        "failures": [list(failure) for failure in run.failures[:_FAILURES_AT_MOST]],
        "jobId": job_id,
    }
    return {name: value for name, value in kept.items() if value not in (None, [])}


def _leading_to(run: Mapping[str, Any], order: str) -> tuple[str, ...]:
    keys = (f"runof:{hashed(run['service'])}", f"runstatus:{run['status']}", f"runverb:{run['verb']}")
    return tuple(f"{key}:{order}" for key in keys)


def _matches(run: Mapping[str, Any], service: str | None, status: Status | None, verb: Verb | None) -> bool:
    return (
        (service is None or run["service"].lower() == service.lower())
        and (status is None or run["status"] == status)
        and (verb is None or run["verb"] == verb)
    )


def _is_id(text: str) -> bool:
    return bool(text) and all(character in "0123456789abcdef-" for character in text.lower())


def _position(cursor: str | None, prefix: str) -> str:
    if cursor is None:
        return ""
    if not cursor.startswith(prefix) or not cursor.isascii() or len(cursor) > 300:
        raise BadRequest("The cursor is none that a page of these runs has given.")
    return cursor
