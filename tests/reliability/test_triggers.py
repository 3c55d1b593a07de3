"""Many triggers of one service at once, from several processes: the real lock, held inside a real sync, and SIGKILL."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import BlobLeaseClient, BlobServiceClient

from backup.config.settings import load_settings
from backup.entry import http
from backup.runs import blob_lease
from backup.services.registry import Registry
from tests.reliability.effort import rounds
from tests.reliability.scenes import ONE_THREAD
from tests.scenarios.places import Place, Sql
from tests.scenarios.product import start

pytestmark = pytest.mark.timeout(rounds(120, 1800))

PROCESSES, THREADS = 5, 10
DEADLINE_SECONDS = 60
# The shortest lease there is, renewed so often that a busy machine does not lose it; None is the product's own 60.
LEASE_SECONDS = rounds(15, None)
RENEW_SECONDS = rounds(2.0, None)
SLACK_SECONDS = 15


class Contender:
    """One process of contender.py; what it tells arrives in a queue that it may share with others."""

    def __init__(self, folder: Path, reports: queue.Queue[tuple[Contender, dict[str, Any]]]) -> None:
        self.reports = reports
        self.process = start(folder, {}, "-m", "tests.reliability.contender", stdin=subprocess.PIPE, stderr=None)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self.reports.put((self, json.loads(line)))

    def do(self, command: str, **fields: Any) -> None:
        assert self.process.stdin
        print(json.dumps({"do": command, **fields}), file=self.process.stdin, flush=True)

    def prepare(
        self,
        service: str,
        settings: dict[str, str],
        hold: str,
        triggers: int = 1,
        lease_seconds: float | None = None,
        renew_seconds: float | None = None,
    ) -> None:
        """Everything up to the trigger itself; it tells `ready`."""
        self.do(
            "prepare",
            service=service,
            settings={"BackupRetry__BaseSeconds": "0", **settings},
            hold=hold,
            triggers=triggers,
            lease_seconds=lease_seconds,
            renew_seconds=renew_seconds,
        )

    def next(self, *events: str) -> dict[str, Any]:
        """The next of these events of this process, which must share its queue with no other; others are dropped."""
        while True:
            _, happened = self.reports.get(timeout=DEADLINE_SECONDS)
            if happened["event"] in events:
                return happened

    def start_and_hold(self) -> None:
        self.next("ready")
        self.do("go")
        self.next("holding")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(DEADLINE_SECONDS)

    def close(self) -> None:
        self.kill()
        self._reader.join(DEADLINE_SECONDS)
        self.process.communicate()


@contextmanager
def contender_in(folder: Path, reports: queue.Queue[Any] | None = None) -> Iterator[Contender]:
    contender = Contender(folder, queue.Queue() if reports is None else reports)
    try:
        yield contender
    finally:
        contender.close()


@pytest.fixture
def new_contender(tmp_path: Path) -> Iterator[Callable[[], Contender]]:
    """Starts another process, which ends with the test."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(contender_in(tmp_path))


@pytest.fixture(scope="module")
def contenders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Contender]]:
    """Processes that share one queue."""
    reports: queue.Queue[Any] = queue.Queue()
    folder = tmp_path_factory.mktemp("contenders")
    with ExitStack() as stack:
        yield [stack.enter_context(contender_in(folder, reports)) for _ in range(PROCESSES)]


@pytest.fixture(params=["file", "lease"])
def settings(request: pytest.FixtureRequest, sqlite_place: Place) -> dict[str, str]:
    """The place's settings, with either kind of lock."""
    return sqlite_place.settings | storage_of(request)


def storage_of(request: pytest.FixtureRequest) -> dict[str, str]:
    return {"AzureWebJobsStorage": request.getfixturevalue("azurite")} if request.param == "lease" else {}


def trigger(settings: dict[str, str], service: str) -> tuple[int, str | None]:
    """Status and error of the answer to a trigger from this process."""
    answer = http.post_sync_of(Registry(load_settings({"BackupRetry__BaseSeconds": "0", **settings})), service, {}, b"")
    return answer.status, answer.body.get("Error")


REFUSED, DONE = (409, "Locked"), (200, None)


def first_answer_but_refused(settings: dict[str, str], service: str, seconds: float) -> tuple[int, str | None]:
    """The answer once it is another than `Locked`, or the last one when the time is up.

    Asks again and again, since a lease that runs out tells nobody.
    """
    deadline = time.monotonic() + seconds
    between = threading.Event()
    while (answer := trigger(settings, service)) == REFUSED and time.monotonic() < deadline:
        between.wait(0.25)
    return answer


# Fifty at once


def test_of_fifty_triggers_at_one_moment_one_runs_and_the_others_are_409(
    contenders: list[Contender], settings: dict[str, str], sqlite_place: Place
) -> None:
    reports = contenders[0].reports

    def take(number: int, *events: str) -> list[tuple[Contender, dict[str, Any]]]:
        taken: list[tuple[Contender, dict[str, Any]]] = []
        while len(taken) < number:
            contender, happened = reports.get(timeout=DEADLINE_SECONDS)
            if happened["event"] in events:
                taken.append((contender, happened))
        return taken

    for _ in range(times := rounds(1, 20)):
        for contender in contenders:
            contender.prepare("customer", settings, "drift", THREADS)
        take(PROCESSES, "ready")
        for contender in contenders:
            contender.do("go")
        # Whoever has the lock is held inside its sync until each of the others has had its answer.
        first = take(PROCESSES * THREADS, "holding", "answer")
        holders = [contender for contender, happened in first if happened["event"] == "holding"]
        refused = [answer for _, answer in first if answer["event"] == "answer"]
        for contender in contenders:
            contender.do("release")
        answers = [answer for _, answer in take(len(holders), "answer")]
        assert len(holders) == 1
        assert {(answer["status"], answer["body"]["Error"]) for answer in refused} == {REFUSED}
        assert [(answer["status"], answer["body"]["Status"]) for answer in answers] == [(200, "Completed")]
    assert sqlite_place.customer.statuses == ["Completed"] * times
    assert sqlite_place.customer.is_mirrored()


# A holder that dies, and one that is slow


def test_a_killed_run_frees_the_file_lock_at_once_and_a_stopped_one_keeps_it(
    new_contender: Callable[[], Contender], sqlite_place: Place
) -> None:
    holder = new_contender()
    holder.prepare("customer", sqlite_place.settings, hold="write")
    holder.start_and_hold()
    holder.process.send_signal(signal.SIGSTOP)
    while_stopped = trigger(sqlite_place.settings, "customer")
    holder.kill()
    assert (while_stopped, trigger(sqlite_place.settings, "customer")) == (REFUSED, DONE)
    assert sqlite_place.customer.statuses == ["Completed"]
    assert sqlite_place.customer.is_mirrored()


def test_a_killed_run_frees_the_lease_within_a_minute_and_a_slow_one_keeps_it_for_longer(
    new_contender: Callable[[], Contender], sqlite_place: Place, azurite: str
) -> None:
    """The lease of the killed run is the clock of the slow one, which took its own before."""
    settings = sqlite_place.settings | {"AzureWebJobsStorage": azurite}
    slow, killed = new_contender(), new_contender()
    for contender, service in ((slow, "order"), (killed, "customer")):
        contender.prepare(service, settings, "write", lease_seconds=LEASE_SECONDS, renew_seconds=RENEW_SECONDS)
        contender.start_and_hold()
    killed.kill()
    right_after = trigger(settings, "customer")
    seconds = LEASE_SECONDS or blob_lease.LEASE_SECONDS
    assert seconds <= 60
    later = first_answer_but_refused(settings, "customer", seconds + SLACK_SECONDS)
    assert (right_after, later) == (REFUSED, DONE)
    assert sqlite_place.customer.statuses == ["Completed"]
    assert sqlite_place.customer.is_mirrored()
    of_slow = trigger(settings, "order")
    slow.do("release")
    assert (of_slow, slow.next("answer")["status"]) == (REFUSED, 200)
    assert sqlite_place.order.statuses == ["Completed"]
    assert sqlite_place.order.is_mirrored()


# A holder that loses its lock


@pytest.mark.parametrize("method", ["write", "delete"])
@pytest.mark.parametrize("loss", rounds(["taken away"], ["taken away", "ran out while the process was stopped"]))
def test_a_run_that_lost_its_lease_stops_before_its_next_batch(
    new_contender: Callable[[], Contender], sqlite_place: Place, azurite: str, method: str, loss: str
) -> None:
    settings = sqlite_place.customer.settings | {
        "AzureWebJobsStorage": azurite,
        "BackupSync__BatchSize": "5",
        **ONE_THREAD,
    }
    if method == "delete":
        assert trigger(settings, "customer") == DONE
        assert isinstance(sqlite_place.customer.source, Sql)
        sqlite_place.customer.source.run("DELETE FROM {table} WHERE Id % 12 = 0")
    taken_away = loss == "taken away"
    loser = new_contender()
    loser.prepare("customer", settings, method, lease_seconds=15, renew_seconds=0.01 if taken_away else 2)
    loser.start_and_hold()
    if taken_away:
        with BlobServiceClient.from_connection_string(azurite) as account:
            BlobLeaseClient(account.get_blob_client(blob_lease.CONTAINER, "customer.lock")).break_lease(0)
    else:
        loser.process.send_signal(signal.SIGSTOP)
    sqlite_place.customer.let_minutes_pass()  # while it says that it goes on nobody takes it over, whatever its lock
    assert first_answer_but_refused(settings, "customer", 15 + SLACK_SECONDS) == DONE
    loser.process.send_signal(signal.SIGCONT)
    loser.do("release_once_lost" if taken_away else "release")
    after = loser.next("called", "answer")
    assert after["event"] == "answer", "a batch was written without the lock"
    assert (after["status"], after["body"]["Error"], after["body"]["TotalProcessed"]) == (409, "LockLost", 5)
    assert sqlite_place.customer.is_mirrored()
    # Whoever took the lock went on as the same run; its end stands, whatever became of the loser.
    assert sqlite_place.customer.statuses == ["Completed"] * (2 if method == "delete" else 1)
