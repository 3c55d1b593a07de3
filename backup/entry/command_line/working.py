"""The command `work`, which works on queued jobs; and how `serve` works on them beside its own task."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from backup.config.settings import Settings
from backup.core import interrupts
from backup.core.errors import Interrupted
from backup.entry.command_line.configuration import settings_from
from backup.entry.command_line.log_lines import release_logs
from backup.entry.command_line.options import Config
from backup.entry.command_line.terminal import errors_shown, show_trouble
from backup.jobs.job_queue import job_queue_of
from backup.jobs.worker import worker_of
from backup.jobs.workers import work_until
from backup.notify.after_runs import after_runs


def work_command(
    at_once: Annotated[
        int | None, typer.Option("--at-once", min=1, max=100, help="How many jobs at the same time")
    ] = None,
    config: Config = None,
) -> None:
    """Work on queued jobs until Ctrl-C.

    Several such processes may run at the same time.
    """
    with errors_shown(False):
        settings = settings_from(config)
        release_logs()
        with working_on_jobs(settings, at_once):
            show_trouble("", "Working on queued jobs (Ctrl-C ends it)", "")
            while not interrupts.requested():
                try:
                    interrupts.sleep(3600)
                except Interrupted:
                    break


@contextmanager
def working_on_jobs(settings: Settings, at_once: int | None = None) -> Iterator[None]:
    """Threads of this process work on jobs while the block runs. At its end each finishes or leaves its job."""
    job_queue = job_queue_of(settings)
    ended = threading.Event()
    args = (
        ended,
        job_queue,
        worker_of(settings, job_queue, after_runs(settings, job_queue)),
        at_once or settings.jobs_at_once,
    )
    thread = threading.Thread(target=work_until, args=args, name="jobs", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
