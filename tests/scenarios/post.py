"""Records with an outbox and its sinks, over a clock of the test's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from backup.config.settings import load_settings
from backup.core.run_values import Counts, Run, Status, Trigger, Verb
from backup.entry.record_concerns import concerns_by_records
from backup.jobs.job_queue import open_job_queue
from backup.jobs.outbox import OUTBOX
from backup.notify.delivery import delivery_of, wait_for_delivery
from backup.notify.silence import look_around
from tests.scenarios.aging import let_pass

NIGHT = datetime(2026, 11, 29, 0, 0, tzinfo=UTC)
SECRET = "whsec_" + "c2VjcmV0" * 6


class Post:
    """A job queue, and what happens in it."""

    def __init__(self, given: dict[str, str]) -> None:
        self.at = NIGHT
        self.settings = load_settings(given)
        self.job_queue = open_job_queue(self.settings, lambda: self.at)
        self.services = ["customer"]

    def again(self) -> Post:
        """The same records, as another process opens them."""
        other = Post.__new__(Post)
        other.at, other.settings, other.services = self.at, self.settings, self.services
        other.job_queue = open_job_queue(self.settings, lambda: self.at)
        return other

    def ran(self, error: str | None = None, verb: Verb = Verb.SYNC, service: str = "customer", **fields: Any) -> Run:
        """A run that began a second ago, has ended now, and is recorded."""
        begun = Run(service, Trigger.TIMER, False, self.at - timedelta(seconds=1), verb=verb)
        status = Status.FAILED if error else Status.COMPLETED
        ended = replace(begun.ended(status, self.at, Counts(inserted=3), error), **fields)
        self.job_queue.runs.save(ended)
        return ended

    def deliver(self, **passed: float) -> None:
        """Lets so much time pass (hours=…), and sends what waits."""
        self.at += timedelta(**passed)
        if passed:
            let_pass(self.job_queue.keys, timedelta(**passed))
        delivery_of(self.settings, self.job_queue).start()
        wait_for_delivery(30)

    def look(self, **passed: float) -> list[str]:
        """Lets so much time pass, looks around, and returns the services that are overdue."""
        self.at += timedelta(**passed)
        return [silence.service for silence in look_around(self.settings, self.job_queue, self.services)]

    def reasons(self) -> list[str]:
        """What health says."""
        concerns = concerns_by_records(self.settings, self.job_queue, self.services)
        wait_for_delivery(30)
        return [concern.reason for concern in concerns]

    def waiting(self, sink: str = "") -> list[Any]:
        """The events that wait, oldest first."""
        return [item.value["event"] for item in self.job_queue.keys.scan(f"{OUTBOX}{sink}", limit=5_000)]


@contextmanager
def post(folder: Path, account: str | None = None, **given: str) -> Iterator[Post]:
    """Records in a file of the folder, or in the account."""
    where = {"AzureWebJobsStorage": account} if account else {"BackupJobs__File": str(folder / "jobs.db")}
    secret = {"Notify__WebhookSecret": SECRET} if "webhooks" in given else {}
    names = {f"Notify__{name.title().replace('_', '')}": value for name, value in given.items()}
    made = Post({**where, **secret, **names})
    yield made
    made.job_queue.keys.close()


def kinds(events: list[Any]) -> list[str]:
    return [json.loads(json.dumps(event))["type"].removeprefix("backup.") for event in events]
