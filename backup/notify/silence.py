"""The watch over what did not happen: services without a successful sync, good nights, the daily digest.

Reads the records alone, so it wakes no database. It raises each event once, however many processes look.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from backup.config.schedule import Schedule
from backup.config.settings import Settings
from backup.core.log import event, time_text
from backup.core.run_values import Status, Verb
from backup.jobs.events import DIGEST, GOOD_NIGHT, Event, failure_since, hours, overdue, safe
from backup.jobs.job import CLOCKS_DIFFER
from backup.jobs.job_queue import JobQueue
from backup.jobs.key_values import NEW, Change, Item
from backup.jobs.listing import PAGE_AT_MOST
from backup.jobs.record_keys import hashed
from backup.jobs.stored import moment_in

_RUNS_AT_MOST = 2_000
_LONGEST_RUN = timedelta(days=1)
"""A digest has runs that began so long before its time, and ended in it."""
_LEAVES_AFTER = timedelta(days=30)
_DIGEST_AT_MOST = timedelta(days=7)
_SERVICES_AT_MOST = 200
_ERROR_AT_MOST = 200  # characters


class Silence(NamedTuple):
    """A service whose last successful sync is older than it may be. `since` is when that was, or when the app first saw
    the service; `last` is what `RunRecords.last` returns."""

    service: str
    since: datetime
    limit: timedelta
    last: Mapping[str, Any]

    @property
    def failure(self) -> Mapping[str, Any]:
        """The entry of the last failure since then; empty without one."""
        return failure_since(self.last)


def look_around(settings: Settings, job_queue: JobQueue, entries: Sequence[str]) -> list[Silence]:
    """Puts the events about silence, good nights and digests into the outbox, each once. Returns the silences.

    `entries` are the names of services, and of sets. Of a set the services with a run are watched; before its first
    run, the set itself.

    Cost: a read for each thousand services; writes only where something has changed. Raises StoreUnavailable or
    StoreError when the records cannot be read or written.
    """
    now = job_queue.now()
    by_name = job_queue.runs.last_of_all()
    lasts = {service: by_name.get(service.lower(), {}) for service in _watched(settings, entries, by_name)}
    for service, last in lasts.items():
        if _since(last, now) is None:
            lasts[service] = _seen(job_queue, service, now)
    silences = [silence for service, last in lasts.items() if (silence := _silence(settings, service, last, now))]
    silences = [silence for silence in silences if not _has_left(settings, silence, lasts, now)]
    for silence in silences:
        if "overdue" not in silence.last:
            _raise_overdue(settings, job_queue, silence.service, now)
    _raise_good_night(settings, job_queue, lasts, now)
    _raise_digest(settings, job_queue, silences, now)
    return silences


def _watched(settings: Settings, entries: Sequence[str], by_name: Mapping[str, Mapping[str, Any]]) -> list[str]:
    watched: list[str] = []
    for entry in entries:
        members = []
        if _is_set(settings, entry):
            prefix = f"{entry.lower()}/"
            members = [last["service"] for name, last in by_name.items() if name.startswith(prefix)]
        watched += members or [entry]
    return watched


def _is_set(settings: Settings, name: str) -> bool:
    return name.partition("/")[0].lower() in {set_name.lower() for set_name in settings.sets}


def _has_left(settings: Settings, silence: Silence, lasts: Mapping[str, Mapping[str, Any]], now: datetime) -> bool:
    """Whether the service is a table or container that has left its set: silent for a month, and others are not."""
    if not _is_set(settings, silence.service) or now - silence.since <= _LEAVES_AFTER:
        return False
    prefix = silence.service.partition("/")[0] + "/"
    since = (_since(last, now) for name, last in lasts.items() if name.startswith(prefix) and last.get("success"))
    return any(at is not None and now - at <= silence.limit for at in since)


def _seen(job_queue: JobQueue, service: str, now: datetime) -> Mapping[str, Any]:
    """Records that the app saw the service now, where its age counts from that. Returns its last runs."""
    item = job_queue.keys.get(_key(service))
    last = item.value if item else {}
    if _since(last, now) is None:
        seen = {"at": now.isoformat(), "syncId": last.get("success", {}).get("syncId")}
        last = {"service": service, **last, "seen": seen}
        job_queue.keys.commit([Change(_key(service), last, item.etag if item else NEW)])
    return last


def _since(last: Mapping[str, Any], now: datetime) -> datetime | None:
    """Since when the service has had no successful sync; None if nobody can tell yet.

    Without a success, since the app first saw it. A success in the future comes from a clock that was wrong; it counts
    from when the app first saw it, so that it hides no silence.
    """
    success, seen = last.get("success", {}), last.get("seen", {})
    latest = now + CLOCKS_DIFFER
    if success and (at := datetime.fromisoformat(success["at"])) <= latest:
        return at
    if seen and seen["syncId"] == success.get("syncId") and (at := datetime.fromisoformat(seen["at"])) <= latest:
        return at
    return None


def _silence(settings: Settings, service: str, last: Mapping[str, Any], now: datetime) -> Silence | None:
    since, limit = _since(last, now), settings.max_age(service)
    if since is None or limit is None or now - since <= limit:
        return None
    return Silence(service, since, limit, last)


def _raise_overdue(settings: Settings, job_queue: JobQueue, service: str, now: datetime) -> None:
    item = job_queue.keys.get(_key(service))
    silence = _silence(settings, service, item.value, now) if item else None
    if item is None or silence is None or "overdue" in silence.last:
        return
    raised = overdue(service, silence.since, now, silence.limit, silence.last)
    mark = {"at": time_text(now), "since": time_text(silence.since)}
    # The etag: if a sync succeeds at this moment, nothing is told.
    changes = [Change(_key(service), {**silence.last, "overdue": mark}, item.etag), *job_queue.outbox.changes(raised)]
    if job_queue.keys.commit(changes):
        event("service.overdue", service=service, age_hours=hours(now - silence.since), since=silence.since)


def _raise_good_night(
    settings: Settings, job_queue: JobQueue, lasts: Mapping[str, Mapping[str, Any]], now: datetime
) -> None:
    """Raises the event of a good night, once for each time that the shared schedule was due.

    A night is good when every service has had a successful sync since its schedule was due last. Of a set one service
    is enough, if none of the set has failed since.
    """
    if not settings.notify_heartbeat or not lasts:
        return
    sets: dict[str, bool] = {}
    for service, last in lasts.items():
        due = settings.schedule_of(service).last_due(now)
        success, failure = (_moment(last.get(kind)) for kind in ("success", "failure"))
        has_succeeded = success is not None and due <= success <= now + CLOCKS_DIFFER
        has_failed = failure is not None and failure >= due and not (success is not None and success >= failure)
        if not _is_set(settings, service):
            if not has_succeeded:
                return
        elif has_failed:
            return
        else:
            name = service.partition("/")[0]
            sets[name] = sets.get(name, False) or has_succeeded
    if all(sets.values()):
        night = settings.shared_schedule.last_due(now)
        _raise_once(job_queue, "night", night, now, Event(GOOD_NIGHT, time_text(night), now, None, {}))


def _moment(entry: Mapping[str, Any] | None) -> datetime | None:
    return datetime.fromisoformat(entry["at"]) if entry else None


def _raise_digest(settings: Settings, job_queue: JobQueue, silences: Sequence[Silence], now: datetime) -> None:
    if settings.notify_send != "digest" or not settings.notify_urls:
        return
    due = Schedule(f"0 0 {settings.notify_digest_hour} * * *", settings.schedule_time_zone).last_due(now)
    item = job_queue.keys.get("digest")
    if item is not None and _is_raised(item, due, now):
        return
    last = moment_in(item.value, "due") if item else None
    began = max(last, due - _DIGEST_AT_MOST) if last else None
    if began is None or began > due:  # the first digest is due tomorrow; a time in the future was a wrong clock
        job_queue.keys.commit([Change("digest", {"due": due.isoformat()}, item.etag if item else NEW)])
        return
    data = _digest_of(job_queue, began, due, [silence.service for silence in silences])
    _raise_once(job_queue, "digest", due, now, Event(DIGEST, time_text(due), now, None, data))


def _raise_once(job_queue: JobQueue, key: str, due: datetime, now: datetime, raised: Event) -> None:
    """Puts the event into the outbox unless it was there for this time already."""
    item = job_queue.keys.get(key)
    if item is None or not _is_raised(item, due, now):
        mark = Change(key, {"due": due.isoformat()}, item.etag if item else NEW)
        job_queue.keys.commit([mark, *job_queue.outbox.changes(raised)])


def _is_raised(item: Item, due: datetime, now: datetime) -> bool:
    raised = moment_in(item.value, "due")
    return raised is not None and due <= raised <= now + CLOCKS_DIFFER


def _digest_of(job_queue: JobQueue, began: datetime, ended: datetime, silent: Sequence[str]) -> dict[str, Any]:
    """What the syncs did that ended in this time, by service. Reads at most 2,000 runs, the newest."""
    rows: dict[str, dict[str, Any]] = {}
    cursor, number = None, 0
    while True:
        since = began - _LONGEST_RUN
        page = job_queue.runs.page(verb=Verb.SYNC, since=since, until=ended, limit=PAGE_AT_MOST, cursor=cursor)
        for run in page.runs:
            number += 1
            ended_at = datetime.fromisoformat(run["completedAt"]) if run.get("completedAt") else began
            if began < ended_at <= ended and not run.get("dryRun"):
                _add(rows, run)
        cursor = page.cursor
        if cursor is None or number >= _RUNS_AT_MOST:
            break
    services = [rows[name] for name in sorted(rows)][:_SERVICES_AT_MOST]
    return {
        "from": time_text(began),
        "to": time_text(ended),
        "completed": sum(row["completed"] for row in rows.values()),
        "failed": sum(row["failed"] for row in rows.values()),
        "overdue": list(silent)[:_SERVICES_AT_MOST],
        "services": services,
        "isComplete": cursor is None and len(services) == len(rows),
    }


def _add(rows: dict[str, dict[str, Any]], run: Mapping[str, Any]) -> None:
    counts = dict.fromkeys(("completed", "failed", "inserted", "updated", "deleted"), 0)
    row = rows.setdefault(run["service"], {"service": run["service"], **counts, "error": None})
    row["failed" if run["status"] == Status.FAILED else "completed"] += 1
    for name in ("inserted", "updated", "deleted"):
        row[name] += run.get("counts", {}).get(name, 0)
    error = safe(run.get("error"))
    row["error"] = row["error"] or (error and error[:_ERROR_AT_MOST])  # runs come newest first


def _key(service: str) -> str:
    return f"last:{hashed(service)}"
