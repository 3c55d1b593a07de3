"""The API of jobs, request by request: what it takes, answers and refuses. One test goes through the local host."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import copy
from typing import Any

import pytest

from backup.config.settings import load_settings
from backup.core.errors import BackupError, BadRequest, Conflict, UnknownJob, UnknownService
from backup.core.run_values import Trigger
from backup.entry import job_api
from backup.entry.answers import Answer, error_answer
from backup.entry.dashboard_api import get_calendar, get_overview, get_run
from backup.entry.metrics import get_metrics
from backup.entry.record_concerns import concerns_by_records
from backup.jobs.job_queue import JobQueue, open_job_queue
from backup.jobs.key_values import Change
from backup.jobs.worker import worker_of
from backup.mirror.verification import Depth
from backup.services.registry import Registry
from tests.scenarios.places import Place, filled_on_sqlite
from tests.scenarios.product import DEADLINE_SECONDS, ROOT, start
from tests.scenarios.test_serve import KEY, call


class Api:
    """The functions of the API over a place with both services."""

    def __init__(self, place: Place, file: Path) -> None:
        self.settings = load_settings({**place.settings, "BackupJobs__File": str(file)})
        self.job_queue: JobQueue = open_job_queue(self.settings)
        self.registry = Registry(self.settings, watcher=self.job_queue.watcher())

    def start(self, **body: Any) -> Answer:
        return job_api.post_start(self.job_queue, self.registry, {}, json.dumps(body).encode())

    def work(self) -> None:
        for job in self.job_queue.records.waiting():
            worker_of(self.settings, self.job_queue).work(job.job_id)

    def stats(self, **query: str) -> Any:
        return job_api.get_stats(self.job_queue, self.settings, self.registry, query).body


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    place = filled_on_sqlite(tmp_path)
    made = Api(place, tmp_path / "jobs.db")
    yield made
    made.job_queue.keys.close()


def test_a_sync_is_queued_and_watched_to_its_end(api: Api) -> None:
    answer = api.start(syncType="Customer", limit=None, dryRun=False, forceFullSync=False)
    job_id = answer.body["jobId"]
    assert (answer.status, answer.headers) == (202, {"Location": f"/api/sync/job/{job_id}"})
    assert answer.body == {
        "success": True,
        "message": "Sync job queued successfully: CUSTOMER",
        "jobId": job_id,
        "syncType": "CUSTOMER",
        "syncMode": "async",
        "dashboardUrl": f"/api/sync/dashboard/jobs/{job_id}",
    }
    waiting = job_api.get_job(api.job_queue, job_id, {}).body
    assert (waiting["state"], waiting["progress"], waiting["attempt"]) == ("Enqueued", 0, 0)
    api.work()
    ended = job_api.get_job(api.job_queue, job_id, {}).body
    assert (ended["state"], ended["progress"], ended["counts"]["inserted"]) == ("Succeeded", 100, 100)
    assert [state["stateName"] for state in ended["history"]] == ["Enqueued", "Processing", "Succeeded"]
    details = job_api.get_job_details(api.job_queue, job_id, {}).body
    assert (details["run"]["syncId"], details["run"]["status"]) == (ended["syncId"], "Completed")


def test_a_job_with_a_limit_makes_so_many_changes_and_says_how_many_remain(api: Api) -> None:
    job_id = api.start(syncType="customer", limit=30).body["jobId"]
    api.work()
    details = job_api.get_job_details(api.job_queue, job_id, {}).body
    assert (details["state"], details["job"]["limit"]) == ("Succeeded", 30)
    assert (details["counts"]["inserted"], details["counts"]["remaining"]) == (30, 70)
    assert (details["run"]["verified"], details["run"]["counts"]["remaining"]) == (False, 70)
    assert details["run"]["notes"] == [
        "70 changes remain: this run had a limit of 30. A sync without a limit makes all of them."
    ]
    [customer] = api.stats()["services"][:1]
    assert (customer["runs"], customer["lastSuccess"]) == (1, None)


def test_all_services_are_a_job_each(api: Api) -> None:
    answer = api.start(syncType="all")
    assert answer.body["jobId"] == answer.body["jobIds"][0]
    api.work()
    states = [job_api.get_job(api.job_queue, job_id, {}).body["state"] for job_id in answer.body["jobIds"]]
    assert states == ["Succeeded"] * 2


WRONG: list[tuple[dict[str, Any], type[BackupError], str]] = [
    ({}, BadRequest, "syncType"),
    ({"syncType": ""}, BadRequest, "syncType"),
    ({"syncType": "customer", "limit": 0}, BadRequest, "limit"),
    ({"syncType": "customer", "limit": True}, BadRequest, "limit"),
    ({"syncType": "customer", "dryRun": "yes"}, BadRequest, "dryRun"),
    ({"syncType": "customer", "force": True}, BadRequest, "forceFullSync"),
    ({"syncType": "custmer"}, UnknownService, "customer"),
]
"""Bodies of requests, and how each is refused."""


def test_a_wrong_request_is_refused_and_queues_nothing(api: Api) -> None:
    for body, error, message in WRONG:
        with pytest.raises(error) as raised:
            api.start(**body)
        assert message in f"{raised.value} {raised.value.hint}"
        assert job_api.get_jobs(api.job_queue, api.settings, {}).body == {"jobs": [], "cursor": None}, body


def test_a_job_is_retried_only_once_it_has_ended(api: Api) -> None:
    job_id = api.start(syncType="customer").body["jobId"]
    with pytest.raises(Conflict, match="has not ended"):
        job_api.post_retry(api.job_queue, job_id, {}, b"")
    api.work()
    answer = job_api.post_retry(api.job_queue, job_id, {}, b"")
    assert answer.body == {"message": "Job requeued successfully", "jobId": job_id}
    assert job_api.get_job(api.job_queue, job_id, {}).body["state"] == "Enqueued"


def test_a_waiting_job_is_deleted_and_a_running_one_is_asked_to_stop(api: Api) -> None:
    waiting, running = (api.start(syncType="customer").body["jobId"] for _ in range(2))
    assert api.job_queue.records.claim(running, "somebody") is not None
    answers = [job_api.delete_job(api.job_queue, job_id, {}) for job_id in (waiting, running)]
    assert [answer.status for answer in answers] == [200, 202]
    assert job_api.get_job(api.job_queue, waiting, {}).body["state"] == "Deleted"
    assert job_api.get_job(api.job_queue, running, {}).body["cancelled"]


def test_a_job_that_nobody_has_made_is_a_404(api: Api) -> None:
    for job_id in ("0" * 8, "no id", "..", "\u0000", "%"):
        with pytest.raises(UnknownJob) as raised:
            job_api.get_job(api.job_queue, job_id, {})
        assert error_answer(raised.value).status == 404


def test_a_list_refuses_what_it_does_not_know(api: Api) -> None:
    for query in (
        {"state": "Done"},
        {"limit": "0"},
        {"limit": "x"},
        {"limit": "9" * 40},
        {"limit": "000000001" + "9" * 5_000},
        {"limit": "000000001999"},
        {"cursor": "x"},
        {"page": "2"},
    ):
        with pytest.raises(BadRequest):
            job_api.get_jobs(api.job_queue, api.settings, query)


def test_a_history_refuses_what_it_does_not_know(api: Api) -> None:
    for query in ({"status": "x"}, {"verb": "copy"}, {"from": "yesterday"}, {"cursor": "run:"[1:]}):
        with pytest.raises(BadRequest):
            job_api.get_history(api.job_queue, api.settings, query)


def test_every_run_has_a_summary_whoever_asked_for_it(api: Api) -> None:
    api.registry.sync("customer", Trigger.CLI)
    [outcome] = api.registry.verify("customer", Depth())
    api.start(syncType="order")
    api.work()
    runs = job_api.get_history(api.job_queue, api.settings, {}).body["runs"]
    assert [(run["service"], run["verb"], run["trigger"]) for run in runs] == [
        ("order", "sync", "job"),
        ("customer", "verify", "cli"),
        ("customer", "sync", "cli"),
    ]
    query = {"service": "Customer", "verb": "verify", "status": "completed"}
    verifies = job_api.get_history(api.job_queue, api.settings, query).body["runs"]
    assert [run["syncId"] for run in verifies] == [outcome.run.sync_id]


def test_a_day_is_summed_up(api: Api) -> None:
    api.registry.sync("all", Trigger.CLI)
    api.start(syncType="customer")
    body = job_api.get_summary(api.job_queue, {}).body
    assert body["summary"] == {
        "totalJobs": 2,
        "successJobs": 2,
        "failedJobs": 0,
        "runningJobs": 0,
        "totalProcessed": 155,
        "totalSuccess": 155,
        "totalFailed": 0,
        "successRate": 100.0,
    }
    assert [(row["syncType"], row["count"], row["totalProcessed"]) for row in body["byType"]] == [
        ("CUSTOMER", 1, 100),
        ("ORDER", 1, 55),
    ]
    assert (body["queueStats"]["enqueued"], body["hangfireStats"]) == (1, body["queueStats"])
    for day in ("2020-01-01", "0001-01-01", "9999-12-31"):
        assert job_api.get_summary(api.job_queue, {"date": day}).body["summary"]["totalJobs"] == 0
    with pytest.raises(BadRequest):
        job_api.get_summary(api.job_queue, {"date": "today"})
    first = job_api.get_summary(api.job_queue, {"limit": "1"}).body
    second = job_api.get_summary(api.job_queue, {"limit": "1", "cursor": first["cursor"]}).body
    assert [row["syncType"] for row in (*first["byType"], *second["byType"])] == ["CUSTOMER", "ORDER"]
    assert (first["summary"], second["cursor"]) == (second["summary"], None)


def test_services_have_their_figures_a_page_at_a_time(api: Api) -> None:
    api.registry.sync("customer", Trigger.CLI)
    first = api.stats(limit="1", days="7")
    second = api.stats(limit="1", cursor=first["cursor"])
    [customer], [order] = first["services"], second["services"]
    assert (customer["service"], customer["runs"], customer["successRate"]) == ("customer", 1, 100.0)
    assert customer["changesByDay"][0]["inserted"] == 100
    assert customer["medianDurationMs"] > 0
    assert customer["lastSuccessAgeSeconds"] >= 0
    assert (order["service"], order["runs"], order["lastSuccess"], second["cursor"]) == ("order", 0, None, None)


@pytest.mark.parametrize("account", [False, True], ids=["file", "account"])
def test_the_local_host_works_on_what_is_queued(
    request: pytest.FixtureRequest, tmp_path: Path, sqlite_place: Place, account: bool
) -> None:
    for file in ("function_app.py", "host.json"):
        copy(ROOT / file, tmp_path)
    settings = {**sqlite_place.settings, "SERVE_KEY": KEY, "BackupJobs__File": str(tmp_path / "jobs.db")}
    if account:
        settings["AzureWebJobsStorage"] = request.getfixturevalue("azurite")
    sqlite_place.initialize()
    with start(tmp_path, settings, "-m", "backup", "serve", "--port", "0", stdout=subprocess.DEVNULL) as process:
        try:
            assert process.stderr
            listening = "running on http://127.0.0.1:"
            line = next(line for line in process.stderr if listening in line)
            port = int(line.partition(listening)[2].split()[0])
            status, started = call(port, "POST", "/api/sync/start", {"syncType": "CUSTOMER"})
            assert status == 202
            # What the job logs at its end; until then the host writes on.
            next(line for line in process.stderr if "sync.completed" in line)
            job: Any = {"state": "Processing"}
            while job["state"] in ("Enqueued", "Processing"):
                _, job = call(port, "GET", f"/api/sync/job/{started['jobId']}")
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=DEADLINE_SECONDS)
        finally:
            process.kill()
    assert (job["state"], job["counts"]["inserted"]) == ("Succeeded", 100)
    assert sqlite_place.customer.is_mirrored()
    assert not (tmp_path / "jobs.db-wal").exists()  # so that the file may be moved alone


def spoilt(value: Any, garbage: Any, *, all_of_it: bool) -> Any:
    """The value with garbage in place of each number, or of everything."""
    if isinstance(value, dict):
        return {name: spoilt(part, garbage, all_of_it=all_of_it) for name, part in value.items()}
    if isinstance(value, list):
        return [spoilt(part, garbage, all_of_it=all_of_it) for part in value]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return garbage if is_number or all_of_it else value


@pytest.mark.parametrize("all_of_it", [False, True], ids=["numbers", "everything"])
@pytest.mark.parametrize(
    "garbage",
    ["x\ud800", 10**400, float("nan"), {"a": {}}, "9999-12-31T23:59:59-12:00"],
    ids=["text", "huge", "nan", "names", "time"],
)
def test_records_with_garbage_in_them_are_answered_and_written_on(api: Api, garbage: Any, all_of_it: bool) -> None:
    job_id = api.start(syncType="customer").body["jobId"]
    api.work()
    sync_id = job_api.get_job(api.job_queue, job_id, {}).body["syncId"]
    for item in api.job_queue.keys.scan("", limit=1_000):
        value = spoilt(item.value, garbage, all_of_it=all_of_it)
        assert api.job_queue.keys.commit([Change(item.key, value)])
    queue, settings, registry = api.job_queue, api.settings, api.registry
    answers = [
        *(
            job_api.get_jobs(queue, settings, query)
            for query in ({}, {"q": "x"}, {"type": "customer"}, {"state": "Succeeded"})
        ),
        *(
            job_api.get_history(queue, settings, query)
            for query in ({}, {"q": "x", "service": "customer", "from": "2020-01-01T00:00Z"})
        ),
        job_api.get_summary(queue, {}),
        job_api.get_stats(queue, settings, registry, {}),
        get_metrics(queue, settings, registry, {}),
        get_overview(queue, settings, registry, {}),
        *(get_calendar(queue, settings, registry, query) for query in ({}, {"service": "customer"})),
        answered(lambda: job_api.get_job_details(queue, job_id, {})),
        answered(lambda: get_run(queue, registry, sync_id, {})),
    ]
    for answer in answers:
        assert answer.status in (200, 404)
        assert answer.media != "application/json" or json.loads(answer.content.encode(), parse_constant=no_number)
    concerns_by_records(settings, queue, registry.directory.entries)
    later = api.start(syncType="customer").body["jobId"]
    api.work()
    ended = job_api.get_job_details(queue, later, {}).body
    assert (ended["state"], ended["run"]["status"]) == ("Succeeded", "Completed")
    assert queue.runs.last("customer")["success"]["syncId"] == ended["syncId"]


def answered(call: Callable[[], Answer]) -> Answer:
    try:
        return call()
    except BackupError as error:
        return error_answer(error)


def no_number(text: str) -> None:
    raise ValueError(text)
