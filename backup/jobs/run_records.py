"""Summaries of the runs of all services. Pages and alarms read them, so that they wake no database.

SyncHistory says what a run did to data, and lies beside that data. The summary of a run lies here, under keys that
change together. `run:` has the summary, newest first. `runid:`, `runof:`, `runstatus:` and `runverb:` lead to it by its
id, service, status and verb. The end of a run changes the numbers too (`run_numbers`).
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from backup.core.errors import BadRequest, Interrupted, StoreUnavailable
from backup.core.log import event
from backup.core.run_values import Run, Status, Verb
from backup.core.unexpected import safe_text
from backup.jobs.events import event_of
from backup.jobs.key_values import NEW, Change, Item, KeyValues
from backup.jobs.listing import PAGE_AT_MOST, SCANNED_AT_MOST
from backup.jobs.outbox import Outbox
from backup.jobs.record_keys import hashed, order_of
from backup.jobs.run_numbers import RunNumbers, number_changes

KEEP_DAYS = 400
"""How long the records of ended jobs and runs stay."""

_TRIES = 20
_UNSAVED_AT_MOST = 1_000
_NOTES_AT_MOST = 20
_FAILURES_AT_MOST = 20
_AFTER_MARKS = "g"  # sorts after hexadecimal digits


class RunPage(NamedTuple):
    """Runs, newest first, and the cursor of the next page; None at the end. A page may be empty and have a cursor."""

    runs: Sequence[Mapping[str, Any]]
    cursor: str | None


class OpenRun(NamedTuple):
    """A run that has not ended: its service in small letters, its id, its job if it has one, how long ago it began."""

    service: str
    sync_id: str
    job_id: str | None
    age: timedelta


class RunRecords(RunNumbers):
    """The summaries, and the numbers. Several threads and processes may use them at once.

    Every method raises StoreUnavailable or StoreError when they cannot be read or written.
    """

    def __init__(self, keys: KeyValues, outbox: Outbox | None = None) -> None:
        """The events about runs go into the `outbox`."""
        super().__init__(keys)
        self._outbox = outbox or Outbox()
        self._unsaved: deque[Callable[[], None]] = deque(maxlen=_UNSAVED_AT_MOST)
        self._saving = threading.Lock()

    def save(
        self,
        run: Run,
        *,
        job_id: str | None = None,
        hint: str | None = None,
        requested_by: str | None = None,
        due_at: datetime | None = None,
        is_late: bool = False,
    ) -> None:
        """Writes the run's summary. Once the run has ended, also adds it to the numbers of its day, and puts the events
        about it into the outbox.

        `requested_by`: the name of the person who asked for the run. `due_at`: the occurrence of the schedule that the
        run is for. A summary of an ended run does not change any more. `is_late`: other runs of the service may have
        ended since, and stay its last ones.
        """
        order = order_of(run.started_at, run.sync_id.replace("-", "")[:8])
        for _ in range(_TRIES):
            pointer = self._keys.get(f"runid:{run.sync_id}")
            order = pointer.value.get("order", order) if pointer else order
            item = self._keys.get(f"run:{order}") if pointer else None
            before = item.value or None if item else None
            if before is not None and before.get("completedAt"):
                return
            earlier = before or {}
            after = _summary(run, job_id or earlier.get("jobId"), hint, requested_by or earlier.get("requestedBy"))
            changes = [Change(f"run:{order}", after, item.etag if item else NEW)]
            if pointer is None or not pointer.value:
                leads = Change(f"runid:{run.sync_id}", {"order": order}, pointer.etag if pointer else NEW)
                changes.append(leads)
            old_keys = () if before is None else _pointer_keys(before, order)
            new_keys = _pointer_keys(after, order)
            changes += [Change(key, None) for key in old_keys if key not in new_keys]
            facts = {"status": after["status"], "verb": after["verb"]}
            changes += [Change(key, facts) for key in new_keys if before is None or facts["status"] != before["status"]]
            if run.completed_at is not None and not run.dry_run:
                changes += number_changes(self._keys, run, due_at, self._outbox, is_late=is_late)
            if (raised := event_of(run, after.get("jobId"), hint)) is not None:
                changes += self._outbox.changes(raised)
            if self._keys.commit(changes):
                return
        raise StoreUnavailable(
            f"The summary of run {run.sync_id} could not be written: other calls changed it meanwhile. The backup and"
            " SyncHistory are as the run left them."
        )

    def save_later(self, save: Callable[[], None]) -> None:
        """Keeps in memory what saves the end of a run, because the records cannot be written now."""
        self._unsaved.append(save)

    def save_unsaved(self) -> None:
        """Saves what was kept in memory, so that no summary and no event is lost when the records can be written again.
        What cannot be saved yet stays. Raises no error."""
        with self._saving:
            for _ in range(len(self._unsaved)):
                save = self._unsaved.popleft()
                try:
                    save()
                except (StoreUnavailable, Interrupted):
                    self._unsaved.append(save)  # the next call begins with another: this may be one that never can be
                    return
                except Exception as error:  # whatever it is: the run of the caller is well
                    event("runs.not_saved", level=logging.WARNING, error=safe_text(error))

    def forget(self, before: datetime, limit: int = 5) -> int:
        """Removes summaries of runs that began before that time, at most `limit`; returns how many it removed."""
        forgotten = 0
        for item in self._keys.scan("run:", after=f"run:{order_of(before, '')}", limit=limit):
            order = item.key.removeprefix("run:")
            keys = (f"runid:{item.value['syncId']}", *_pointer_keys(item.value, order)) if item.value else ()
            forgotten += self._keys.commit([Change(item.key, None, item.etag), *(Change(key, None) for key in keys)])
        return forgotten

    def get(self, sync_id: str) -> Mapping[str, Any] | None:
        """Returns the summary of the run of this id, or of the only id that begins with it; None without one. Raises
        BadRequest when several ids begin with it."""
        pointers = self._keys.scan(f"runid:{sync_id.lower()}", limit=2) if _is_id(sync_id) else []
        if len(pointers) > 1:
            raise BadRequest(f"Several runs begin with {sync_id}.", hint="Give more of the id.")
        order = pointers[0].value.get("order") if pointers else None
        item = self._keys.get(f"run:{order}") if order else None
        return item.value or None if item else None

    def page(
        self,
        *,
        service: str | None = None,
        status: Status | None = None,
        verb: Verb | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        text: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> RunPage:
        """Returns the runs that began at `since` or later, and before `until`; newest first.

        `text` is somewhere in an id of theirs, also of the job, in their service, verb, error, hint or notes, or in the
        name of who asked; case does not count.
        Cost: reads the summaries of the page; with a text, or more than one of service, status and verb, at most 1,000.
        Raises BadRequest for a cursor that is not from a page of these runs.
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
            for item, run in zip(items, self._runs(items, status, verb), strict=True):
                if len(runs) == wanted or scanned >= SCANNED_AT_MOST:
                    return RunPage(runs, after)
                scanned, after = scanned + 1, item.key
                if not run:
                    continue
                if since and datetime.fromisoformat(run["startedAt"]) < since:
                    return RunPage(runs, None)
                if _matches(run, service, status, verb, text):
                    runs.append(run)
            if len(items) <= wanted:
                return RunPage(runs, None)

    def open_runs(self, now: datetime, limit: int) -> list[OpenRun] | None:
        """Returns each run that has not ended; None if there are more than `limit`. Cost: one read, and one of their
        summaries."""
        items = self._keys.scan(f"runstatus:{Status.IN_PROGRESS}:", limit=limit + 1)
        if len(items) > limit:
            return None
        return [
            OpenRun(
                run["service"].lower(),
                run["syncId"],
                run.get("jobId"),
                item.age_by(datetime.fromisoformat(run["startedAt"]), now),
            )
            for item, run in zip(items, self._runs(items, Status.IN_PROGRESS, None), strict=True)
            if run and run["status"] == Status.IN_PROGRESS
        ]

    def _runs(self, items: Sequence[Item], status: Status | None, verb: Verb | None) -> list[Mapping[str, Any] | None]:
        """The summaries that these keys of one kind lead to. None for one that has been removed since, or whose key
        says that it has another status or verb."""
        if items and items[0].key.startswith("run:"):
            return [item.value for item in items]
        keys = {
            item.key: f"run:{item.key.rpartition(':')[2]}" for item in items if _may_match(item.value, status, verb)
        }
        summaries = {item.key: item.value for item in self._keys.get_all(list(keys.values())) if item is not None}
        return [summaries.get(keys.get(item.key, "")) for item in items]


def _summary(run: Run, job_id: str | None, hint: str | None, requested_by: str | None) -> dict[str, Any]:
    """The summary of a run, with the names of the JSON API."""
    summary: dict[str, Any] = {
        "syncId": run.sync_id,
        "service": run.service,
        "verb": run.verb.value,
        "trigger": run.trigger.value if run.trigger else None,
        "status": run.status.value,
        "startedAt": run.started_at.isoformat(),
        "completedAt": run.completed_at.isoformat() if run.completed_at else None,
        "durationMs": run.duration_ms,
        "readAsOf": run.read_as_of.isoformat() if run.read_as_of else None,
        "counts": asdict(run.counts),
        "percent": run.percent,
        "forced": run.forced,
        "dryRun": run.dry_run,
        "limit": run.limit,
        "verified": run.verified if run.completed_at else None,
        "error": run.error,
        "errorKind": run.error_kind,
        "hint": hint,
        "notes": list(run.notes[:_NOTES_AT_MOST]),
        "failures": [list(failure) for failure in run.failures[:_FAILURES_AT_MOST]],
        "jobId": job_id,
        "requestedBy": requested_by,
    }
    return {name: value for name, value in summary.items() if value not in (None, [])}


def _pointer_keys(run: Mapping[str, Any], order: str) -> tuple[str, ...]:
    keys = (f"runof:{hashed(run['service'])}", f"runstatus:{run['status']}", f"runverb:{run['verb']}")
    return tuple(f"{key}:{order}" for key in keys)


def _may_match(facts: Mapping[str, Any], status: Status | None, verb: Verb | None) -> bool:
    """Whether the run may have this status and verb, by what the key says that leads to its summary."""
    wanted = {name: value for name, value in (("status", status), ("verb", verb)) if value is not None}
    return all(facts.get(name, value) == value for name, value in wanted.items())


def _matches(
    run: Mapping[str, Any], service: str | None, status: Status | None, verb: Verb | None, text: str | None
) -> bool:
    return (
        (not text or any(text.lower() in part.lower() for part in _searched(run)))
        and (service is None or run["service"].lower() == service.lower())
        and (status is None or run["status"] == status)
        and (verb is None or run["verb"] == verb)
    )


def _searched(run: Mapping[str, Any]) -> list[str]:
    names = ("syncId", "jobId", "service", "verb", "trigger", "error", "errorKind", "hint", "requestedBy")
    return [*(run.get(name) or "" for name in names), *run.get("notes", ())]


def _is_id(text: str) -> bool:
    return bool(text) and all(character in "0123456789abcdef-" for character in text.lower())


def _position(cursor: str | None, prefix: str) -> str:
    if cursor is None:
        return ""
    if not cursor.startswith(prefix) or not cursor.isascii() or len(cursor) > 300:
        raise BadRequest("The cursor is not from a page of these runs.", hint="Begin again without a cursor.")
    return cursor
