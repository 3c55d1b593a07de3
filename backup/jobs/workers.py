"""Worker threads of this process, for where no host reads a queue. The bell wakes them to look at the records."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor

from backup.core.errors import BackupError
from backup.core.log import event
from backup.jobs.job_queue import LOCAL_DOORBELL, JobQueue
from backup.jobs.worker import JobWorker

_LOOK_SECONDS = 1.0
_ALIVE_EVERY = 30  # looks


def work_until(ended: threading.Event, job_queue: JobQueue, worker: JobWorker, at_once: int) -> None:
    """Works on jobs, up to `at_once` side by side, until `ended` is set; then waits for the jobs at work.

    Several processes may work on the same records. Logs an error of the records and looks again a second later.
    """
    running: set[str] = set()
    free = threading.Semaphore(at_once)

    def work(job_id: str) -> None:
        try:
            worker.work(job_id)
        except BackupError as error:
            event("jobs.not_worked", level=logging.WARNING, job_id=job_id, error=error)
        finally:
            running.discard(job_id)
            free.release()
            LOCAL_DOORBELL.ring(job_id)

    with ThreadPoolExecutor(at_once, thread_name_prefix="job") as pool:
        looks = 0
        while not ended.is_set():
            try:
                if looks % _ALIVE_EVERY == 0:
                    job_queue.worker_is_alive()
                for job in job_queue.records.waiting():
                    if job.job_id not in running and free.acquire(blocking=False):
                        running.add(job.job_id)
                        pool.submit(work, job.job_id)
            except BackupError as error:
                event("jobs.not_looked_at", level=logging.WARNING, error=error)
            looks += 1
            LOCAL_DOORBELL.wait(_LOOK_SECONDS)
