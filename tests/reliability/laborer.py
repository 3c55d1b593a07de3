"""A process that works on jobs whose services only write into a ledger when they begin and when they end.

`python -m tests.reliability.laborer` has the app's settings in its environment, and LEDGER names the file. With a
storage account it reads the queue as the local host does; else it looks at the file of records. It works until it is
killed. A worker counts as silent after SILENT_SECONDS here, so that a test need not wait for two minutes.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from backup.config.bindings import QUEUE
from backup.config.settings import load_settings
from backup.core.model import utc_now
from backup.core.run_values import Counts, Run, Status, Trigger
from backup.dev.queues import QueueOptions, keep_reading
from backup.jobs import records, worker
from backup.jobs.job_queue import job_queue_of
from backup.jobs.workers import work_until
from backup.runs.outcome import Outcome

AT_ONCE = 5
SILENT_SECONDS = 5.0


class Ledger:
    """Stands for the registry and each of its services."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    @property
    def directory(self) -> Ledger:
        return self

    def is_group(self, _: str) -> bool:
        return False

    def get(self, service: str) -> Work:
        return Work(self, service)

    def note(self, *words: object) -> None:
        os.write(self._descriptor, f"{' '.join(map(str, words))}\n".encode())  # in one piece, as O_APPEND promises


class Work:
    """One service's run."""

    def __init__(self, ledger: Ledger, service: str) -> None:
        self._ledger, self._service = ledger, service

    def resume(self, *_: Any) -> None:
        """Resumes nothing: each attempt begins anew."""

    def sync(self, *_: Any) -> Outcome:
        self._ledger.note("begin", self._service, os.getpid(), time.monotonic())
        time.sleep(0.2 if self._service.endswith("7") else 0.01)
        self._ledger.note("end", self._service, os.getpid(), time.monotonic())
        run = Run(self._service, Trigger.JOB, False, utc_now())
        return Outcome(run.ended(Status.COMPLETED, utc_now(), Counts(inserted=1)))


def main() -> None:
    records.SILENCE = timedelta(seconds=SILENT_SECONDS)
    worker._BEATS_SECONDS = (SILENT_SECONDS / 5,) * 3
    settings, ledger = load_settings(), Ledger(os.environ["LEDGER"])
    job_queue = job_queue_of(settings)
    arguments = (job_queue.records, job_queue.runs, job_queue.doorbell, job_queue.now, 60.0)
    laborer = worker.JobWorker(lambda _: ledger, *arguments)  # type: ignore[arg-type, return-value]
    print("ready", flush=True)
    if not settings.has_storage_account:
        work_until(threading.Event(), job_queue, laborer, AT_ONCE)
        return

    async def call(message: str, _: Mapping[str, Any]) -> bool:
        try:
            await asyncio.to_thread(laborer.work, message)
        except Exception as error:
            print(f"not worked: {error}", flush=True)
            return False
        return True

    asyncio.run(keep_reading(QUEUE, settings.storage_connection or "", QueueOptions(AT_ONCE), call))


if __name__ == "__main__":
    main()
