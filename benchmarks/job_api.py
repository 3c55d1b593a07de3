"""`python -m benchmarks.job_api`: what each request of the page and of the API of jobs costs with few records and many.

Fills two files of records (the embedded default) through the app's own code: 10 services with 1,000 runs, and 200 with
100,000, a job for each run. One service of each has databases too, with as many runs as its share. Then it asks each
request many times and prints the processor's time of both, and their ratio. It reads the answers whole, as HTTP sends
them.
"""

from __future__ import annotations

import json
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from backup.config.settings import Settings, load_settings
from backup.core.run_values import Counts, Proof, Run, Status, Total, Trigger
from backup.entry import dashboard_api, job_api
from backup.entry.answers import Answer
from backup.jobs.job import Request, State
from backup.jobs.job_queue import JobQueue, open_job_queue
from backup.jobs.key_values import NEW, Change, Item
from backup.jobs.records import JobRecords
from backup.jobs.run_records import RunRecords
from backup.services.registry import Registry

AIM = 2.0
"""How many times as much a request may cost with 20 times as many services and 100 times as many runs."""

_DAYS = 100
_FAILED_OF = 11  # not a divisor of the services, so that each has failures
_NOW = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)


_A_RUN = Run("service1", Trigger.CLI, False, _NOW - timedelta(days=300))


@dataclass(frozen=True)
class Size:
    """How many services, and how many runs of all of them together."""

    services: int
    runs: int


SMALL, LARGE = Size(10, 1_000), Size(200, 100_000)


@dataclass(frozen=True)
class Measured:
    """A request's median milliseconds of the processor with few records and with many."""

    request: str
    small_ms: float
    large_ms: float

    @property
    def ratio(self) -> float:
        """How many times as much it costs with many records."""
        return self.large_ms / self.small_ms


class _Memory:
    """Keys and values of this process, to fill a file with: a file takes a commit for each change."""

    def __init__(self) -> None:
        self.items: dict[str, Item] = {}

    def get(self, key: str) -> Item | None:
        return self.items.get(key)

    def get_all(self, keys: Sequence[str]) -> list[Item | None]:
        return list(map(self.get, keys))

    def scan(self, prefix: str, *, after: str = "", limit: int) -> list[Item]:  # noqa: ARG002 - ids are whole here
        item = self.items.get(prefix)
        return [item] if item else []

    def commit(self, changes: Sequence[Change]) -> bool:
        for change in changes:
            before = self.items.get(change.key)
            if change.only_if is NEW and before is not None:
                return False
            if isinstance(change.only_if, str) and (before is None or before.etag != change.only_if):
                return False
        for change in changes:
            if change.value is None:
                self.items.pop(change.key)
            else:
                self.items[change.key] = Item(change.key, change.value, str(len(self.items)))
        return True

    def close(self) -> None:
        pass


def fill(file: Path, size: Size) -> list[str]:
    """Fills the file with the records of runs of the last 200 days, and of their jobs. Returns the ids of the jobs."""
    memory, at = _Memory(), _NOW - timedelta(days=_DAYS)
    jobs, runs = JobRecords(memory, lambda: at), RunRecords(memory)
    chance, step = random.Random(1), timedelta(days=_DAYS) / size.runs  # noqa: S311 - the same each time
    ids = []
    for number in range(size.runs):
        at += step
        service = f"service{number % size.services}"
        failed = number % _FAILED_OF == 0
        job = jobs.enqueue(Request(service), "timer", owner="a worker")
        if job is None:
            raise AssertionError("only an occurrence may have a job already")
        counts = Counts(chance.randrange(100), chance.randrange(1000), chance.randrange(10), 10_000)
        proof = Proof(Total(10_000, 1), Total(10_000, 1))
        run = Run(service, Trigger.JOB, False, at, proof=proof)
        status, error = (Status.FAILED, "The server did not answer.") if failed else (Status.COMPLETED, None)
        run = run.ended(status, at + timedelta(seconds=chance.randrange(1, 600)), counts, error)
        runs.save(run, job_id=job.job_id)
        state = State.FAILED if failed else State.SUCCEEDED
        jobs.leave(job, state, sync_id=run.sync_id, error=error, counts={"inserted": counts.inserted})
        jobs.keep_lines(job.job_id, ["a line of the log"] * 200)
        ids.append(job.job_id)
    open_job_queue(_settings(file, size)).keys.scan("", limit=1)  # makes the table
    with closing(sqlite3.connect(file)) as database, database:
        rows = ((key, json.dumps(item.value, separators=(",", ":"))) for key, item in sorted(memory.items.items()))
        database.executemany("INSERT INTO items (key, value, etag) VALUES (?, ?, 1)", rows)
    return ids


def make_runs(file: Path, settings: Settings, number: int) -> list[str]:
    """Makes the databases of the service `service1`, and that many runs that each change 20 of its 200 records. Returns
    their ids."""
    ids = []
    with closing(sqlite3.connect(_file_of(file, "Source", 1))) as source:
        source.execute("CREATE TABLE Records1 (Id INTEGER PRIMARY KEY, Version INTEGER NOT NULL, Name TEXT NOT NULL)")
        source.executemany("INSERT INTO Records1 VALUES (?, 0, 'somebody')", ((key,) for key in range(200)))
        source.commit()
        registry = Registry(settings)
        registry.get("service1").initialize()
        for night in range(number):
            source.execute("UPDATE Records1 SET Version = Version + 1 WHERE Id % 10 = ?", (night % 10,))
            source.commit()
            [outcome] = registry.sync("service1", Trigger.CLI)
            ids.append(outcome.run.sync_id)
    return ids


def requests(
    job_queue: JobQueue, settings: Settings, registry: Registry, job_id: str, run_id: str
) -> Mapping[str, Callable[[], Answer]]:
    """Returns the requests of the API, by how they are written. `run_id`: a run of a service with databases."""
    summary_id = str(job_api.get_job(job_queue, job_id, {}).body["syncId"])

    def history(**query: str) -> Callable[[], Answer]:
        return lambda: job_api.get_history(job_queue, settings, query)

    def jobs(**query: str) -> Callable[[], Answer]:
        return lambda: job_api.get_jobs(job_queue, settings, query)

    since = (_NOW - timedelta(days=30)).isoformat()
    return {
        "history": history(),
        "history?service=": history(service="service3"),
        "history?status=Failed": history(status="Failed"),
        "history?verb=sync": history(verb="sync"),
        "history?service=&status=Failed&limit=5": history(service="service0", status="Failed", limit="5"),
        "history?status=Failed&verb=sync": history(status="Failed", verb="sync"),
        "history?service=&status=Completed&verb=sync": history(service="service3", status="Completed", verb="sync"),
        "history?from=": history(**{"from": since}),
        "history?q=": history(q="nothing like it"),
        "jobs": jobs(),
        "jobs?state=Succeeded": jobs(state="Succeeded"),
        "jobs?state=Failed&limit=20": jobs(state="Failed", limit="20"),
        "jobs?state=Processing": jobs(state="Processing"),
        "jobs?type=": jobs(type="service3"),
        "jobs?state=Failed&type=&limit=5": jobs(state="Failed", type="service0", limit="5"),
        "jobs?q=": jobs(q="nothing like it"),
        "job/{id}": lambda: job_api.get_job(job_queue, job_id, {}),
        "jobs/{id}": lambda: job_api.get_job_details(job_queue, job_id, {}),
        "summary": lambda: job_api.get_summary(job_queue, {"date": str(_NOW.date())}),
        "stats": lambda: job_api.get_stats(job_queue, settings, registry, {}),
        "overview": lambda: dashboard_api.get_overview(job_queue, settings, registry, {}),
        "overview?q=&limit=1": lambda: dashboard_api.get_overview(
            job_queue, settings, registry, {"q": "service7", "limit": "1"}
        ),
        "calendar": lambda: dashboard_api.get_calendar(job_queue, settings, registry, {}),
        "calendar?days=90": lambda: dashboard_api.get_calendar(job_queue, settings, registry, {"days": "90"}),
        "calendar?service=": lambda: dashboard_api.get_calendar(job_queue, settings, registry, {"service": "service3"}),
        "runs/{id}": lambda: dashboard_api.get_run(job_queue, registry, summary_id, {}),
        "runs/{id}/changes": lambda: dashboard_api.get_run_changes(job_queue, registry, run_id, {"limit": "25"}),
        "runs/{id}/changes/record": lambda: dashboard_api.get_changed_record(
            job_queue, registry, run_id, {"key": "[5]"}
        ),
    }


def measure(folder: Path, small: Size = SMALL, large: Size = LARGE, rounds: int = 41) -> list[Measured]:
    """Fills a file of each size in the folder and asks each request `rounds` times, in turns. Cost of the usual sizes:
    two minutes and 500 MB."""
    asked = []
    for name, size in (("small", small), ("large", large)):
        file = folder / f"{name}.db"
        ids = fill(file, size)
        settings = _settings(file, size)
        job_queue = replace(open_job_queue(settings), now=lambda: _NOW)
        run_ids = make_runs(file, settings, size.runs // size.services)
        run_id = run_ids[len(run_ids) // 20 * 10 + 5]  # in the middle, and one that changed record 5
        job_queue.runs.save(replace(_A_RUN, sync_id=run_id))
        asked.append(requests(job_queue, settings, Registry(settings), ids[len(ids) // 2], run_id))
    of_small, of_large = asked
    measured = []
    for name in of_small:
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(rounds):
            for call, taken in zip((of_small[name], of_large[name]), times, strict=True):
                started = time.process_time()
                call().json  # noqa: B018 - what HTTP sends
                taken.append((time.process_time() - started) * 1000)
        measured.append(Measured(name, *map(statistics.median, times)))
    return measured


def _file_of(file: Path, side: str, number: int) -> Path:
    return file.with_name(f"{file.stem}-{side}{number}.db")


def _settings(file: Path, size: Size) -> Settings:
    sides: dict[str, Any] = {}
    for number in range(size.services):
        for side in ("Source", "Backup"):
            sides[f"{side}Service{number}Db__ConnectionString"] = f"sqlite:///{_file_of(file, side, number)}"
            # Names of their own: each run of a service asks the sides of all others whose tables are called alike.
            sides[f"{side}Service{number}Db__Table"] = f"Records{number}"
    return load_settings({**sides, "BackupJobs__File": str(file)})


def main(
    rounds: Annotated[int, typer.Option(min=1, help="how often each request is asked")] = 41,
    runs: Annotated[int, typer.Option(min=4_000, help="runs of the larger file")] = LARGE.runs,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON and nothing else")] = False,
) -> None:
    """Measures each request of the API of jobs with few records and with many."""
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(Path(folder), large=replace(LARGE, runs=runs), rounds=rounds)
    if as_json:
        print(json.dumps([{**vars(line), "ratio": round(line.ratio, 2)} for line in measured]))
        return
    print(f"| request | {SMALL.runs:,} runs | {runs:,} runs | ratio (aim ≤ {AIM:g}) |\n|---|---|---|---|")
    for line in measured:
        print(f"| `{line.request}` | {line.small_ms:.2f} ms | {line.large_ms:.2f} ms | {line.ratio:.2f} |")


if __name__ == "__main__":
    typer.run(main)
