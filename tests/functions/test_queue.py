"""Jobs through the real Functions worker, with Azurite's queue and table: what the host hands to WorkOnJob.

The test is the host: it takes the messages out of the queue, decodes them, and calls the functions.
"""

from __future__ import annotations

import base64
import json
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import BlobLeaseClient, BlobServiceClient
from azure.storage.queue import QueueClient

from backup.config.bindings import QUEUE
from backup.config.settings import load_settings
from backup.jobs.job_queue import JobQueue, open_job_queue
from backup.runs.blob_lease import CONTAINER
from tests.functions.worker import Worker, worker
from tests.scenarios.places import Place, Sql, filled_on_sqlite
from tests.scenarios.product import ROOT, environment

pytestmark = pytest.mark.timeout(180)


class Host:
    """What the Functions host does for an app, over one storage account and one place."""

    def __init__(self, place: Place, azurite: str) -> None:
        self.place = place
        # Work is inline elsewhere, so that no timer of another test in this account finds it.
        self.settings = {**place.settings, "AzureWebJobsStorage": azurite}
        self.job_queue: JobQueue = open_job_queue(load_settings(self.settings))
        self._queue = QueueClient.from_connection_string(azurite, QUEUE)

    def worker(self, **given: str) -> Any:
        return worker(ROOT, environment({**self.settings, **given}))

    def started(self, running: Worker, **body: Any) -> str:
        answer = running.http("StartSync", "POST", body=json.dumps({"syncType": "customer", **body}))
        assert answer["status"] == 202, answer
        return str(json.loads(answer["body"])["jobId"])

    def job(self, running: Worker, job_id: str, name: str = "GetJobDetails") -> dict[str, Any]:
        parameter = "jobId" if name == "GetJob" else "id"
        answer = running.http(name, route={parameter: job_id})
        assert answer["status"] == 200, answer
        return dict(json.loads(answer["body"]))

    def messages(self) -> list[str]:
        """The messages that are visible now, decoded as the host does; they are gone then."""
        taken = []
        for message in self._queue.receive_messages(messages_per_page=32):
            taken.append(base64.b64decode(message.content, validate=True).decode())
            self._queue.delete_message(message)
        return taken

    def break_leases(self) -> None:
        """Ends the locks of processes that are gone, as a minute does."""
        with BlobServiceClient.from_connection_string(self.settings["AzureWebJobsStorage"]) as account:
            container = account.get_container_client(CONTAINER)
            for blob in container.list_blobs():
                if blob.lease.state == "leased":
                    BlobLeaseClient(container.get_blob_client(blob.name)).break_lease(0)

    def empty(self) -> None:
        try:
            self._queue.clear_messages()
        except ResourceNotFoundError:
            self._queue.create_queue()


@pytest.fixture
def host(tmp_path: Path, azurite: str) -> Iterator[Host]:
    made = Host(filled_on_sqlite(tmp_path), azurite)
    made.empty()
    yield made
    for job in made.job_queue.records.waiting():  # so that no later test's sweeper rings for it
        made.job_queue.records.cancel(job.job_id, "The test is over.")
    made.job_queue.keys.close()


def until(holds: Callable[[], bool]) -> None:
    """Waits for what another process does. pytest's timeout ends a wait in vain."""
    while not holds():
        time.sleep(0.05)


def test_a_job_lives_from_the_request_to_its_end_and_may_be_retried_and_deleted(host: Host) -> None:
    with host.worker() as running:
        job_id = host.started(running)
        assert host.job(running, job_id, "GetJob")["state"] == "Enqueued"
        assert host.messages() == [job_id]
        assert running.queue("WorkOnJob", job_id) == {}
        ended = host.job(running, job_id)
        assert (ended["state"], ended["run"]["status"], ended["counts"]["inserted"]) == ("Succeeded", "Completed", 100)
        assert [state["stateName"] for state in ended["history"]] == ["Enqueued", "Processing", "Succeeded"]
        assert host.place.customer.is_mirrored()

        assert running.queue("WorkOnJob", job_id, dequeued=2) == {}  # the message comes twice
        assert host.job(running, job_id)["history"] == ended["history"]

        assert running.http("RetryJob", "POST", route={"id": job_id})["status"] == 200
        assert host.messages() == [job_id]
        assert running.queue("WorkOnJob", job_id) == {}
        again = host.job(running, job_id)
        assert (again["state"], again["attempt"], again["counts"]["skipped"]) == ("Succeeded", 2, 100)

        assert running.http("DeleteJob", "DELETE", route={"id": job_id})["status"] == 200
        waiting = host.started(running)
        assert running.http("DeleteJob", "DELETE", route={"id": waiting})["status"] == 200
        assert running.queue("WorkOnJob", waiting) == {}  # its message comes after all
        assert [host.job(running, gone)["state"] for gone in (job_id, waiting)] == ["Deleted", "Deleted"]


def test_a_message_that_was_lost_or_poisoned_is_sent_again_each_minute(host: Host) -> None:
    with host.worker(BackupSchedule__Enabled="false") as running:
        job_id = host.started(running)
        assert host.messages() == [job_id]  # and nobody works on it
        assert running.queue("PoisonedJob", job_id, dequeued=6) == {}
        assert f"job_id={job_id} state=Enqueued" in running.log
        assert running.timer("ResumeSync") == {}
        assert host.messages() == [job_id]
        assert running.queue("WorkOnJob", job_id) == {}
        assert host.job(running, job_id)["state"] == "Succeeded"
        assert running.timer("ResumeSync") == {}
        assert host.messages() == []


@pytest.mark.parametrize(
    "message",
    ["", "no id", "00000000-0000-0000-0000-000000000000", "x" * 65_536, b"\xff\xfe\x00", "a/../b", "{'a': 1}", "é"],
    ids=["empty", "text", "unknown", "64 KiB", "no text", "path", "json", "letters"],
)
def test_a_message_that_is_no_job_does_nothing_and_is_no_failure(
    garbage_worker: Worker, host: Host, message: str | bytes
) -> None:
    assert garbage_worker.queue("WorkOnJob", message) == {}
    assert garbage_worker.queue("PoisonedJob", message) == {}
    assert host.messages() == []


@pytest.fixture(scope="module")
def garbage_worker(azurite: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """One worker for all messages of garbage."""
    place = filled_on_sqlite(tmp_path_factory.mktemp("garbage"))
    with worker(ROOT, environment({**place.settings, "AzureWebJobsStorage": azurite})) as running:
        yield running


def test_a_job_whose_backup_is_down_waits_for_another_try_and_its_record_says_why(host: Host) -> None:
    backup = host.place.customer.backup
    assert isinstance(backup, Sql)
    file = Path(backup.url.removeprefix("sqlite:///"))
    with host.worker(BackupRetry__MaxAttempts="1") as running:
        job_id = host.started(running)
        file.rename(file.with_suffix(".gone"))
        file.mkdir()  # a file that cannot be opened, as a server that is down
        result = running.queue("WorkOnJob", job_id)
        left = host.job(running, job_id)
        file.rmdir()
        file.with_suffix(".gone").rename(file)
        assert (result, left["state"], left["attempt"]) == ({}, "Scheduled", 1)
        assert (left["errorKind"], left["run"]) == ("StoreUnavailable", None)
        assert "The next attempt is in about 2 minutes" in left["history"][-1]["reason"]
        change(host.job_queue, job_id, due_at=LONG_AGO)
        assert running.queue("WorkOnJob", job_id) == {}
        ended = host.job(running, job_id)
        assert (ended["state"], ended["attempt"], ended["error"]) == ("Succeeded", 2, None)


def test_a_job_that_fails_for_good_fails_its_invocation_once_its_record_says_so(host: Host) -> None:
    assert isinstance(host.place.customer.source, Sql)
    with host.worker() as running:
        first = host.started(running)
        assert running.queue("WorkOnJob", first) == {}
        host.place.customer.source.run("DELETE FROM {table}")
        job_id = host.started(running)
        result = running.queue("WorkOnJob", job_id)
        left = host.job(running, job_id)
        assert "GuardTripped" in left["errorKind"]
        assert (left["state"], job_id in result["failed"]) == ("Failed", True)  # so that Azure's own alerts see it
        assert running.queue("WorkOnJob", job_id, dequeued=2) == {}  # the message comes back and finds nothing to do
        assert host.job(running, job_id)["history"] == left["history"]


def test_a_job_goes_on_elsewhere_once_its_worker_was_killed_and_not_while_it_is_only_slow(host: Host) -> None:
    assert isinstance(host.place.customer.backup, Sql)
    host.place.customer.backup.run(
        "CREATE TRIGGER Slow BEFORE INSERT ON {table} BEGIN SELECT max(n) FROM (WITH RECURSIVE numbers(n) AS "
        "(SELECT 1 UNION ALL SELECT n + 1 FROM numbers LIMIT 1000000000) SELECT n FROM numbers); END"
    )
    with host.worker() as first, host.worker() as second:
        job_id = host.started(first)
        call = first.call("WorkOnJob", body=job_id, dequeued=1)
        until(lambda: host.place.customer.statuses == ["InProgress"])
        first.process.send_signal(signal.SIGSTOP)  # slow: it is there, and its last heartbeat is young
        assert second.queue("WorkOnJob", job_id, dequeued=2) == {}
        assert host.job(second, job_id)["attempt"] == 1
        first.process.kill()
        with pytest.raises(Exception, match="worker ended"):
            call.result(60)
        host.place.customer.backup.run("DROP TRIGGER Slow")
        assert second.queue("WorkOnJob", job_id, dequeued=3) == {}
        in_line = host.job(second, job_id)  # the lease of the killed process lasts for up to a minute
        assert in_line["state"] == "Scheduled"
        assert "waits in line" in in_line["history"][-1]["reason"]
        host.break_leases()
        change(host.job_queue, job_id, due_at=LONG_AGO)
        assert second.queue("WorkOnJob", job_id) == {}
        ended = host.job(second, job_id)
    assert (ended["state"], ended["attempt"]) == ("Succeeded", 2)
    assert host.place.customer.is_mirrored()


LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def change(job_queue: JobQueue, job_id: str, **fields: Any) -> None:
    """Changes these fields of the job's record."""
    assert job_queue.records._change(job_id, lambda job: replace(job, **fields)) is not None
