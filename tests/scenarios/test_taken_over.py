"""A run that is stopped or cut off, and goes on when another has taken its place: it writes nothing any more."""

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier, Event
from typing import Any

import pytest

from backup.config.settings import load_settings
from backup.core.errors import Locked, LockLost, TransientStoreError
from backup.core.model import WHOLE, CheckLock
from backup.core.run_values import Run, Status, Trigger
from backup.runs import ownership
from backup.runs.history import History
from backup.runs.outcome import Outcome
from backup.runs.ownership import Ownership, is_alive
from backup.runs.process import Process, this_process
from backup.services.registry import Registry
from backup.stores import Store
from tests.programs import Program
from tests.scenarios.places import Place, Service, Sql
from tests.scenarios.product import start

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DEADLINE_SECONDS = 60

# Syncs customers and stops itself at the second batch: before it, or in its transaction once all of it is written.
STOPPED = """
import signal, sys, threading
from backup import __main__
from backup.stores.sql.engines import opening
from backup.stores.sql.engines.postgresql import connection
from backup.stores.sql.writes import SqlWrites
from backup.stores.sql.batch import SqlBatch

opening.LOCK_SECONDS = 1
# The server ends a stopped transaction by this limit, which its successor waits for: 5 s and not a minute.
limit = "idle_in_transaction_session_timeout"
connection._SETTINGS[limit] = {"60s": "5s"}[connection._SETTINGS[limit]]
where = {"before": SqlWrites, "inside": SqlBatch}[sys.argv[1]]
write, calls = where.write, 0

def stopping(self, *arguments, **named):
    global calls
    calls += 1
    if where is SqlWrites and calls == 2:
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
    written = write(self, *arguments, **named)
    if where is SqlBatch and calls == 2:
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
    return written

where.write = stopping
sys.argv = ["backup", "sync", "customer", "--json"]
__main__.main()
"""


@contextmanager
def unlocked(service: str, backup: str) -> Iterator[CheckLock]:
    """The lock of an instance that has another kind of lock: it knows of nobody's."""
    yield lambda: None


def sync(service: Service) -> Outcome:
    """A sync by this process, which has another kind of lock."""
    registry = Registry(load_settings({**service.settings, "BackupRetry__BaseSeconds": "0"}))
    registry._lock = unlocked
    return registry.get(service.name).sync(Trigger.CLI)


@contextmanager
def stopped(service: Service, folder: Path, where: str) -> Iterator[Program]:
    """A sync that has stopped there."""
    settings = {**service.settings, "BackupSync__Parallelism": "1", "BackupSync__BatchSize": "40"}
    with start(folder, settings, "-c", STOPPED, where) as process:
        try:
            process.wait_until_stopped(DEADLINE_SECONDS)
            yield process
        finally:
            process.kill()


def go_on(process: Program) -> tuple[int, str]:
    """Exit code and output of the run once it goes on."""
    process.send_signal(signal.SIGCONT)
    out, _ = process.communicate(timeout=DEADLINE_SECONDS)
    return process.wait(), out


@pytest.mark.parametrize(("kind", "where"), [("sqlite_place", "before"), ("postgres_place", "inside")])
def test_a_run_that_was_stopped_writes_nothing_over_what_its_successor_wrote(
    kind: str, where: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    service: Service = request.getfixturevalue(kind).customer
    sync(service)
    service.source.run('UPDATE {table} SET "Version" = 6')
    with stopped(service, tmp_path, where) as process:
        left = service.backup.history()[-1]
        while_young = sync(service)
        service.source.run('UPDATE {table} SET "Version" = 7')
        service.let_minutes_pass()
        successor = sync(service)
        mirrored = service.is_mirrored()
        code, output = go_on(process)
    assert isinstance(while_young.error, Locked)
    assert f"process {process.pid} on" in str(while_young.error)
    assert (successor.run.status, successor.run.sync_id, mirrored) == (Status.COMPLETED, left["SyncId"], True)
    assert service.is_mirrored()
    assert (code, '"LockLost"' in output) == (1, True), output
    entry = service.backup.history()[-1]
    assert (entry["Status"], entry["Attempt"]) == ("Completed", successor.run.attempt)


HERE = this_process()


@pytest.mark.parametrize(
    ("owner", "seconds", "alive"),
    [
        (None, 0, False),  # nobody's: left for another call, or of an earlier release
        (HERE, 0, False),  # this very process, which knows of no such attempt
        (replace(HERE, number=os.getppid(), started="1"), 0, False),  # another process has the number by now
        (replace(HERE, number=2**22 + 1), 0, False),  # nobody has it
        (replace(HERE, number=2**22 + 1, boot="another"), 0, True),  # of another machine, or one that was started anew
        (replace(HERE, number=2**22 + 1, host="another"), 0, True),
        (replace(HERE, number=2**22 + 1, namespace="1"), 0, True),
        (replace(HERE, host="another"), ownership.OLD_SECONDS - 1, True),
        (replace(HERE, host="another"), ownership.OLD_SECONDS + 1, False),
        (replace(HERE, host="another"), -ownership.OLD_SECONDS - 1, False),  # by a clock that was set back since
    ],
)
def test_an_open_run_is_somebodys_until_its_owner_is_gone_or_its_heartbeat_old(
    owner: Process | None, seconds: float, alive: bool
) -> None:
    run = Run("customer", Trigger.CLI, False, NOW, status=Status.IN_PROGRESS, attempt="a", heartbeat_at=NOW)
    assert is_alive(replace(run, owner=str(owner) if owner else None), NOW + timedelta(seconds=seconds)) is alive


def test_of_two_runs_that_begin_at_the_same_moment_one_goes_on(
    sqlite_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have other kinds of locks, and neither sees the other before both have an entry."""
    met = Barrier(2, timeout=DEADLINE_SECONDS)
    save = History.save

    def saved_together(history: History, run: Run, **how: Any) -> None:
        met.wait()
        save(history, run, **how)
        met.wait()

    monkeypatch.setattr(History, "save", saved_together)
    with ThreadPoolExecutor() as pool:
        outcomes = list(pool.map(sync, [sqlite_place.customer] * 2))
    assert sorted(sqlite_place.customer.statuses) == ["Completed", "Failed"]
    assert [type(outcome.error) for outcome in outcomes if outcome.error] == [Locked]


def test_a_run_that_another_has_overtaken_before_it_had_an_entry_gives_way(
    sqlite_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has another kind of lock, and what it knows of SyncHistory is old."""
    save, service, faster = History.save, sqlite_place.customer, list[Outcome]()

    def overtaken(history: History, run: Run, **how: Any) -> None:
        monkeypatch.setattr(History, "save", save)
        faster.append(sync(service))
        save(history, run, **how)

    monkeypatch.setattr(History, "save", overtaken)
    slower = sync(service)
    assert [outcome.error for outcome in faster] == [None]
    assert isinstance(slower.error, Locked)
    assert service.statuses.count("Completed") == 1
    assert service.is_mirrored()


def test_a_run_gives_way_to_one_that_goes_on_with_a_lower_number(sqlite_place: Place) -> None:
    """It has read SyncHistory before, and got its entry later. A verify, which waits for nobody, took the number in
    between."""
    with owned(sqlite_place) as other, pytest.raises(Locked), owned_by(other.beside, number=2):
        pass


@contextmanager
def owned_by(backup: Store, number: int = 1) -> Iterator[Ownership]:
    """A run of customers into this backup that goes on."""
    mine, place = Ownership(History(backup), lambda: NOW), backup.catalog.qualified_name()
    run = Run("customer", Trigger.CLI, False, NOW, status=Status.IN_PROGRESS, place=place, number=number)
    with mine.taken(run, None):
        yield mine


@contextmanager
def owned(place: Place) -> Iterator[Ownership]:
    """A run of customers that goes on."""
    with place.registry.get("customer").stores() as (_, backup), owned_by(backup) as mine:
        yield mine


def test_a_run_bears_a_lost_heartbeat_and_stops_when_none_is_heard_for_too_long(
    sqlite_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = 0.0
    monkeypatch.setattr(ownership, "elapsed", lambda: seconds)

    def lost(*_: object) -> bool:
        raise TransientStoreError

    with owned(sqlite_place) as mine:
        with monkeypatch.context() as patched:
            patched.setattr(History, "beat", lost)
            seconds += 80
            mine.check_young()
            seconds += 80
            with pytest.raises(LockLost):
                mine.check_young()
        mine.check_young()  # heard again, and nobody had taken it over
        sqlite_place.customer.say_that_another_machine_runs()
        seconds += 160
        with pytest.raises(LockLost):
            mine.check_young()


def test_heartbeats_are_written_until_the_run_ends_whatever_it_does(
    sqlite_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    beat, heard = History.beat, list[bool]()
    enough = Event()

    def counted(history: History, *named: Any) -> bool:
        heard.append(beat(history, *named))
        if len(heard) == 2:
            monkeypatch.setattr(ownership, "HEARTBEAT_SECONDS", DEADLINE_SECONDS)
            enough.set()
        return heard[-1]

    monkeypatch.setattr(ownership, "HEARTBEAT_SECONDS", 0.001)
    monkeypatch.setattr(History, "beat", counted)
    with owned(sqlite_place):
        assert enough.wait(DEADLINE_SECONDS)
        [heart] = [thread for thread in threading.enumerate() if thread.name == "heart-customer"]
    heart.join(DEADLINE_SECONDS / 2)
    assert not heart.is_alive()
    assert heard == [True, True]


@pytest.mark.parametrize("asked", ["renew", "is_owned", "beat"])
def test_threads_of_a_run_do_not_take_it_from_each_other(
    sqlite_place: Place, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    """Each names its attempt anew after a lost answer; the server may hear of that in any order."""
    renew: Any
    renew, real, calls = History.renew, getattr(History, asked), 0

    def after_another(history: History, *named: Any) -> bool:
        nonlocal calls
        calls += 1
        if calls == 1:  # another thread comes between what this one knows and what it asks
            with monkeypatch.context() as patched:
                patched.setattr(History, "renew", lambda history, *named: renew(history, *named[:-1], None))
                mine.check_last("a transaction", again=True)
        return bool(real(history, *named if asked == "beat" else (*named[:-1], None)))

    with owned(sqlite_place) as mine:
        monkeypatch.setattr(History, asked, after_another)
        if asked == "beat":
            mine._beat()
        else:
            mine.check_last("a transaction", again=asked == "renew")
        assert calls == 2
        mine.check_young()


@pytest.mark.parametrize("side", ["source", "backup"])
@pytest.mark.parametrize("kind", ["sqlite_place", "postgres_place"])
def test_what_a_run_writes_into_either_side_is_committed_only_while_the_run_is_its_own(
    kind: str, side: str, request: pytest.FixtureRequest
) -> None:
    place: Place = request.getfixturevalue(kind)
    service = place.customer
    with place.registry.get("customer").stores() as (source, backup), owned_by(backup) as mine:
        backup.catalog.match(source)
        store = {"source": source, "backup": backup}[side]
        store.fence_by(mine)
        records = next(source.read(None, WHOLE))
        store.write(records[:1])
        service.say_that_another_machine_runs()
        with pytest.raises(LockLost):
            store.write([{**records[1], "Version": 77}])
    assert all(row["Version"] != 77 for row in getattr(service, side).contents().values())


@pytest.mark.parametrize("place", ["sqlite_place", "postgres_place"])
def test_a_history_that_swallows_entries_is_told_as_what_it_is(place: str, request: pytest.FixtureRequest) -> None:
    filled: Place = request.getfixturevalue(place)
    service = filled.customer
    assert isinstance(service.backup, Sql)
    history = replace(service.backup, table=service.backup.table.replace("Customers", "SyncHistory"))
    if place == "sqlite_place":
        history.run("CREATE TRIGGER no BEFORE INSERT ON {table} BEGIN SELECT raise(IGNORE); END")
    else:
        history.run("CREATE RULE no AS ON INSERT TO {table} DO INSTEAD NOTHING")
    [outcome] = filled.registry.sync("customer", Trigger.CLI)
    assert "is not in SyncHistory" in str(outcome.error)
    assert "trigger" in outcome.error.hint if outcome.error else False
    assert not service.backup.contents()
