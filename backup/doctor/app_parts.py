"""Looks at what the app has beside its databases: versions, timers, the storage account or its files, jobs."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from backup import __version__
from backup.config.bindings import QUEUE
from backup.config.environment import variable_named
from backup.config.settings import Settings
from backup.core.model import Now
from backup.core.suggestions import quantity
from backup.doctor.findings import Check, Finding, Grade, fine, wrong
from backup.doctor.sides import clock_finding
from backup.jobs.job import State
from backup.jobs.job_queue import JobQueue
from backup.jobs.table_key_values import TABLE
from backup.runs.blob_lease import CONTAINER
from backup.runs.storage_account import Kind, service_client, storage_error

_PYTHONS = ((3, 11), (3, 14))
_DRIVERS = ("pyodbc", "mssql-python-odbc", "psycopg", "azure-cosmos", "azure-identity", "SQLAlchemy")
_WAITS_TOO_LONG = timedelta(minutes=10)
_HOST = Path(__file__).parents[2] / "host.json"
_KEEPS = {"blob": "the locks", "queue": "the queue of jobs", "table": "the records of jobs"}


def version_findings() -> list[Finding]:
    """Returns the versions of Python, of the app and of the drivers that are installed."""
    here = sys.version_info[:2]
    text = f"Python {sys.version.split()[0]}"
    python = fine("app", "versions", text)
    if not _PYTHONS[0] <= here <= _PYTHONS[1]:
        first, last = (".".join(map(str, version)) for version in _PYTHONS)
        python = Finding(Grade.WARNING, "app", "versions", text, f"The app is tested on {first} to {last}.")
    installed = []
    for name in _DRIVERS:
        try:
            installed.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            installed.append(f"no {name}")
    return [python, fine("app", "versions", f"backup {__version__}; {', '.join(installed)}")]


def timer_findings(settings: Settings, names: Sequence[str], now: datetime) -> list[Finding]:
    """Returns when the schedules are due next, and what keeps the timers from their work."""
    findings = []
    schedules = {settings.schedule_of(name) for name in names} | {settings.shared_schedule}
    for schedule in sorted(schedules, key=lambda schedule: (schedule.expression, schedule.zone_name)):
        due = schedule.next_due(now)
        text = f"{schedule.expression} in {schedule.zone_name}: next {due:%Y-%m-%d %H:%M:%S %Z}"
        findings.append(fine("timers", "schedule", text))
    if not settings.schedule_enabled:
        text = "the schedule is switched off: nothing is synced by itself"
        findings.append(Finding(Grade.WARNING, "timers", "schedule", text, "Set BackupSchedule__Enabled to true."))
    if variable_named("WEBSITE_TIME_ZONE"):
        text = "WEBSITE_TIME_ZONE moves the clock of all timers"
        findings.append(
            Finding(Grade.WARNING, "timers", "schedule", text, "Remove it; BackupSchedule__TimeZone is enough.")
        )
    seconds = _seconds_of(_function_timeout())
    if seconds is not None and settings.slice_seconds >= seconds:
        text = f"a sync works {settings.slice_seconds:g} s at a time, and the host ends a function after {seconds:g} s"
        hint = "Make BackupSync__SliceSeconds smaller than functionTimeout."
        findings.append(Finding(Grade.FAILED, "timers", "slices", text, hint))
    return findings


def host_findings() -> list[Finding]:
    """Returns what host.json says that keeps the Functions host, or its queue, from working; nothing where the app is
    installed without that file."""
    findings, hint = [], "docs/azure.md says what the settings of the host are for; the release has the file as it was."
    try:
        host = json.loads(_HOST.read_text())
        encoding = host.get("extensions", {}).get("queues", {}).get("messageEncoding", "base64")
    except OSError:
        return []
    except (ValueError, AttributeError) as error:
        text = f"host.json is not what the Functions host reads ({error}): it would run nothing"
        return [Finding(Grade.FAILED, "app", "host.json", text, hint)]
    encoding = variable_named("AzureFunctionsJobHost__extensions__queues__messageEncoding") or encoding
    if str(encoding).lower() != "base64":
        text = f"messageEncoding is {encoding}: the host would give up every message, for the app sends base64"
        findings.append(Finding(Grade.FAILED, "app", "host.json", text, hint))
    timeout = _function_timeout()
    if timeout not in ("", "-1") and _seconds_of(timeout) is None:
        text = f"functionTimeout is {timeout}, which is not a time such as 00:10:00"
        findings.append(Finding(Grade.FAILED, "app", "host.json", text, hint))
    return findings or [fine("app", "host.json", "can be used")]


def _function_timeout() -> str:
    """The host's limit of a function: a setting's, before that of host.json; empty without one."""
    text = variable_named("AzureFunctionsJobHost__functionTimeout")
    try:
        return text or str(json.loads(_HOST.read_text()).get("functionTimeout", ""))
    except (OSError, ValueError, AttributeError):
        return ""


def _seconds_of(text: str) -> float | None:
    """The seconds of a time of .NET; None for what is none."""
    parts = re.fullmatch(r"(?:(\d+)\.)?(\d+):(\d+):(\d+)", text)
    if parts is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in parts.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds).total_seconds()


def storage_checks(settings: Settings, now: Now) -> list[Check]:
    """The checks of the storage account, each of its services alone; without an account, of the file of jobs."""
    if not settings.has_storage_account:
        return [Check("storage", "file of jobs", lambda: [_file_finding(Path(settings.jobs_file))])]
    kinds: tuple[Kind, ...] = ("blob", "queue", "table")
    return [Check("storage", kind, partial(_of_account, settings, kind, now)) for kind in kinds]


def _file_finding(path: Path) -> Finding:
    """Whether the file of jobs can be written, or made. Makes nothing."""
    hint = "Let the app's user write there, or name another file in BackupJobs__File."
    if not path.name:
        return Finding(Grade.FAILED, "storage", "file of jobs", "there is no home folder for it", hint)
    existing = next((place for place in (path, *path.parents) if place.exists()), path)
    if not os.access(existing, os.W_OK) or (existing == path and path.is_dir()):
        return Finding(Grade.FAILED, "storage", "file of jobs", f"{existing} cannot be written", hint)
    return fine("storage", "file of jobs", f"{path} {'can be written' if existing == path else 'can be made'}")


def _of_account(settings: Settings, kind: Kind, now: Now) -> Iterator[Finding]:
    """Whether the account's service answers and may be read; of blobs also the clock, of queues those that wait."""
    dates: list[str] = []

    def note_date(response: Any) -> None:
        dates.extend(value for name, value in response.http_response.headers.items() if name.lower() == "date")

    try:
        if kind == "blob":
            from azure.storage.blob import BlobServiceClient

            blobs = service_client(settings, kind, BlobServiceClient)
            next(
                iter(
                    blobs.list_containers(name_starts_with=CONTAINER, results_per_page=1, raw_response_hook=note_date)
                ),
                None,
            )
            yield fine("storage", kind, "answers, and may be read")
            if dates:
                yield clock_finding("storage", parsedate_to_datetime(dates[-1]), now())
        elif kind == "table":
            from azure.data.tables import TableServiceClient

            tables = service_client(settings, kind, TableServiceClient)
            next(iter(tables.query_tables(f"TableName eq '{TABLE}'", results_per_page=1)), None)
            yield fine("storage", kind, "answers, and may be read")
        else:
            yield from _queues(settings)
    except Exception as error:
        yield wrong("storage", kind, storage_error(error, _KEEPS[kind], kind))


def _queues(settings: Settings) -> Iterator[Finding]:
    from azure.storage.queue import QueueServiceClient

    queues = service_client(settings, "queue", QueueServiceClient)
    existing = {queue.name for queue in queues.list_queues(name_starts_with=QUEUE)}
    yield fine("storage", "queue", "answers, and may be read")
    if QUEUE not in existing:
        yield fine("storage", "queue", f"{QUEUE} is not there yet: the first job makes it")
    for name in (QUEUE, f"{QUEUE}-poison"):
        if name not in existing:
            continue
        number = queues.get_queue_client(name).get_queue_properties().approximate_message_count or 0
        if name.endswith("-poison") and number:
            hint = (
                "Their jobs are still in the records. The log has jobs.poisoned; clear the queue once they have ended."
            )
            yield Finding(
                Grade.WARNING, "storage", "poison queue", f"the host gave up {quantity(number, 'message')}", hint
            )
        else:
            yield fine("storage", "queue", f"{name} has {quantity(number, 'message')}")


def job_findings(settings: Settings, job_queue: JobQueue) -> list[Finding]:
    """Returns whether jobs wait for too long, and who works on them. Reads the records alone, and makes none."""
    if not settings.has_storage_account and not Path(settings.jobs_file).is_file():
        return [fine("jobs", "records", "there are none yet")]
    numbers = job_queue.records.numbers()
    counted = ", ".join(f"{number} {state.value.lower()}" for state, number in numbers.items() if number)
    findings = [fine("jobs", "records", counted or "there are none")]
    now = job_queue.now().astimezone(UTC)
    late = [job for job in job_queue.records.waiting() if now - (job.state_at or job.created_at) > _WAITS_TOO_LONG]
    if late:
        minutes = round((now - min(job.created_at for job in late)).total_seconds() / 60)
        text = f"no worker has taken {quantity(len(late), 'job')}, the oldest for {quantity(minutes, 'minute')}"
        hint = "In Azure look whether WorkOnJob runs; elsewhere start `python -m backup work` or serve."
        findings.append(Finding(Grade.FAILED, "jobs", "waiting", text, hint))
    if numbers[State.FAILED]:
        text = f"failed: {quantity(numbers[State.FAILED], 'job')}"
        findings.append(
            Finding(Grade.WARNING, "jobs", "failed", text, "`python -m backup history --failed` has the runs.")
        )
    return findings
