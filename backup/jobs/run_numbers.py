"""Numbers of runs: of a day, of a service, and of what was last. Changed together with the summary of a run that ends.

The keys, by what they begin with:

- `day:` the numbers of a day and a service, in the order of the services' names.
- `stat:` the numbers of one service and day, with the durations.
- `total:` the numbers of all services together on a day, with the durations.
- `last:` a service's last success, failure, verify and drill, what was last proven, when its first run began, and
  whether the event of its silence was raised.
- `glance:` the part of `last:` that tells how safe the service is (`glances`).
- `sum:` the sums of all runs of a service by verb. They only grow.

Days are UTC's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from typing import Any

from backup.core.run_values import Run, Status, Verb
from backup.jobs.events import recovered
from backup.jobs.glances import Glance, all_glances, glance_change, glance_of
from backup.jobs.key_values import NEW, Change, KeyValues, scan_all
from backup.jobs.outbox import Outbox
from backup.jobs.record_keys import hashed
from backup.mirror.verification import has_compared_whole

_STEP = 1.1  # the histogram keeps a duration to within a tenth
_LAST = {Verb.SYNC: "success", Verb.VERIFY: "verify", Verb.DRILL: "drill"}
_NAME_SORTED = 120  # hexadecimal digits, two for each byte
_DAYS_AT_MOST = 1_000
_SERVICES_AT_ONCE = 1_000
_EACH_AT_MOST = 50


class RunNumbers:
    """The numbers, to read. `RunRecords` writes them, in the commits of the summaries."""

    def __init__(self, keys: KeyValues) -> None:
        self._keys = keys

    def day(
        self, of: date, *, after: str | None = None, limit: int = _SERVICES_AT_ONCE
    ) -> dict[str, Mapping[str, Any]]:
        """Returns the numbers of the day by service: runs, completed, failed, and records by what runs did to them.

        At most `limit` services with runs on that day, those behind the service `after` in the order of their names.
        """
        items = self._keys.scan(f"day:{of}:", after="" if after is None else _day_key(of, after), limit=limit)
        values = (dict(item.value) for item in items if item.value)
        return {value.pop("service"): value for value in values}

    def days(self, service: str | None, first: date, last: date) -> Mapping[date, Mapping[str, Any]]:
        """Returns the numbers by day, from `first` to `last`, of one service or (None) of all together; only of days
        with numbers. `scheduled` counts the occurrences of that day's schedule whose runs completed."""
        prefix = "total:" if service is None else f"stat:{hashed(service)}:"
        after = f"{prefix}{(first - timedelta(days=1)).isoformat()}" if first > date.min else ""
        items = self._keys.scan(prefix, after=after, limit=min(_DAYS_AT_MOST, (last - first).days + 1))
        by_day = ((_day_in(item.key), item.value) for item in items)
        return {day: numbers for day, numbers in by_day if day is not None and day <= last}

    def last(self, service: str) -> Mapping[str, Any]:
        """Returns the service's last `success`, `failure`, `verify` and `drill`, each with its time, run and error.

        `versions` and `contents` are the last runs that proved these. `first` is when its first run began.
        """
        item = self._keys.get(f"last:{hashed(service)}")
        return item.value if item else {}

    def last_of_each(self, services: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        """Returns what `last` does, of each of the services, by its name in small letters; empty without a run. Cost:
        a read for each service; of many services, what `last_of_all` costs."""
        names = sorted({name.lower() for name in services})
        if len(names) > _EACH_AT_MOST:
            last = self.last_of_all()
            return {name: last.get(name, {}) for name in names}
        items = self._keys.get_all([f"last:{hashed(name)}" for name in names])
        return {name: item.value if item else {} for name, item in zip(names, items, strict=True)}

    def glances(self, services: Sequence[str]) -> Mapping[str, Glance]:
        """Returns the glance at each of the services, and at every other that is kept, by its name in small letters.
        Cost: one small read; and what `last_of_each` costs for services without a glance."""
        glances = all_glances(self._keys)
        without = [name for name in services if name.lower() not in glances]
        if not without:
            return glances
        last = self.last_of_each(without)
        return {**glances, **{name: glance_of(of_service) for name, of_service in last.items()}}

    def last_of_all(self) -> Mapping[str, Mapping[str, Any]]:
        """Returns what `last` does, of every service with a run, by its name in small letters. Cost: a read for each
        thousand services."""
        values = (item.value for item in scan_all(self._keys, "last:"))
        return {value["service"].lower(): value for value in values if value}

    def sums_of_all(self) -> Mapping[str, Mapping[str, Mapping[str, float]]]:
        """Returns the sums of all runs that have ended since sums are kept, by service in small letters and by verb.

        They are `runs`, `failed`, `seconds`, `charge` (request units), and the records by what became of them:
        `failedRecords` are those set aside. Dry runs do not count. Cost: a read for each thousand services.
        """
        values = (item.value for item in scan_all(self._keys, "sum:") if item.value)
        return {value["service"].lower(): value["verbs"] for value in values}


def number_changes(
    keys: KeyValues, run: Run, due_at: datetime | None, outbox: Outbox, *, is_late: bool = False
) -> list[Change]:
    """The changes that the end of this run makes to the numbers. `due_at`: the occurrence of the schedule that the run
    is for. A success that ends a silence puts the event about that into the `outbox`. `is_late` as in
    `RunRecords.save`."""
    ended_on = (run.completed_at or run.started_at).astimezone(UTC).date()
    changes = _last_changes(keys, run, outbox, is_late=is_late)
    is_of_set = run.verb is Verb.SYNC and "/" in run.service  # the numbers of such a service are those of its set
    if not is_of_set:
        changes.append(_sum_change(keys, run))
    if run.verb is not Verb.SYNC or is_of_set:
        return changes
    made_on = due_at.astimezone(UTC).date() if due_at is not None and run.status is Status.COMPLETED else None
    day_key = _day_key(ended_on, run.service)
    day = keys.get(day_key)
    of_service = _with_run(day.value if day else {"service": run.service}, run, made=made_on is not None)
    changes.append(Change(day_key, of_service, day.etag if day else NEW))
    for name in (f"stat:{hashed(run.service)}", "total"):
        for on in {ended_on, made_on or ended_on}:
            item = keys.get(f"{name}:{on}")
            numbers: Mapping[str, Any] = item.value if item else {}
            if on == ended_on:
                numbers = _with_run(numbers, run, made=False, with_durations=True)
            if on == made_on:
                numbers = {**numbers, "scheduled": numbers.get("scheduled", 0) + 1}
            changes.append(Change(f"{name}:{on}", dict(numbers), item.etag if item else NEW))
    return changes


def percentile(durations: Iterable[Mapping[str, int]], share: float) -> int | None:
    """Returns how many milliseconds this share of the runs took at most, to within a tenth; None without runs."""
    merged: dict[int, int] = {}
    for histogram in durations:
        for step, number in histogram.items():
            merged[int(step)] = merged.get(int(step), 0) + number
    remaining = math.ceil(share * sum(merged.values()))
    for power in sorted(merged):
        remaining -= merged[power]
        if remaining <= 0:
            return round(math.pow(_STEP, power))
    return None


def _day_key(on: date, service: str) -> str:
    """The key of a day's numbers of a service: sorted by the name, in characters that a key may have."""
    name = service.lower()
    return f"day:{on}:{name.encode('utf-8', 'surrogatepass').hex()[:_NAME_SORTED]}-{hashed(name)}"


def _day_in(key: str) -> date | None:
    """The day at the end of a key; None for a key that the app did not write."""
    try:
        return date.fromisoformat(key.rpartition(":")[2])
    except ValueError:
        return None


def _last_changes(keys: KeyValues, run: Run, outbox: Outbox, *, is_late: bool) -> list[Change]:
    item = keys.get(f"last:{hashed(run.service)}")
    before: Mapping[str, Any] = item.value if item else {}
    entry = {
        "at": (run.completed_at or run.started_at).astimezone(UTC).isoformat(),
        "startedAt": run.started_at.astimezone(UTC).isoformat(),
        "syncId": run.sync_id,
        "verb": run.verb.value,
        "error": run.error,
        "errorKind": run.error_kind,
        "verified": run.verified,
        "records": run.proof.backup.records if run.proof is not None else None,
    }
    succeeded = run.verb in _LAST and not run.is_partial  # a sync that leaves changes is not a success for the age
    kinds = {"failure"} if run.status is Status.FAILED else {_LAST[run.verb]} if succeeded else set()
    if run.verified:
        kinds.add("versions")
        if has_compared_whole(run):
            kinds.add("contents")
    if is_late:
        kinds = {kind for kind in kinds if not _is_later(before.get(kind), run)}
    if not kinds:
        return []
    began = {"first": before.get("first", run.started_at.astimezone(UTC).isoformat()), "service": run.service}
    value = {**before, **began, **dict.fromkeys(kinds, entry)}
    silence = value.pop("overdue", None) if "success" in kinds else None
    changes = outbox.changes(recovered(run, silence)) if silence is not None else []
    of_service = Change(f"last:{hashed(run.service)}", value, item.etag if item else NEW)
    return [of_service, glance_change(keys, run.service, value), *changes]


def _is_later(entry: Mapping[str, Any] | None, run: Run) -> bool:
    """Whether the entry is about a run that ended after this one."""
    return entry is not None and datetime.fromisoformat(entry["at"]) > (run.completed_at or run.started_at)


def _sum_change(keys: KeyValues, run: Run) -> Change:
    key = f"sum:{hashed(run.service)}"
    item = keys.get(key)
    verbs = dict(item.value.get("verbs", {})) if item else {}
    sums = _with_run(verbs.get(run.verb.value, {}), run, made=False)
    sums.pop("completed", None)
    sums["seconds"] = sums.get("seconds", 0) + (run.duration_ms or 0) / 1000
    if run.request_charge is not None:
        sums["charge"] = sums.get("charge", 0) + run.request_charge
    verbs[run.verb.value] = {name: number for name, number in sums.items() if number}
    return Change(key, {"service": run.service, "verbs": verbs}, item.etag if item else NEW)


def _with_run(numbers: Mapping[str, Any], run: Run, *, made: bool, with_durations: bool = False) -> dict[str, Any]:
    """The numbers with this run added."""
    added = dict(numbers)

    def add(name: str, amount: float) -> None:
        added[name] = added.get(name, 0) + amount

    add("runs", 1)
    add("completed" if run.status is Status.COMPLETED else "failed", 1)
    if made:
        add("scheduled", 1)
    for name, count in asdict(run.counts).items():
        if name == "remaining":
            continue  # the same records may remain after several runs
        add(f"{name}Records" if name == "failed" else name, count)
    if with_durations and run.duration_ms is not None:
        add("seconds", run.duration_ms / 1000)
        step = str(round(math.log(max(1, run.duration_ms), _STEP)))
        histogram = dict(added.get("durations", {}))
        histogram[step] = histogram.get(step, 0) + 1
        added["durations"] = histogram
    return added
