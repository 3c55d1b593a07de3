"""A run of a service: its lock, its entry in SyncHistory, its outcome, whatever happens on the way."""

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from backup.config.settings import load_settings
from backup.core.errors import (
    ConfigError,
    Conflict,
    Locked,
    LockLost,
    StoreError,
    StoreUnavailable,
    Unexpected,
    UnknownService,
)
from backup.core.log import register_secret
from backup.core.retry import Retry
from backup.core.run_values import Counts, Proof, Run, Status, Total, Trigger
from backup.entry import answers
from backup.runs.history import History
from backup.runs.lock import open_lock
from backup.runs.outcome import Observer, Outcome, Turn
from backup.runs.process import this_process
from backup.services import places, service
from backup.services.presets import CustomerSyncService
from backup.services.registry import Registry
from backup.services.service import Options, SyncService
from backup.services.spec import specs_of
from backup.services.turns import AT_ONCE, side_by_side
from backup.stores import Limits, Store
from backup.verbs.restore_spec import RestoreSpec
from tests.scenarios.places import Place, Service, filled_on_sqlite

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Both services on SQLite, filled with the sample."""
    return filled_on_sqlite(tmp_path)


@pytest.fixture
def side(place: Place) -> Service:
    """The customers' two sides."""
    return place.customer


@pytest.fixture
def customer(place: Place) -> SyncService:
    """The customers' service, whose clock moves on by a second each time it is asked."""
    moments = (START + timedelta(seconds=n) for n in range(1000))
    settings = load_settings(place.settings)
    return CustomerSyncService(settings, Limits(), open_lock(settings, Retry()), lambda: next(moments))


@contextmanager
def history_of(service: SyncService) -> Iterator[History]:
    with service.stores() as (_, backup):
        yield History(backup)


def when_syncing(monkeypatch: pytest.MonkeyPatch, work: Callable[[], Any]) -> None:
    """Does `work` in place of the sync itself."""
    monkeypatch.setattr(service, "sync_with_schema", lambda _: work())


def raising(error: Exception) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


# SyncHistory


def test_a_completed_run_is_recorded_as_it_was(customer: SyncService) -> None:
    run = customer.sync(Trigger.TIMER, Options(force=True)).run
    with history_of(customer) as history:
        assert history.latest("customer", 5) == [run]
    assert run.proof is not None
    both = Total(100, run.proof.source.checksum)
    assert run == replace(
        Run("customer", Trigger.TIMER, True, run.started_at, run.sync_id),
        status=Status.COMPLETED,
        counts=Counts(inserted=100),
        completed_at=run.completed_at,
        proof=Proof(both, both),
        place="Customers",
        number=1,
        owner=str(this_process()),
        attempt=run.attempt,
        heartbeat_at=run.heartbeat_at,
        selection=run.selection,
    )
    assert run.selection is not None
    assert run.completed_at is not None
    assert START < run.started_at < run.completed_at < START + timedelta(seconds=1000)


def test_the_entry_exists_while_the_run_lasts(customer: SyncService, side: Service, monkeypatch: Any) -> None:
    entries: list[dict[str, Any]] = []
    when_syncing(monkeypatch, lambda: entries.extend(side.backup.history()))
    customer.sync(Trigger.CLI)
    assert [(entry["Status"], bool(entry["Success"]), entry["CompletedAt"]) for entry in entries] == [
        ("InProgress", False, None)
    ]


@pytest.mark.parametrize("error", [StoreUnavailable("it went away"), StoreError("it went away")])
def test_a_failed_run_is_recorded_with_its_error(
    customer: SyncService, side: Service, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    when_syncing(monkeypatch, raising(error))
    outcome = customer.sync(Trigger.CLI)
    [entry] = side.backup.history()
    assert outcome.error is error
    assert (entry["Status"], entry["ErrorMessage"], bool(entry["Success"])) == ("Failed", "it went away", False)


def test_a_sync_that_lost_its_lock_leaves_its_entry_to_the_next_which_goes_on_with_it(
    customer: SyncService, side: Service
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        when_syncing(patched, raising(LockLost("it went away")))
        lost = customer.sync(Trigger.CLI)
    [left] = side.backup.history()
    ended = customer.sync(Trigger.CLI)
    [entry] = side.backup.history()
    assert (lost.run.status, left["Status"], entry["Status"]) == ("Failed", "InProgress", "Completed")
    assert lost.run.sync_id == left["SyncId"] == ended.run.sync_id == entry["SyncId"]


def test_a_run_that_was_left_in_progress_is_closed_as_failed_by_the_next(customer: SyncService, side: Service) -> None:
    dead = replace(Run("customer", Trigger.HTTP, False, START - timedelta(days=1)), status=Status.IN_PROGRESS)
    with history_of(customer) as history:
        history.save(dead)
    customer.sync(Trigger.CLI)
    first, second = side.backup.history()
    assert (first["SyncId"], first["Status"], second["Status"]) == (dead.sync_id, "Failed", "Completed")
    assert first["CompletedAt"]


def test_other_entries_are_left_as_they_are(customer: SyncService, side: Service) -> None:
    others = [
        replace(Run("order", Trigger.HTTP, False, START), status=Status.IN_PROGRESS),
        Run("customer", Trigger.HTTP, False, START).ended(Status.FAILED, START, Counts(1, 2, 3, 4), "as it was"),
    ]
    with history_of(customer) as history:
        for run in others:
            history.save(run)
        before = {entry["SyncId"]: entry for entry in side.backup.history()}
        assert history.open_runs("customer") == []
    assert {entry["SyncId"]: entry for entry in side.backup.history()} == before


def test_the_latest_runs_come_newest_first(customer: SyncService) -> None:
    runs = [customer.sync(Trigger.CLI).run for _ in range(3)]
    assert customer.past.history(2) == [runs[2], runs[1]]


def test_a_run_that_cannot_be_recorded_at_its_end_has_failed(
    customer: SyncService, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, calls = History.change, []

    def failing_at_the_end(self: History, run: Run, *whose: Any) -> bool:
        calls.append(run.status)
        if run.status is Status.COMPLETED:
            raise StoreUnavailable("no room for the entry")
        return change(self, run, *whose)

    monkeypatch.setattr(History, "change", failing_at_the_end)
    outcome = customer.sync(Trigger.CLI)
    assert outcome.run.status is Status.FAILED
    assert outcome.run.error == "no room for the entry"


def test_a_run_whose_failure_cannot_be_recorded_keeps_its_own_error(
    customer: SyncService, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    error = StoreUnavailable("the first cause")

    def failing(self: History, run: Run, **how: Any) -> None:
        if run.status is Status.FAILED:
            raise StoreUnavailable("no room for the entry")

    when_syncing(monkeypatch, raising(error))
    monkeypatch.setattr(History, "save", failing)
    assert customer.sync(Trigger.CLI).error is error
    assert "history.not_saved" in caplog.text


# The lock


def test_the_lock_is_held_while_the_sync_runs_and_free_afterwards(
    customer: SyncService, monkeypatch: pytest.MonkeyPatch
) -> None:
    statuses = []
    when_syncing(monkeypatch, lambda: statuses.append(customer.sync(Trigger.CLI).error))
    assert customer.sync(Trigger.CLI).error is None
    assert isinstance(statuses[0], Locked)
    monkeypatch.undo()
    assert customer.sync(Trigger.CLI).error is None


def test_a_run_that_finds_the_lock_taken_leaves_no_entry_and_closes_none(
    customer: SyncService, side: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = []

    def second() -> None:
        customer.sync(Trigger.CLI)
        entries.extend(side.backup.history())

    when_syncing(monkeypatch, second)
    customer.sync(Trigger.CLI)
    assert [entry["Status"] for entry in entries] == ["InProgress"]


def test_a_run_whose_lock_cannot_be_taken_for_lack_of_storage_is_recorded(side: Service) -> None:
    @contextmanager
    def no_storage(service: str, backup: str) -> Iterator[Callable[[], None]]:
        if service:
            raise StoreUnavailable("no storage account")
        yield lambda: None

    service = CustomerSyncService(load_settings(side.settings), Limits(), no_storage)
    assert service.sync(Trigger.CLI).run.status is Status.FAILED
    assert [entry["ErrorMessage"] for entry in side.backup.history()] == ["no storage account"]


# Errors that nobody foresaw


def test_an_unforeseen_error_is_a_failed_run_that_tells_its_kind_and_no_content(
    customer: SyncService, side: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    when_syncing(monkeypatch, raising(ValueError("a record's private words")))
    outcome = customer.sync(Trigger.CLI)
    [entry] = side.backup.history()
    assert (entry["Status"], outcome.run.status) == ("Failed", Status.FAILED)
    assert "ValueError" in entry["ErrorMessage"]
    assert "private words" not in f"{entry} {outcome.run} {caplog.text}"
    assert Path(__file__).name in caplog.text


@pytest.mark.parametrize("method", ["rivals", "save"])
def test_an_unforeseen_error_before_the_sync_fails_that_service_alone(
    place: Place, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    original = getattr(History, method)

    def failing(self: History, subject: Any, *more: Any, **how: Any) -> Any:
        if "order" in (subject, getattr(subject, "service", "")):
            raise ZeroDivisionError
        return original(self, subject, *more, **how)

    monkeypatch.setattr(History, method, failing)
    outcomes = place.registry.sync("all", Trigger.CLI)
    assert [outcome.run.status for outcome in outcomes] == [Status.COMPLETED, Status.FAILED]


def test_an_error_message_is_recorded_and_returned_without_secrets(
    customer: SyncService, side: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_secret("registered-secret-of-a-test")
    when_syncing(monkeypatch, raising(StoreError("registered-secret-of-a-test and Password=hidden;")))
    outcome = customer.sync(Trigger.CLI)
    recorded = f"{side.backup.history()} {outcome.run}"
    assert "registered-secret" not in recorded
    assert "hidden" not in recorded


# The registry


def registry(**settings: str) -> Registry:
    return Registry(load_settings(settings))


def test_services_are_those_that_the_settings_configure() -> None:
    assert registry().directory.names() == []
    assert registry(BackupOrderDb__ConnectionString="sqlite:///x.db").directory.names() == ["order"]
    assert registry(BackupOrderDb__Table="a", SourceCustomerDb__Table="b").directory.names() == ["customer", "order"]


@pytest.mark.parametrize("name", ["customer", "Customer", "all ", "", "invoice"])
def test_a_service_that_is_not_configured_is_unknown(name: str) -> None:
    with pytest.raises(UnknownService):
        registry(SourceOrderDb__ConnectionString="sqlite:///x.db").directory.chosen(name)


@pytest.mark.parametrize(("name", "chosen"), [("ORDER", ["order"]), ("Order", ["order"]), ("All", ["order"])])
def test_a_service_is_chosen_by_its_name_in_any_case(name: str, chosen: list[str]) -> None:
    sides = {f"{role}OrderDb__ConnectionString": f"sqlite:///{role}.db" for role in ("Source", "Backup")}
    assert registry(**sides).directory.chosen(name) == chosen


def test_without_any_service_there_is_nothing_to_choose_from() -> None:
    with pytest.raises(UnknownService, match="No service is configured"):
        registry().directory.chosen("all")


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ("SourceCustomerDb__ConnectionString", "BackupCustomerDb__ConnectionString"),
        ("BackupCustomerDb__ConnectionString", "SourceCustomerDb__ConnectionString"),
        ("SourceOrderDb__ConnectionString", "BackupOrderDb__ConnectionString"),
        ("BackupOrderDb__Table", "SourceOrderDb__ConnectionString"),
    ],
)
def test_a_service_that_is_half_configured_names_the_missing_setting(given: str, missing: str) -> None:
    half = registry(**{given: "sqlite:///x.db"})
    with pytest.raises(ConfigError, match=f"Setting {missing} is missing: service .* has no (source|backup)"):
        half.get(half.directory.names()[0])


@pytest.mark.parametrize("missing", ["DatabaseName", "ContainerName"])
@pytest.mark.parametrize("prefix", ["SourceOrderDb", "BackupOrderDb"])
def test_a_cosmos_side_without_database_or_container_names_the_missing_setting(prefix: str, missing: str) -> None:
    settings = {
        f"{section}__{name}": value
        for section in ("SourceOrderDb", "BackupOrderDb")
        for name, value in (
            ("ConnectionString", "AccountEndpoint=https://127.0.0.1:1/;AccountKey=a2V5"),
            ("DatabaseName", section),
            ("ContainerName", "orders"),
        )
    }
    del settings[f"{prefix}__{missing}"]
    with pytest.raises(ConfigError, match=f"{prefix}__{missing}"), registry(**settings).get("order").stores():
        pass


def test_a_sql_and_a_cosmos_side_are_refused(tmp_path: Path) -> None:
    mixed = registry(
        SourceOrderDb__ConnectionString=f"sqlite:///{tmp_path / 'x.db'}",
        BackupOrderDb__ConnectionString="AccountEndpoint=https://127.0.0.1:1/;AccountKey=a2V5",
        BackupOrderDb__DatabaseName="db",
        BackupOrderDb__ContainerName="orders",
    )
    with pytest.raises(ConfigError, match="SourceOrderDb is sqlite and BackupOrderDb is cosmos"):
        mixed.get("order").stores().__enter__()


@pytest.mark.parametrize("spelling", ["x.db", "./x.db", "folder/../x.db", "X.db"])
def test_a_backup_in_its_own_source_is_refused(tmp_path: Path, spelling: str) -> None:
    (tmp_path / "folder").mkdir()
    same = registry(
        SourceCustomerDb__ConnectionString=f"sqlite:///{tmp_path}/x.db",
        BackupCustomerDb__ConnectionString=f"sqlite:///{tmp_path}/{spelling}",
    )
    with pytest.raises(ConfigError, match="same place"):
        same.get("customer").stores().__enter__()


@pytest.mark.parametrize("name", ["SyncHistory", "recyclebin", "main.RECYCLEBIN"])
def test_a_backup_that_has_the_name_of_one_of_the_apps_own_tables_is_refused(tmp_path: Path, name: str) -> None:
    taken = registry(
        SourceCustomerDb__ConnectionString=f"sqlite:///{tmp_path}/x.db",
        BackupCustomerDb__ConnectionString=f"sqlite:///{tmp_path}/y.db",
        BackupCustomerDb__Table=name,
    )
    with pytest.raises(ConfigError, match=r"BackupCustomerDb names .*app's own"):
        taken.get("customer").stores().__enter__()


def test_what_undo_cannot_bring_back_is_told_and_keys_of_another_type_are_refused(tmp_path: Path) -> None:
    files = [tmp_path / "source.db", tmp_path / "backup.db"]
    settings = {
        f"{role}CustomerDb__{name}": value
        for role, file in zip(("Source", "Backup"), files, strict=True)
        for name, value in (("ConnectionString", f"sqlite:///{file}"), ("Table", "Things"))
    }

    def run_on(file: Path, *statements: str) -> list[Any]:
        with closing(sqlite3.connect(file)) as connection:
            rows = [connection.execute(statement).fetchall() for statement in statements][-1]
            connection.commit()
            return rows

    run_on(files[0], "CREATE TABLE Things (Id INTEGER PRIMARY KEY, Version INTEGER, Name TEXT, More TEXT)")
    run_on(files[0], "INSERT INTO Things VALUES (1, 1, 'a', 'b'), (2, 1, 'c', 'd')")
    service = registry(**settings).get("customer")
    service.initialize()
    first = service.sync(Trigger.CLI).run
    run_on(files[0], "UPDATE Things SET Version = 2, Name = 'x', More = 'y' WHERE Id = 2")
    second = service.sync(Trigger.CLI).run
    for file in files:
        run_on(file, "ALTER TABLE Things DROP COLUMN More")
    undone = service.undo(second.sync_id).run
    assert "Column More is no longer in the backup: its values of 1 record could not be brought back." in undone.notes
    assert run_on(files[1], "SELECT Id, Version, Name FROM Things") == [(1, 1, "a"), (2, 1, "c")]
    before = second.started_at
    notes = service.restore(RestoreSpec(at=before, overwrite_newer=True)).run.notes
    assert "Column More is gone on both sides; what it held stays in the bin." in notes
    for file in files:
        run_on(
            file,
            "CREATE TABLE New (Id TEXT NOT NULL PRIMARY KEY, Version INTEGER, Name TEXT)",
            "INSERT INTO New SELECT Id, Version, Name FROM Things",
            "DROP TABLE Things",
            "ALTER TABLE New RENAME TO Things",
        )
    assert service.sync(Trigger.CLI).run.status is Status.COMPLETED
    refused = service.undo(first.sync_id)
    assert isinstance(refused.error, Conflict)
    assert "another type" in str(refused.error)
    then = second.completed_at
    assert then is not None
    assert "another type" in str(service.restore(RestoreSpec(at=then)).error)


def test_another_table_of_the_sources_database_may_be_the_backup(tmp_path: Path) -> None:
    beside = registry(
        SourceCustomerDb__ConnectionString=f"sqlite:///{tmp_path}/x.db",
        BackupCustomerDb__ConnectionString=f"sqlite:///{tmp_path}/x.db",
        BackupCustomerDb__Table="Customers_Backup",
    )
    with beside.get("customer").stores() as (source, backup):
        assert (source.place.name, backup.place.name) == ("Customers", "Customers_Backup")


def test_the_batch_sizes_and_retry_limits_reach_the_stores(monkeypatch: pytest.MonkeyPatch, place: Place) -> None:
    opened_with = []

    def remember(side: Any, rules: Any, limits: Any, **_: Any) -> Store:
        opened_with.append(limits)
        raise ConfigError

    monkeypatch.setattr(places, "open_store", remember)
    settings = {
        **{"BackupSync__ChunkSize": "11", "BackupSync__BatchSize": "12", "BackupSync__BatchBytes": "13"},
        **{"BackupRetry__MaxAttempts": "14", "BackupRetry__BaseSeconds": "15", "BackupRetry__MaxSeconds": "16"},
    }
    Registry(load_settings({**place.settings, **settings})).sync("customer", Trigger.CLI)
    [limits] = opened_with
    retry = limits.retry
    assert (limits.chunk_size, limits.batch_size, limits.batch_bytes) == (11, 12, 13)
    assert (retry.max_attempts, retry.base_seconds, retry.max_seconds) == (14, 15, 16)


def test_all_services_of_a_request_run_side_by_side(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2)
    when_syncing(monkeypatch, lambda: both.wait(30))
    outcomes = place.registry.sync("all", Trigger.CLI)
    assert [outcome.error for outcome in outcomes] == [None, None]


def many(count: int) -> Registry:
    """Services of other places that nobody opens."""
    names = [f"Shop{n:02}" for n in range(count)]
    sides = {
        f"{role}{name}Db__{part}": value
        for role in ("Source", "Backup")
        for name in names
        for part, value in (("ConnectionString", f"sqlite:///{role}.db"), ("Table", name))
    }
    return registry(**sides)


def test_no_more_than_eight_services_are_synced_at_once_and_the_others_are_pending(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    goes_on, ended = threading.Event(), threading.Semaphore(0)

    def waiting(
        self: SyncService, trigger: Trigger, options: Options, observer: Observer, turn: Turn, *_: Any
    ) -> Outcome:
        run = Run(self.name, trigger, False, START)
        observer.started(run)
        goes_on.wait(30)
        ended.release()
        return Outcome(run.ended(Status.COMPLETED, START, Counts()))

    monkeypatch.setattr(SyncService, "sync", waiting)
    outcomes = many(10).sync("all", Trigger.HTTP, wait_seconds=0)
    answer = answers.shape_syncs(outcomes)
    goes_on.set()
    assert [ended.acquire(timeout=30) for _ in outcomes] == [True] * 10
    # Those that had not begun by then wait; which ones had is for the threads to say.
    pending = [result for result in answer.body["Results"] if result["Status"] == "Pending" and not result["SyncId"]]
    assert (answer.status, answer.body["Message"]) == (202, "10 of 10 syncs are in progress")
    assert [result["ServiceName"] for result in pending][-2:] == ["shop08", "shop09"]
    assert pending[-1]["Notes"] == ["It waits for its turn: 8 services are synced at once."]


def test_a_sync_that_fails_in_a_way_nobody_foresaw_is_an_outcome_beside_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def breaking(
        self: SyncService, trigger: Trigger, options: Options, observer: Observer, turn: Turn, *_: Any
    ) -> Outcome:
        if self.name.endswith("1"):
            raise RuntimeError("secret")
        return Outcome(Run(self.name, trigger, False, START).ended(Status.COMPLETED, START, Counts()))

    monkeypatch.setattr(SyncService, "sync", breaking)
    outcomes = many(3).sync("all", Trigger.CLI)
    assert [type(outcome.error) for outcome in outcomes] == [type(None), Unexpected, type(None)]
    assert "secret" not in str(outcomes[1].error)


def test_work_side_by_side_keeps_its_order_and_has_its_bound() -> None:
    full = threading.Barrier(AT_ONCE)

    def work(n: int) -> tuple[int, int]:
        full.wait(30)
        return n, threading.get_ident()

    results = side_by_side(work, range(4 * AT_ONCE))
    assert [n for n, _ in results] == [*range(4 * AT_ONCE)]
    assert len({thread for _, thread in results}) == AT_ONCE


def test_a_sync_whose_turn_comes_when_time_is_up_does_a_part_and_leaves_the_rest(place: Place) -> None:
    services = Registry(load_settings({**place.settings, "BackupSync__ChunkSize": "20"}))
    customer = services.get("customer")
    outcome = customer.sync(Trigger.TIMER, turn=Turn(0.0))
    assert (outcome.error, outcome.run.status) == (None, Status.IN_PROGRESS)
    parts = 1
    while outcome.in_progress:
        assert parts < 10
        resumed = customer.resume(Trigger.TIMER, Turn(0.0))
        assert resumed is not None
        outcome, parts = resumed, parts + 1
    assert (outcome.error, outcome.run.counts.inserted) == (None, 100)
    assert parts > 1


def test_two_services_whose_names_differ_in_case_alone_are_refused() -> None:
    settings = load_settings({f"{role}OrderDb__ConnectionString": "sqlite:///x.db" for role in ("Source", "Backup")})
    [spec] = specs_of(settings)
    with pytest.raises(ConfigError, match="Two services are called 'ORDER'"):
        Registry(settings, specs=[spec, replace(spec, name="ORDER")])


@pytest.mark.parametrize("name", ["", " a", "a\n", "x" * 201, "🙂" * 101, "all", "ALL", "\u202e"])
def test_a_name_that_nobody_could_ask_for_or_history_not_keep_is_refused(name: str) -> None:
    settings = load_settings({f"{role}OrderDb__ConnectionString": "sqlite:///x.db" for role in ("Source", "Backup")})
    [spec] = specs_of(settings)
    with pytest.raises(ConfigError, match="service"):
        replace(spec, name=name)


def test_a_run_logs_its_start_and_its_end_with_its_counts(
    customer: SyncService, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    run = customer.sync(Trigger.CLI).run
    lines = [line for line in caplog.messages if line.startswith("sync.")]
    assert lines[0] == (
        f"sync.started service=customer sync_id={run.sync_id} trigger=cli forced=False"
        " dry_run=False allow_mass_delete=False"
    )
    assert lines[-1].startswith(
        f"sync.completed service=customer sync_id={run.sync_id} inserted=100 updated=0 deleted=0 skipped=0 failed=0"
        " remaining=0 verified=True dry_run=False duration_ms="
    )
