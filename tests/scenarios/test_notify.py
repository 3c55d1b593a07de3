"""Events: what they say, and that each sink gets each of them, whatever fails meanwhile."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import wait
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from backup.config.settings import load_settings
from backup.core.errors import Cancelled, GuardTripped
from backup.core.run_values import Counts, Proof, Run, Status, Trigger, Verb
from backup.jobs import jobs_file, table_key_values
from backup.jobs.job import Request
from backup.jobs.job_queue import is_queued, open_job_queue
from backup.jobs.key_values import Change, Item
from backup.jobs.outbox import OUTBOX
from backup.jobs.run_keeper import RunKeeper
from backup.jobs.worker import worker_of
from backup.notify import delivery
from backup.notify.delivery import Delivery, delivery_of, wait_for_delivery
from backup.notify.sink import Send
from backup.notify.sinks import sinks_of
from backup.runs.outcome import Outcome
from tests.functions.worker import worker
from tests.scenarios.aging import no_room
from tests.scenarios.hooks import Hook, hook
from tests.scenarios.places import Place, filled_on_sqlite
from tests.scenarios.post import NIGHT, SECRET, Post, kinds, post
from tests.scenarios.product import ROOT, cli, environment
from tests.scenarios.product import post as post_to

EQUAL = Proof()
DOCS = Path(__file__).parent.parent.parent / "docs"


@pytest.fixture
def receiver() -> Iterator[Hook]:
    with hook() as made:
        yield made


@pytest.fixture(params=["file", "account"])
def office(
    request: pytest.FixtureRequest, tmp_path: Path, receiver: Hook, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Post]:
    """One webhook; records in a file, and in an account."""
    account = None
    if request.param == "account":
        monkeypatch.setattr(table_key_values.TableKeyValues.__init__, "__defaults__", (f"t{uuid4().hex}",))
        account = request.getfixturevalue("azurite")
    with post(tmp_path, account, webhooks=receiver.url) as made:
        yield made


@pytest.fixture
def local(tmp_path: Path, receiver: Hook) -> Iterator[Post]:
    """One webhook; records in a file."""
    with post(tmp_path, webhooks=receiver.url) as made:
        yield made


# What an event says


def test_a_run_is_a_cloud_event(office: Post, receiver: Hook) -> None:
    run = office.ran(proof=EQUAL)
    office.deliver()
    [request] = receiver.requests
    assert request.headers["Content-Type"] == "application/cloudevents+json; charset=utf-8"
    attributes = {name: value for name, value in request.event.items() if name not in ("id", "data")}
    assert attributes == {
        "specversion": "1.0",
        "source": "/backup-services",
        "type": "backup.sync.completed",
        "subject": "customer",
        "time": "2026-11-29T00:00:00.000Z",
        "datacontenttype": "application/json",
    }
    assert request.event["data"] == {
        "service": "customer",
        "verb": "sync",
        "trigger": "timer",
        "status": "Completed",
        "syncId": run.sync_id,
        "startedAt": "2026-11-28T23:59:59.000Z",
        "completedAt": "2026-11-29T00:00:00.000Z",
        "durationMs": 1000,
        "counts": {"inserted": 3, "updated": 0, "deleted": 0, "skipped": 0, "failed": 0, "remaining": 0},
        "verified": True,
    }
    assert office.waiting() == []


@pytest.mark.parametrize(
    ("verb", "fields", "kind"),
    [
        (Verb.SYNC, {"proof": EQUAL}, "sync.completed"),
        (Verb.SYNC, {"error": "It broke.", "error_kind": "StoreError"}, "sync.failed"),
        (Verb.SYNC, {"error": "Too many.", "error_kind": GuardTripped.__name__}, "sync.guard-tripped"),
        (Verb.SYNC, {"error": "Asked to stop.", "error_kind": Cancelled.__name__}, "sync.cancelled"),
        (Verb.VERIFY, {"proof": EQUAL}, "verify.completed"),
        (Verb.VERIFY, {"proof": replace(EQUAL, differing=2)}, "verify.failed"),
        (Verb.VERIFY, {"error": "It broke."}, "verify.failed"),
        (Verb.DRILL, {"error": "It broke."}, "drill.failed"),
        (Verb.UNDO, {}, "undo.completed"),
        (Verb.RESTORE, {"error": "Too many.", "error_kind": GuardTripped.__name__}, "restore.guard-tripped"),
    ],
)
def test_the_type_says_what_ended_and_how(local: Post, verb: Verb, fields: dict[str, Any], kind: str) -> None:
    local.ran(verb=verb, **fields)
    assert kinds(local.waiting()) == [kind]


def test_a_dry_run_and_a_run_that_goes_on_are_no_events(local: Post) -> None:
    local.ran(dry_run=True)
    local.ran(completed_at=None)
    assert local.waiting() == []


def test_an_event_has_no_secret_and_no_record(local: Post) -> None:
    error = f"Login failed for Password=hunter22;\x1b[31m and {SECRET}. " + "x" * 9_000
    run = local.ran(error, error_kind="StoreError", failures=(('["key of a record"]', "no"),), notes=("a note",))
    text = json.dumps(local.waiting())
    assert [word for word in ("hunter22", SECRET, "key of a record", "a note", "\\u001b") if word in text] == []
    assert run.sync_id in text
    assert len(text) < 4_000


def test_the_page_says_how_a_receiver_verifies_a_signature(local: Post, receiver: Hook) -> None:
    [code] = re.findall(r"```python\n(.*?)```", (DOCS / "notifications.md").read_text(), re.S)
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 - the page's own example
    local.ran()
    local.deliver()
    [request] = receiver.requests
    headers = {name.lower(): value for name, value in request.headers.items()}
    assert names["is_genuine"](SECRET, headers, request.body)
    assert not names["is_genuine"](SECRET, headers, request.body + b" ")
    assert not names["is_genuine"]("whsec_" + "b3RoZXIx" * 6, headers, request.body)
    assert not names["is_genuine"](SECRET, {**headers, "webhook-timestamp": "1"}, request.body)


# Sinks that fail


@pytest.mark.parametrize(
    ("status", "location"),
    [*((status, "") for status in (301, 401, 404, 429, 500, 503)), (307, "https://[::1"), (308, "//\xff")],
)
def test_a_sink_that_fails_gets_its_events_later_in_order(
    local: Post, receiver: Hook, status: int, location: str
) -> None:
    receiver.status, receiver.location = status, location or receiver.url
    first = local.ran()
    local.at += timedelta(seconds=1)
    second = local.ran("It broke.")
    for minutes in (0, 0.5, 1, 1, 3):
        local.deliver(minutes=minutes)
    assert len(receiver.requests) == 3  # the first event each time, and nothing within a pause
    assert local.reasons() == ["The sink webhook1 takes no events. They wait."]
    receiver.status = 200
    local.deliver(hours=1)
    assert [event["data"]["syncId"] for event in receiver.events[3:]] == [first.sync_id, second.sync_id]
    assert (local.waiting(), local.reasons()) == ([], [])
    assert len({event["id"] for event in receiver.events}) == 2


def test_a_sink_that_hangs_delays_no_other_and_no_run(
    tmp_path: Path, receiver: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "SEND_SECONDS", 2)
    receiver.answers.clear()
    with hook() as healthy, post(tmp_path, webhooks=f"{receiver.url} {healthy.url}") as office:
        office.ran()
        delivery_of(office.settings, office.job_queue).start()
        receiver.wait_for(1)
        healthy.wait_for(1)
        began = time.monotonic()
        office.ran()
        assert time.monotonic() - began < delivery.SEND_SECONDS
        office.deliver()
        office.deliver(minutes=2)
        assert len(healthy.requests) == 2
        assert len(receiver.requests) == 1  # the first call has not come back; no other is made
        assert len(office.waiting("webhook1")) == 2
        monkeypatch.setattr(delivery, "SEND_SECONDS", 20)
        receiver.answers.set()
        wait([delivery._left_behind["webhook1"]])  # until its thread has heard the answer, no other call is made
        office.deliver(minutes=5)
        office.deliver(minutes=5)
        assert office.waiting() == []
        assert len({event["id"] for event in receiver.events}) == 2


def test_an_event_that_comes_while_others_are_sent_is_sent_too(local: Post, receiver: Hook) -> None:
    receiver.answers.clear()
    local.ran()
    at_work = delivery_of(local.settings, local.job_queue)
    at_work.start()
    receiver.wait_for(1)
    local.ran()
    delivery_of(local.settings, local.job_queue).deliver_to(at_work.sinks[0])  # finds the sink claimed
    receiver.answers.set()
    wait_for_delivery(30)
    assert (len(receiver.requests), local.waiting()) == (2, [])


def test_an_event_that_a_sink_refuses_stops_no_other_and_is_given_up_in_the_end(
    local: Post, receiver: Hook, caplog: pytest.LogCaptureFixture
) -> None:
    bad = local.ran("It broke.")
    receiver.status = lambda event: 422 if event["data"]["syncId"] == bad.sync_id else 204
    local.ran()
    local.deliver()
    assert [event["data"]["syncId"] for event in local.waiting()] == [bad.sync_id]
    for _ in range(delivery.REFUSALS_AT_MOST):
        local.deliver(hours=2)
    assert local.waiting() == []
    assert caplog.text.count("notify.given_up") == 1
    assert [reason for reason in local.reasons() if "given up" in reason]


def test_a_refusal_does_not_let_an_event_wait_anew(local: Post, receiver: Hook) -> None:
    receiver.status = 422
    local.ran("It broke.")
    for _ in range(3):
        local.deliver(hours=30)  # the sink keeps it for 72
    assert local.waiting() == []
    assert len(receiver.requests) == 2


def test_what_waits_is_bounded_by_age_and_number_and_what_is_given_up_is_said(
    local: Post, receiver: Hook, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(delivery, "WAITING_AT_MOST", 3)
    local.services = []
    receiver.status = 500
    for _ in range(5):
        local.ran()
        local.at += timedelta(seconds=1)
    local.deliver()
    assert len(local.waiting()) == 3
    assert "more than 3 events wait" in caplog.text
    local.deliver(days=4)
    assert local.waiting() == []
    assert caplog.text.count("notify.given_up") == 5
    assert [reason for reason in local.reasons() if "given up" in reason]
    local.at += timedelta(days=8)
    assert [reason for reason in local.reasons() if "given up" in reason] == []


def test_an_event_and_a_sum_that_cannot_be_read_stop_no_others(
    local: Post, receiver: Hook, caplog: pytest.LogCaptureFixture
) -> None:
    odd: list[dict[str, Any]] = [{}, {"event": 5}, {"event": {}}, {"event": {"time": "soon", "id": "1", "type": "t"}}]
    keys = local.job_queue.keys
    for value in odd:
        local.ran()
        local.at += timedelta(seconds=1)
        event = keys.scan(OUTBOX, limit=9)[-1]
        assert keys.commit([Change(event.key, value)])
    [sums] = keys.scan("sum:", limit=9)
    state = {"label": 5, "failures": "x", "until": "soon", "after": 7, "given_up": None, "given_up_at": []}
    assert keys.commit([Change(sums.key, {}), Change("sink:webhook1", state)])
    local.ran()
    waiting = keys.scan(OUTBOX, limit=9)[-1]
    assert keys.commit([Change(waiting.key, {**waiting.value, "tries": "x", "after": {}})])
    local.deliver()
    assert (len(receiver.requests), local.waiting()) == (1, [])
    assert ["given up" in reason for reason in local.reasons()] == [True]
    assert caplog.text.count("it cannot be read") == len(odd)
    assert local.job_queue.runs.sums_of_all()["customer"]["sync"]["runs"] == 1


def test_a_clock_that_was_ahead_stops_no_sink(local: Post, receiver: Hook) -> None:
    local.at += timedelta(days=300)
    receiver.status = 500
    local.ran()
    local.deliver()
    local.at = NIGHT
    receiver.status = 204
    local.ran()
    local.deliver(minutes=1)
    assert local.waiting() == []


# Kills, and several processes


def test_a_kill_between_the_record_of_a_run_and_its_delivery_loses_no_event(local: Post, receiver: Hook) -> None:
    local.job_queue.keys.close()
    child = os.fork()
    if not child:
        local.ran()
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    local.deliver()
    assert kinds(receiver.events) == ["sync.completed"]


def test_a_kill_between_a_delivery_and_its_record_sends_the_same_event_again(
    local: Post, receiver: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    local.ran()
    local.job_queue.keys.close()
    child = os.fork()
    if not child:
        monkeypatch.setattr(delivery._Work, "_send", send_and_die)
        Delivery(local.job_queue.keys, sinks_of(local.settings), local.job_queue.now).deliver_to(
            sinks_of(local.settings)[0]
        )
    os.waitpid(child, 0)
    receiver.wait_for(1)
    local.deliver()
    assert len(receiver.requests) == 1  # the dead process may still be sending
    local.deliver(minutes=4)
    assert len(receiver.requests) == 2
    assert len({event["id"] for event in receiver.events}) == 1
    assert local.waiting() == []


def send_and_die(_: object, send: Send, item: Item) -> None:
    send(item.value["event"])
    os.kill(os.getpid(), signal.SIGKILL)


def test_processes_that_deliver_side_by_side_send_each_event_once(office: Post, receiver: Hook) -> None:
    for _ in range(12):
        office.ran()
        office.at += timedelta(milliseconds=1)
    others = [office.again() for _ in range(3)]
    barrier = threading.Barrier(len(others))

    def deliver(other: Post) -> None:
        sinks = sinks_of(other.settings)
        barrier.wait()
        for _ in range(3):
            Delivery(other.job_queue.keys, sinks, other.job_queue.now).deliver_to(sinks[0])

    threads = [threading.Thread(target=deliver, args=(other,)) for other in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
        others.pop().job_queue.keys.close()
    assert len(receiver.requests) == 12
    assert len({event["id"] for event in receiver.events}) == 12
    assert office.waiting() == []


def test_an_event_of_a_run_that_is_recorded_twice_is_one(local: Post, receiver: Hook) -> None:
    keeper = RunKeeper(local.job_queue.runs)
    run = local.ran("It broke.")
    keeper.ended(Outcome(run))
    local.deliver()
    keeper.ended(Outcome(run))
    local.deliver()
    assert len(receiver.requests) == 1


# Through the real ways in


@pytest.fixture
def place(tmp_path: Path, receiver: Hook) -> tuple[Place, dict[str, str]]:
    """Both services on SQLite, and the settings of a webhook."""
    filled = filled_on_sqlite(tmp_path)
    sinks = {"Notify__Webhooks": receiver.url, "Notify__WebhookSecret": SECRET}
    return filled, {**filled.settings, **sinks, "BackupJobs__File": str(tmp_path / "jobs.db")}


LONG_AGO = {"BackupSync__MaxAgeHours": "0.0000001"}


def test_the_worker_tells_of_runs_and_of_silence_and_its_health_is_degraded(
    place: tuple[Place, dict[str, str]], receiver: Hook
) -> None:
    _, settings = place
    with worker(ROOT, environment({**settings, **LONG_AGO, "BackupVerify__EveryDays": "0"})) as running:
        assert post_to(running, "SyncOrder")[0] == 200
        receiver.wait_for(1)
        assert running.timer("ResumeSync") == {}  # returns once the sinks have what waits
        assert sorted(kinds(receiver.events)) == ["sync.completed", "sync.overdue"]  # the other one was only just seen
        assert post_to(running, "TestNotifications")[1]["message"] == "1 of 1 sink took the test event"
        status, health = post_to(running, "HealthCheck", query="?deep=true")
        assert (status, health["Status"]) == (200, "Degraded")
        reasons = {(reason["Service"], reason["Reason"]) for reason in health["Reasons"]}
        assert ("order", "No sync has succeeded for longer than 0 hours (MaxAgeHours).") in reasons
        receiver.wait_for(4)
    event_kinds = sorted(kinds(receiver.events))
    assert event_kinds == ["sync.completed", "sync.overdue", "sync.overdue", "test"]  # now that one too


def test_a_command_waits_for_its_sinks_at_its_end_and_health_fails_by_silence(
    place: tuple[Place, dict[str, str]], receiver: Hook, tmp_path: Path
) -> None:
    _, settings = place
    assert cli(tmp_path, settings, "sync", "customer").code == 0
    assert kinds(receiver.events) == ["sync.completed"]
    silent = cli(tmp_path, {**settings, **LONG_AGO}, "health")
    assert silent.code == 1
    assert "MaxAgeHours" in silent.err
    assert "sync.overdue" in kinds(receiver.events)
    tested = cli(tmp_path, settings, "notify", "--test")
    assert (tested.code, "1 of 1 sink took the test event" in tested.out) == (0, True)
    receiver.status = 500
    tested = cli(tmp_path, settings, "notify", "--test", "--json")
    assert (tested.code, tested.json["sinks"][0]["error"]) == (1, "It answered HTTP 500.")
    assert cli(tmp_path, settings, "verify", "customer").code == 0
    receiver.status = 204
    sent = cli(tmp_path, settings, "notify")
    assert (sent.code, "0 events left to send" in sent.out) == (0, True)
    assert kinds(receiver.events)[-1] == "verify.completed"


def test_a_sink_that_is_down_fails_no_command(place: tuple[Place, dict[str, str]], tmp_path: Path) -> None:
    _, settings = place
    ran = cli(tmp_path, {**settings, "Notify__Webhooks": "http://127.0.0.1:1/"}, "sync", "customer")
    assert (ran.code, "notify.failed" in ran.err) == (0, True)


def test_a_job_that_could_not_begin_is_told_too(place: tuple[Place, dict[str, str]]) -> None:
    _, settings = place
    job_queue = open_job_queue(load_settings(settings))
    job = job_queue.ask(Request("nothing"), "http")
    worker_of(load_settings(settings), job_queue).work(job.job_id)
    [item] = job_queue.keys.scan("outbox:", limit=10)
    event = item.value["event"]
    assert (event["type"], event["subject"], event["data"]["jobId"], event["data"]["errorKind"]) == (
        "backup.sync.failed",
        "nothing",
        job.job_id,
        "UnknownService",
    )
    job_queue.keys.close()


def test_the_end_of_a_run_while_the_disk_is_full_is_recorded_and_told_when_there_is_room(
    local: Post, receiver: Hook, caplog: pytest.LogCaptureFixture
) -> None:
    keeper = RunKeeper(local.job_queue.runs)
    runs = [replace(run_of(local), error="x" * 9_000) for _ in range(2)]
    with no_room(local.job_queue.keys):
        for run in runs:
            keeper.ended(Outcome(run))
    assert caplog.text.count("runs.not_saved") == 2
    assert "disk is full" in caplog.text
    local.job_queue.sweep()
    local.deliver()
    assert sorted(event["data"]["syncId"] for event in receiver.events) == sorted(run.sync_id for run in runs)
    assert len(local.job_queue.runs.page().runs) == 2
    local.job_queue.sweep()
    assert local.waiting() == []


def test_records_that_cannot_be_written_are_a_concern_and_nothing_is_queued(
    local: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_file, "WAIT_SECONDS", 0.1)
    local.ran()
    local.job_queue.worker_is_alive()
    assert (local.reasons(), is_queued(local.settings, local.job_queue)) == ([], True)
    with closing(sqlite3.connect(local.settings.jobs_file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        [reason] = local.reasons()
        assert not is_queued(local.settings, local.job_queue)
        other.execute("ROLLBACK")
    assert "cannot be written" in reason
    assert (local.reasons(), is_queued(local.settings, local.job_queue)) == ([], True)


def run_of(office: Post) -> Run:
    begun = Run("customer", Trigger.CLI, False, office.at)
    return begun.ended(Status.COMPLETED, office.at, Counts(inserted=3), None)
