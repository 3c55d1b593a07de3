"""One look at a set settles the tables of which nothing has changed. Everything else gets a run of its own."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from backup.config.settings import load_settings
from backup.core.errors import Cancelled, Locked, TransientStoreError
from backup.core.model import utc_now
from backup.core.run_values import Counts, Run, Status, Trigger
from backup.runs import of_all_services, unchanged_runs
from backup.runs.history import History
from backup.runs.outcome import Observer
from backup.runs.runner import Runner
from backup.services.named_run import run_named
from backup.services.registry import Registry, limits_of
from backup.services.service import Options
from backup.services.unchanged import SetLook
from backup.stores.sides import open_tables
from backup.stores.sql.engines.sqlite.dialect import SqliteDialect
from backup.stores.sql.many_tables import SECONDS_FOR_MANY, AskedTable, ManyTables
from tests.emulators.servers import lent_database
from tests.scenarios import places
from tests.scenarios.shops import SHOPS, Shop

TABLES = """
CREATE TABLE "A" ("Id" INTEGER PRIMARY KEY, "Name" VARCHAR(40), "Version" INTEGER NOT NULL);
CREATE TABLE "B" ("Id" VARCHAR(9) NOT NULL PRIMARY KEY, "Name" VARCHAR(40), "Price" NUMERIC(9, 2));
INSERT INTO "A" VALUES (1, 'Ada', 1), (2, 'Bo', 1), (3, NULL, 1);
INSERT INTO "B" VALUES ('x', 'Ada', 1.50), ('y', NULL, NULL)
"""
VERSION = '[set.shop.table.A]\nversion = "Version"'


def synced(shop: Shop) -> Shop:
    """Two tables that were synced: one with a version, one that is compared by its content."""
    shop.run(TABLES)
    assert {outcome.error for outcome in shop.sync(VERSION).values()} == {None}
    return shop


@pytest.fixture
def shop(sqlite_shop: Shop, tmp_path: Path) -> Shop:
    """The synced tables in SQLite files."""
    places.with_files(tmp_path, "a synced shop", lambda: synced(sqlite_shop))
    return sqlite_shop


@pytest.fixture
def own_runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The services that got a run of their own from now on."""
    services: list[str] = []
    run = Runner.run

    def noted(runner: Runner, *arguments: Any) -> Any:
        services.append(runner._service.rpartition(".")[2].rpartition("/")[2])
        return run(runner, *arguments)

    monkeypatch.setattr(Runner, "run", noted)
    return services


@contextmanager
def counted() -> Iterator[list[str]]:
    """The statements of all engines inside the block, but for BEGIN."""
    statements: list[str] = []

    def sent(_cx: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", sent)
    try:
        yield statements
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", sent)


@contextmanager
def connected() -> Iterator[list[None]]:
    """An item for each connection that is opened inside the block."""
    opened: list[None] = []

    def note(*_: Any) -> None:
        opened.append(None)

    sa.event.listen(sa.Pool, "connect", note)
    try:
        yield opened
    finally:
        sa.event.remove(sa.Pool, "connect", note)


def runs_of(shop: Shop, table: str) -> list[Run]:
    return list(shop.registry(VERSION).get(shop.name(table)).past.history(10))


@pytest.mark.parametrize("engine", SHOPS)
def test_a_set_of_which_nothing_has_changed_is_settled_by_one_look(
    engine: str, request: pytest.FixtureRequest, own_runs: list[str]
) -> None:
    shop = synced(request.getfixturevalue(engine))
    own_runs.clear()
    outcomes = shop.sync(VERSION)
    assert own_runs == []
    assert {table: outcome.run.counts for table, outcome in outcomes.items()} == {
        "A": Counts(skipped=3),
        "B": Counts(skipped=2),
    }
    for table, records in (("A", 3), ("B", 2)):
        newest, before = runs_of(shop, table)
        assert newest.sync_id == outcomes[table].run.sync_id
        assert (newest.status, newest.verified, newest.trigger) == (Status.COMPLETED, True, Trigger.CLI)
        assert newest.proof == before.proof
        assert newest.proof is not None
        assert newest.proof.source.records == newest.proof.backup.records == records
        assert (newest.number, before.number) == (2, 1)
        assert before.completed_at is not None
        assert newest.completed_at is not None
        assert before.completed_at < newest.started_at <= newest.completed_at
        assert newest.notes == before.notes
    assert [run.number for run in runs_of(shop, "A")] == [2, 1]


CHANGES: dict[str, tuple[str, str]] = {
    "a record": ("source", 'UPDATE "A" SET "Version" = 2, "Name" = \'Zoe\' WHERE "Id" = 1'),
    "a new record": ("source", "INSERT INTO \"A\" VALUES (9, 'New', 1)"),
    "a deleted record": ("source", 'DELETE FROM "A" WHERE "Id" = 1'),
    "a record of the backup": ("backup", 'UPDATE "A" SET "Version" = 7 WHERE "Id" = 2'),
    "a lost record of the backup": ("backup", 'DELETE FROM "A" WHERE "Id" = 2'),
    "a new column": ("source", 'ALTER TABLE "A" ADD "Fax" VARCHAR(20)'),
    "a dropped column": ("source", 'ALTER TABLE "A" DROP COLUMN "Name"'),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_table_that_differs_gets_a_run_of_its_own_and_the_others_do_not(
    shop: Shop, own_runs: list[str], change: str
) -> None:
    own_runs.clear()
    shop.sync(VERSION)  # now it is known what the catalogues say of the tables
    assert own_runs == []
    side, statement = CHANGES[change]
    shop.run(statement, side)
    outcomes = shop.sync(VERSION)
    assert own_runs == ["A"]
    assert {outcome.error for outcome in outcomes.values()} == {None}
    if "dropped" not in change:
        assert [row[:3] for row in shop.rows('"A"')] == [row[:3] for row in shop.rows('"A"', "source")]
    own_runs.clear()
    shop.sync(VERSION)
    # A column that is gone might come back: then every record must be copied again.
    assert own_runs == (["A"] if "dropped" in change else [])


@pytest.mark.parametrize(
    ("lines", "options"),
    [
        ("", Options(force=True)),
        ("", Options(dry_run=True)),
        ("", Options(limit=5)),
        ("", Options(allow_mass_delete=True)),
        ("where = { Id = { from = 1 } }", Options()),
        ('where_sql = "1 = 1"', Options()),
        ('mask = { Name = "null" }', Options()),
        ('columns = { exclude = ["Name"] }', Options()),
        ('key = ["Id"]', Options()),
        ('deletes = "keep"', Options()),
        ('transform = [{ constant = { Origin = "crm" } }]', Options()),
    ],
)
def test_what_is_asked_for_otherwise_gets_a_run_of_its_own(
    sqlite_shop: Shop, own_runs: list[str], lines: str, options: Options
) -> None:
    shop = sqlite_shop
    shop.run(TABLES.replace('"Id" VARCHAR(9) NOT NULL PRIMARY KEY', '"Id" VARCHAR(9) NOT NULL'))
    shop.run('CREATE UNIQUE INDEX "one" ON "B" ("Id")')
    shop.sync(VERSION)
    own_runs.clear()
    registry = Registry(
        load_settings({"BACKUP_TOML": shop.text(f"[set.shop.table.B]\n{lines}"), "BackupMask__Key": "k" * 40})
    )
    registry.sync("shop", Trigger.CLI)  # now the newest run followed the same rules
    own_runs.clear()
    registry.sync("shop", Trigger.CLI, options)
    assert "B" in own_runs


def spoil(shop: Shop, **fields: Any) -> None:
    """Changes the entry of the newest run of A."""
    service = shop.registry(VERSION).get(shop.name("A"))
    with service.stores() as (_, backup):
        history = History(backup)
        [newest] = history.latest(service.name, 1)
        history.save(replace(newest, **fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"status": Status.FAILED, "error": "It broke."},
        {"proof": None},
        {"dry_run": True},
        {"masks": "others"},
        {"selection": "another"},
        {"removed_columns": ("Fax",)},
        {"scratch": "left"},
        {"counts": Counts(failed=1, skipped=2)},
        {"number": 7_000_000_000, "place": None},
    ],
)
def test_after_a_run_that_proves_nothing_a_table_gets_a_run_of_its_own(
    shop: Shop, own_runs: list[str], fields: Any
) -> None:
    own_runs.clear()
    spoil(shop, **fields)
    own_runs.clear()
    shop.sync(VERSION)
    assert own_runs == ["A"]


def test_a_service_that_another_run_works_on_is_left_to_it(shop: Shop, own_runs: list[str]) -> None:
    own_runs.clear()
    own_runs.clear()
    registry = shop.registry(VERSION)
    service = registry.get("shop/A")
    with service.stores() as (_, backup), registry._lock("shop/A", backup.place.location):
        outcomes = shop.sync(VERSION)
    assert own_runs == ["A"]
    assert isinstance(outcomes["A"].error, Locked)
    assert outcomes["B"].run.number == 2
    assert [run.number for run in runs_of(shop, "A")] == [1]


def test_a_run_that_began_meanwhile_keeps_its_number(
    shop: Shop, own_runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another process with another kind of lock can do."""
    own_runs.clear()
    add: Callable[..., set[str]] = unchanged_runs.add

    def late(*arguments: Any) -> set[str]:
        service = shop.registry(VERSION).get(shop.name("A"))
        with service.stores() as (_, backup):
            [newest] = History(backup).latest(service.name, 1)
            History(backup).save(replace(newest, sync_id="another", number=2), new=True)
        return add(*arguments)

    monkeypatch.setattr(unchanged_runs, "add", late)
    outcomes = shop.sync(VERSION)
    assert own_runs == ["A"]
    assert [run.number for run in runs_of(shop, "A")] == [3, 2, 1]
    assert outcomes["B"].run.number == 2


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_ten_unchanged_tables_cost_a_few_statements_and_one_connection_a_side(
    engine: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if engine == "sqlite":
        cost_of_ten(Shop(f"sqlite:///{tmp_path}/source.db", f"sqlite:///{tmp_path}/backup.db", ""))
        return
    server = request.getfixturevalue("postgres")
    with lent_database(server) as source, lent_database(server) as backup:
        cost_of_ten(Shop(source, backup, "public."))


def cost_of_ten(shop: Shop) -> None:
    columns = "id INTEGER PRIMARY KEY, name VARCHAR(9), version INTEGER NOT NULL"
    shop.run(";".join(f"CREATE TABLE t{n} ({columns})" for n in range(10)))
    version = '[set.shop.table."*t*"]\nversion = "version"'
    shop.sync(version)
    shop.sync(version)  # from now on it is known what the catalogues say
    with counted() as statements, connected() as opened:
        outcomes = shop.sync(version)
    assert {outcome.run.number for outcome in outcomes.values()} == {3}
    # The fingerprints of a side are one; the rest are the catalogues, the history, and its entries.
    assert len(statements) <= 2 + 12
    assert len(opened) <= 2
    assert sum("INSERT" in statement for statement in statements) == 1
    newest = outcomes["t7"].run.sync_id
    for text in (newest, newest[:-1]):
        with counted() as statements:
            service, run_id = run_named(shop.registry(version), text)
        assert (service.name, run_id) == (shop.name("t7"), newest)
        assert sum("SyncHistory" in statement for statement in statements) <= 5  # two of the set, then of one service


def test_a_run_is_found_by_few_letters_though_many_other_services_have_runs_that_begin_so(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_all_services, "_ENOUGH", 1)
    registry = shop.registry(VERSION)
    for table in ("A", "B"):
        service = registry.get(shop.name(table))
        with service.stores() as (_, backup):
            history = History(backup)
            [newest] = history.latest(service.name, 1)
            history.save(replace(newest, sync_id=f"a0{table.lower() * 6}-0000", number=2), new=True)
    service, run_id = run_named(registry, "A0", shop.name("B"))
    assert (service.name, run_id) == (shop.name("B"), "a0bbbbbb-0000")


def test_what_is_asked_of_history_costs_no_look_at_all_of_it(shop: Shop, own_runs: list[str]) -> None:
    own_runs.clear()
    with counted() as statements:
        shop.sync(VERSION)
        assert own_runs == []
        shop.registry(VERSION).get(shop.name("A")).sync(Trigger.CLI)
        shop.registry(VERSION).get(shop.name("A")).sync(Trigger.CLI, Options(force=True))
    asked = {statement for statement in statements if re.search(r"(FROM|INTO|UPDATE) \"SyncHistory\"", statement)}
    assert len(asked) >= 6
    with closing(sqlite3.connect(shop.backup.removeprefix("sqlite:///"))) as file:
        for statement in asked:
            assert not re.search(r"SCAN (SyncHistory|recent)", plan_of(file, statement)), statement
        with counted() as statements:
            assert shop.registry(VERSION).directory.sets["shop"].open_services() == []
        [of_open_runs] = [statement for statement in statements if "SyncHistory" in statement]
        assert "USING COVERING INDEX" in plan_of(file, of_open_runs)


def plan_of(file: sqlite3.Connection, statement: str) -> str:
    return str(file.execute(f"EXPLAIN QUERY PLAN {statement}", [None] * statement.count("?")).fetchall())


@pytest.mark.parametrize("engine", ["sqlite_shop", "postgres_shop"])
def test_indexes_that_the_backup_gets_are_looked_at_and_made_the_same_night(
    engine: str, request: pytest.FixtureRequest, own_runs: list[str]
) -> None:
    shop: Shop = request.getfixturevalue(engine)
    shop.run(f'{TABLES};CREATE TABLE "C" ("Id" INTEGER PRIMARY KEY, "Size" INTEGER UNIQUE)')
    shop.run('CREATE INDEX "ByName" ON "A" ("Name"); CREATE INDEX "Both" ON "B" ("Name", "Price")')
    lines = ("indexes = true", VERSION)
    shop.sync(*lines)

    def sync(*expected: str) -> None:
        own_runs.clear()
        outcomes = shop.sync(*lines)
        assert own_runs == [*expected]
        assert {outcome.error for outcome in outcomes.values()} == {None}
        for table, columns in {"A": {"Name"}, "B": {"Name"}, "C": {"Size"}}.items():
            assert columns <= {index["column_names"][0] for index in indexes(table)}

    def indexes(table: str) -> Any:
        return sa.inspect(places.engine(shop.backup)).get_indexes(table)

    sync()  # now it is known what the catalogues say
    with counted() as statements:
        shop.sync(*lines)
    of_indexes = [statement for statement in statements if re.search("pg_(index|opclass)|pragma_index_list", statement)]
    assert len(of_indexes) <= 8  # of both sides; half of them list or describe all tables
    assert own_runs == []
    shop.run('CREATE INDEX "ByPrice" ON "B" ("Price")')
    sync("B")
    assert ["Price"] in [index["column_names"] for index in indexes("B")]
    [made] = indexes("A")
    shop.run(f'DROP INDEX "{made["name"]}"', "backup")
    sync("A")
    sync()
    # A service that is asked for alone asks for its indexes, too.
    service = shop.registry(*lines).get(shop.name("A"))
    with counted() as statements:
        service.sync(Trigger.CLI)
    assert sum("INSERT" in statement or "UPDATE" in statement for statement in statements) == 1
    shop.run(f'DROP INDEX "{made["name"]}"', "backup")
    service.sync(Trigger.CLI)
    assert [index["column_names"] for index in indexes("A")] == [["Name"]]


def test_a_table_that_cannot_be_read_fails_alone_and_by_its_own_run(shop: Shop, own_runs: list[str]) -> None:
    own_runs.clear()
    path = Path(shop.source.removeprefix("sqlite:///"))
    with closing(sqlite3.connect(path)) as file:
        [[page, size]] = file.execute(
            "SELECT rootpage, page_size FROM sqlite_master, pragma_page_size WHERE name = 'B'"
        ).fetchall()
    with path.open("r+b") as raw:
        raw.seek((page - 1) * size)
        raw.write(b"\xff" * size)
    own_runs.clear()
    outcomes = shop.sync(VERSION)
    assert own_runs == ["B"]
    assert outcomes["B"].run.status is Status.FAILED
    assert outcomes["A"].run.counts == Counts(skipped=3)


def test_a_look_ends_when_no_second_is_left(shop: Shop) -> None:
    registry = shop.registry(VERSION)
    look = SetLook(limits_of(load_settings({})), registry._lock, utc_now)
    services = [registry.get("shop/A"), registry.get("shop/B")]
    assert list(look.unchanged(services, Trigger.TIMER, lambda: 0.0)) == []
    assert len(list(look.unchanged(services, Trigger.TIMER, lambda: 0.1))) == 2


def test_a_look_waits_once_for_a_table_that_does_not_answer_and_settles_those_that_did(
    shop: Shop, own_runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that another session has locked."""
    calls: list[str] = []
    fingerprint = ManyTables._fingerprint

    def silent(tables: ManyTables, cx: sa.Connection, asked: AskedTable) -> Any:
        calls.append(asked.shape.table.name)
        if asked.shape.table.name == "B":
            raise TransientStoreError("There was no answer.")
        return fingerprint(tables, cx, asked)

    monkeypatch.setattr(ManyTables, "_fingerprint", silent)
    own_runs.clear()
    outcomes = shop.sync(VERSION)
    assert own_runs == ["B"]
    assert calls == ["B", "B"]  # of each side; one statement has answered for A
    assert {outcome.run.number for outcome in outcomes.values()} == {2}


def test_a_look_waits_once_for_a_catalogue_and_not_for_long(
    shop: Shop, own_runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[None] = []

    def silent(*_: Any) -> Any:
        calls.append(None)
        raise TransientStoreError("There was no answer.")

    monkeypatch.setattr(SqliteDialect, "describe_all", silent)
    own_runs.clear()
    shop.sync(VERSION)
    assert sorted(own_runs) == ["A", "B"]
    assert len(calls) <= 2  # of each side
    tables = open_tables(shop.registry(VERSION).get("shop/A").spec.source, limits_of(load_settings({})))
    assert tables._access._call_seconds == SECONDS_FOR_MANY
    tables.close()


def test_a_look_that_meets_a_mistake_in_the_code_logs_its_place_and_each_table_gets_a_run(
    shop: Shop,
    own_runs: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    broken_looks: list[str],
) -> None:
    def broken(*_: Any) -> Any:
        sa.select(1).where(object())  # type: ignore[arg-type]  # a library raises it, some calls away

    monkeypatch.setattr(unchanged_runs, "openings", broken)
    own_runs.clear()
    outcomes = shop.sync(VERSION)
    assert sorted(own_runs) == ["A", "B"]
    assert {outcome.error for outcome in outcomes.values()} == {None}
    [unexpected] = [record for record in caplog.records if record.getMessage().startswith("unexpected ")]
    assert unexpected.levelname == "ERROR"
    assert re.search(r"error=ArgumentError at=.*services/unchanged\.py:\d+; .*sqlalchemy", unexpected.getMessage())
    assert len(broken_looks) == 1
    broken_looks.clear()


def test_what_a_look_has_written_is_settled_though_somebody_cancels(shop: Shop, own_runs: list[str]) -> None:
    class Cancelling(Observer):
        def progress(self, service: str, counts: Counts) -> None:
            raise Cancelled

    own_runs.clear()
    outcomes = shop.registry(VERSION).sync("shop", Trigger.CLI, observer=Cancelling())
    assert own_runs == []
    assert {outcome.run.status for outcome in outcomes} == {Status.COMPLETED}
