"""Jobs over three processes, some of which are killed: none is lost, none is worked on twice. Long: a thousand jobs."""

from __future__ import annotations

import random
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from backup.config.settings import load_settings
from backup.jobs import records
from backup.jobs.job import Request, State
from backup.jobs.job_queue import JobQueue, open_job_queue
from tests.programs import Program
from tests.reliability.effort import SEED, rounds
from tests.reliability.laborer import SILENT_SECONDS
from tests.scenarios.product import start

pytestmark = pytest.mark.timeout(rounds(120, 1800))

PROCESSES = 3
JOBS = rounds(24, 1_000)
KILLS = rounds(1, 12)
SECONDS_BETWEEN_KILLS = rounds(0.2, 4.0)


class Crew:
    """Three processes that work on jobs, and what they wrote into the ledger."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        self._folder, self._ledger = folder, folder / "ledger"
        self._settings = {**settings, "LEDGER": str(self._ledger)}
        self.killed: dict[int, float] = {}
        self._processes: list[Program] = [self._started() for _ in range(PROCESSES)]

    def kill_one(self, chance: random.Random) -> None:
        """Kills one of them as `kill -9` does, and starts another in its place."""
        place = chance.randrange(PROCESSES)
        process = self._processes[place]
        process.kill()
        process.wait(30)
        self.killed[process.pid] = time.monotonic()
        self._processes[place] = self._started()

    def end(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait(30)

    def work(self) -> dict[str, list[tuple[float, float | None, int]]]:
        """Of each service the begins and ends of its runs, and the processes. A run that was killed has no end."""
        begun: dict[str, dict[int, float]] = defaultdict(dict)
        runs: dict[str, list[tuple[float, float | None, int]]] = defaultdict(list)
        for line in self._ledger.read_text().splitlines():
            event, service, pid, at = line.split()
            if event == "begin":
                begun[service][int(pid)] = float(at)
            else:
                runs[service].append((begun[service].pop(int(pid)), float(at), int(pid)))
        for service, open_runs in begun.items():
            runs[service] += [(at, None, pid) for pid, at in open_runs.items()]
        return {service: sorted(of_service, key=lambda run: run[0]) for service, of_service in runs.items()}

    def _started(self) -> Program:
        arguments = ("-m", "tests.reliability.laborer")
        return start(self._folder, self._settings, *arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@contextmanager
def sweeping(job_queue: JobQueue, seconds: float) -> Iterator[None]:
    """Does each few seconds what the minute timer does each minute."""
    ended = threading.Event()

    def sweep() -> None:
        while not ended.wait(seconds):
            job_queue.sweep()

    thread = threading.Thread(target=sweep)
    thread.start()
    yield
    ended.set()
    thread.join()


@pytest.mark.parametrize("kind", ["file", *rounds([], ["account"])])
def test_of_many_jobs_none_is_lost_and_none_is_worked_on_twice(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(records, "SILENCE", timedelta(seconds=SILENT_SECONDS))
    settings = {"BackupJobs__File": str(tmp_path / "jobs.db")}
    if kind == "account":
        settings["AzureWebJobsStorage"] = request.getfixturevalue("azurite")
    job_queue, crew, chance = open_job_queue(load_settings(settings)), Crew(tmp_path, settings), random.Random(SEED)
    began = time.monotonic()
    try:
        with sweeping(job_queue, 1 if kind == "file" else 15):
            jobs = []
            for number in range(JOBS):
                jobs.append(job_queue.ask(Request(f"s{number}"), "http"))
                if kind == "account" and number % 10 == 3:
                    job_queue.doorbell.ring(jobs[-1].job_id)  # a message twice
            for _ in range(KILLS):
                time.sleep(SECONDS_BETWEEN_KILLS)
                crew.kill_one(chance)
            while sum(job_queue.records.numbers()[state] for state in (State.SUCCEEDED, State.FAILED)) < JOBS:
                time.sleep(0.1)
    finally:
        crew.end()
    ended = [job_queue.records.get(job.job_id) for job in jobs]
    job_queue.keys.close()
    assert {job.state for job in ended if job} == {State.SUCCEEDED}
    assert len(ended) == JOBS
    work = crew.work()
    assert work.keys() == {job.request.service for job in jobs}
    again = {service: runs for service, runs in work.items() if len(runs) > 1}
    for service, runs in again.items():
        for (_, _, pid), (next_begin, _, _) in pairwise(runs):
            assert pid in crew.killed, f"{service} was worked on twice: {runs}"
            assert next_begin > crew.killed[pid], f"{service} was worked on by two at once: {runs}"
    print(f"{JOBS} jobs, {kind}: {time.monotonic() - began:.0f} s, {len(again)} again after {KILLS} kills")
