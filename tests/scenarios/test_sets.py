"""A set of backup.toml from end to end: which services it makes, and what becomes of each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from traceback import walk_tb
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from azure.cosmos import PartitionKey

from backup.config.settings import load_settings
from backup.core.errors import (
    ConfigError,
    GuardTripped,
    Interrupted,
    RecordsSetAside,
    SchemaMismatch,
    SetFailed,
    SourceMissing,
    UnknownService,
)
from backup.core.model import utc_now
from backup.core.run_values import Run, Status, Trigger
from backup.entry import http
from backup.entry.dashboard_shapes import shape_overview
from backup.entry.plans import shape_plan
from backup.jobs.desk import Desk, open_desk
from backup.jobs.job import Job, Request, State
from backup.jobs.records import SILENCE
from backup.jobs.run_numbers import RunNumbers
from backup.jobs.run_records import RunKeeper
from backup.jobs.worker import worker_of
from backup.mirror.planned_changes import PlannedChanges
from backup.runs.outcome import NOBODY, Outcome, Turn
from backup.services.first_file import first_file
from backup.services.registry import Registry
from backup.services.service import NO_OPTIONS
from backup.services.service_plans import plan_of
from backup.services.several_as_one import RunSoFar
from backup.services.turns import new_run_of_several
from backup.stores import Limits
from backup.verbs import schema
from tests.contract.benches import SQL_SERVER, Role
from tests.emulators.clients import cosmos_client
from tests.emulators.servers import lent_database
from tests.scenarios import places
from tests.scenarios.inside import command

SHOP = """
CREATE TABLE "Customer" ("Id" INTEGER PRIMARY KEY, "Name" VARCHAR(40), "Fax" VARCHAR(20), "Country" VARCHAR(20));
CREATE TABLE "Invoice" ("Id" INTEGER PRIMARY KEY, "Customer" INTEGER REFERENCES "Customer" ("Id"));
CREATE TABLE "Order Details" ("Order" INTEGER NOT NULL, "Line" INTEGER NOT NULL, "Price" NUMERIC(9, 2));
CREATE UNIQUE INDEX "one line" ON "Order Details" ("Order", "Line");
CREATE TABLE "odd.na[me] 🎵" ("Id" INTEGER PRIMARY KEY, "Boss" INTEGER);
CREATE TABLE "Keyless" ("A" VARCHAR(9), "B" VARCHAR(9));
CREATE TABLE tmp_load ("Id" INTEGER PRIMARY KEY);
CREATE VIEW "German" AS SELECT "Id", "Name" FROM "Customer" WHERE "Country" = 'Germany';
INSERT INTO "Customer" VALUES (1, 'Ada', '1', 'Germany'), (2, 'Bülent', '2', 'Türkiye'), (3, 'Chi', '3', 'Japan');
INSERT INTO "Invoice" VALUES (1, 1), (2, 2);
INSERT INTO "Order Details" VALUES (1, 1, 2.50), (1, 2, 3.10);
INSERT INTO "odd.na[me] 🎵" VALUES (1, NULL);
INSERT INTO "Keyless" VALUES ('a', 'b'), ('a', 'c');
"""


@dataclass(frozen=True)
class Shop:
    """A source with tables of many kinds, an empty backup, and a set of both."""

    source: str
    backup: str
    prefix: str
    settings: dict[str, str] = field(default_factory=dict)

    def name(self, table: str) -> str:
        return f"shop/{self.prefix}{table}"

    def text(self, *lines: str, tables: str = '["*"]') -> str:
        """The text of backup.toml, with these lines at its end."""
        text = f"[set.shop]\nsource = '{self.source}'\nbackup = '{self.backup}'\ntables = {tables}\n"
        return text + "\n".join(lines)

    def registry(self, *lines: str, tables: str = '["*"]') -> Registry:
        return Registry(load_settings({"BACKUP_TOML": self.text(*lines, tables=tables), **self.settings}))

    def tables(self, side: str) -> list[str]:
        with self._begin(side) as cx:
            return list(sa.inspect(cx).get_table_names())

    def sync(self, *lines: str, name: str = "shop", tables: str = '["*"]') -> dict[str, Outcome]:
        """The outcomes by table, as sync gives them."""
        outcomes = self.registry(*lines, tables=tables).sync(name, Trigger.CLI)
        return {outcome.run.service.removeprefix(f"shop/{self.prefix}"): outcome for outcome in outcomes}

    def run(self, statements: str, side: str = "source") -> None:
        with self._begin(side) as cx:
            for statement in filter(str.strip, statements.split(";")):
                cx.exec_driver_sql(statement)

    def rows(self, table: str, side: str = "backup") -> list[tuple[Any, ...]]:
        with self._begin(side) as cx:
            return sorted(tuple(row) for row in cx.execute(sa.text(f"SELECT * FROM {table}")))

    def column(self, query: str, side: str = "backup") -> list[Any]:
        with self._begin(side) as cx:
            return [row[0] for row in cx.execute(sa.text(query))]

    def _begin(self, side: str) -> Any:
        return places.engine(self.source if side == "source" else self.backup).begin()


@pytest.fixture
def sqlite_shop(tmp_path: Path) -> Shop:
    """The shop in SQLite files."""
    return Shop(f"sqlite:///{tmp_path}/source.db", f"sqlite:///{tmp_path}/backup.db", "")


@pytest.fixture
def postgres_shop(postgres: str) -> Iterator[Shop]:
    """The shop in two PostgreSQL databases."""
    with lent_database(postgres) as source, lent_database(postgres) as backup:
        yield Shop(source, backup, "public.")


SHOPS = ["sqlite_shop", "postgres_shop", *(["mssql_shop"] if SQL_SERVER else [])]
"""SQL Server is left out without a server: test_sqlserver_types.py says so once."""


@pytest.fixture
def mssql_shop(sqlserver_databases: Mapping[Role, str]) -> Iterator[Shop]:
    """The shop in two databases of SQL Server, which are emptied afterwards."""
    source, backup = sqlserver_databases["source"], sqlserver_databases["backup"]
    yield Shop(source, backup, "dbo.")
    for url in (source, backup):
        empty(places.engine(url))


def empty(engine: sa.Engine) -> None:
    """Drops the views and tables of a database of SQL Server."""
    with engine.begin() as cx:
        for kind, query in (
            ("TABLE", "SELECT OBJECT_NAME(parent_object_id), name FROM sys.foreign_keys"),
            ("VIEW", "SELECT name, NULL FROM sys.views WHERE is_ms_shipped = 0"),
            ("TABLE", "SELECT name, NULL FROM sys.tables WHERE is_ms_shipped = 0"),
        ):
            for name, constraint in cx.exec_driver_sql(query).all():
                quoted = f'"{name}"'
                dropped = f'ALTER TABLE {quoted} DROP CONSTRAINT "{constraint}"'
                cx.exec_driver_sql(f"DROP {kind} {quoted}" if constraint is None else dropped)


@pytest.fixture(params=["sqlite_shop", "postgres_shop"])
def shop(request: pytest.FixtureRequest) -> Shop:
    """Each shop in turn, filled."""
    shop: Shop = request.getfixturevalue(request.param)
    shop.run(SHOP)
    return shop


EXCLUDE = 'exclude = ["*tmp_*", "*Keyless"]'
SLICES = {"BackupSync__ChunkSize": "1", "BackupSync__SliceSeconds": "0.000001"}


def test_a_set_copies_every_table_that_has_a_key_and_the_rest_fails_alone(shop: Shop) -> None:
    outcomes = shop.sync('exclude = ["*tmp_*"]')
    failed = {table for table, outcome in outcomes.items() if outcome.run.status is Status.FAILED}
    assert failed == {"Keyless"}
    assert outcomes.keys() == {"Customer", "Invoice", "Order Details", "[odd.na[me]] 🎵]", "Keyless"}
    assert isinstance(outcomes["Keyless"].error, SchemaMismatch)
    assert [row[:3] for row in shop.rows('"Order Details"')] == shop.rows('"Order Details"', "source")
    assert shop.column('SELECT DISTINCT "ServiceName" FROM "SyncHistory" ORDER BY 1') == sorted(
        map(shop.name, outcomes)
    )
    again = shop.sync(EXCLUDE)
    assert all(outcome.run.counts.processed == 0 and outcome.error is None for outcome in again.values())


def test_every_way_in_takes_a_set_a_pattern_or_one_service(shop: Shop) -> None:
    shop.sync(EXCLUDE)
    registry = shop.registry(EXCLUDE)
    fitting = [shop.name("Customer"), shop.name("Invoice")]
    assert registry.directory.chosen(f"SHOP/{shop.prefix}*i*") == [*fitting[1:], shop.name("Order Details")]
    assert registry.directory.chosen(shop.name("customer")) == [shop.name("Customer")]
    assert len({frozenset(registry.directory.chosen(name)) for name in ("all", "shop", "shop/*")}) == 1
    answer = http.post_sync(registry, {}, json.dumps({"service": shop.name("C*")}).encode())
    assert [result["ServiceName"] for result in answer.body["Results"]] == [shop.name("Customer")]
    assert "Results" not in http.post_sync_of(registry, shop.name("Customer"), {}, b"").body
    assert len(http.post_sync_of(registry, "shop", {}, b"").body["Results"]) == len(registry.directory.names())
    assert http.post_verify(registry, "shop/*", {}, b"").body["Verified"] is True
    with pytest.raises(UnknownService, match="is a set"):
        registry.get("shop")
    with pytest.raises(UnknownService, match=r"Did you mean \S*Customer"):
        registry.get(shop.name("Custmer"))
    with pytest.raises(UnknownService, match="No service fits"):
        registry.directory.chosen("shop/x*")


def test_a_table_that_is_named_like_the_data_of_a_virtual_table_takes_part(sqlite_shop: Shop) -> None:
    sqlite_shop.run("""
        CREATE VIRTUAL TABLE "Order" USING "fts5" (body); CREATE VIRTUAL TABLE place USING rtree (id, a, b);
        CREATE TABLE "Order_Lines" (id INTEGER PRIMARY KEY); CREATE TABLE order_data_old (id INTEGER PRIMARY KEY);
        CREATE TABLE place_names (id INTEGER PRIMARY KEY)
    """)
    assert sqlite_shop.sync().keys() == {"Order_Lines", "order_data_old", "place_names"}


def test_a_pattern_that_stands_for_nothing_fails_and_the_rest_is_done(shop: Shop) -> None:
    outcomes = shop.sync(EXCLUDE, tables='["*Customer", "*Custmer"]')
    assert outcomes["Customer"].error is None
    error = outcomes["shop"].error
    assert isinstance(error, ConfigError)
    assert "'*Custmer'" in str(error)
    unused = shop.sync(EXCLUDE, '[set.shop.table."Custmer"]', "recycle_days = 1")
    assert "Did you mean" in str(unused["shop"].error)


def test_a_filter_and_a_list_of_columns_choose_what_is_copied(shop: Shop) -> None:
    section = ['[set.shop.table."Customer"]', 'columns = { exclude = ["fax", "Country"] }']
    assert (
        shop.sync(*section, 'where = { Country = ["Germany", "Türkiye"] }', tables='"*Customer"')["Customer"].error
        is None
    )
    assert [row[:2] for row in shop.rows('"Customer"')] == [(1, "Ada"), (2, "Bülent")]
    ranged = shop.sync(*section, "where = { Id = { from = 2, to = 3 } }", tables='"*Customer"')["Customer"].run
    assert (ranged.counts.inserted, ranged.counts.deleted) == (1, 1)
    by_sql = """where_sql = '''"Id" > 1 AND "Name" <> 'a:b%?' '''"""
    assert shop.sync(*section, by_sql, tables='"*Customer"')["Customer"].run.counts.skipped == 2


def test_a_mask_hides_values_of_one_table(shop: Shop) -> None:
    section = ['[set.shop.table."Customer"]', 'mask = { name = { text = "hidden" }, Fax = "null" }']
    without_key = shop.sync(*section)
    assert "BackupMask__Key" in str(without_key["shop"].error)
    assert without_key["Invoice"].error is None
    shop.settings["BackupMask__Key"] = "a key that is long enough"
    assert shop.sync(*section)["Customer"].error is None
    assert {row[1:4] for row in shop.rows('"Customer"')} == {
        ("hidden", None, country) for country in ("Germany", "Türkiye", "Japan")
    }
    of_the_filter = shop.sync(*section, 'where = { Name = "Ada" }')["Customer"].error
    assert "part of the key, the version or the filter" in str(of_the_filter)


def test_a_record_that_leaves_the_filter_is_a_delete_for_guard_and_bin(shop: Shop) -> None:
    section = ['[set.shop.table."Customer"]', "delete_guard_floor = 0"]
    shop.sync(*section, tables='"*Customer"')
    stopped = shop.sync(*section, "where = { Id = 1 }", tables='"*Customer"')["Customer"]
    assert isinstance(stopped.error, GuardTripped)
    assert len(shop.rows('"Customer"')) == 3
    shop.run("""UPDATE "Customer" SET "Country" = 'Japan' WHERE "Id" = 1""")
    left = shop.sync(*section, "max_delete_percent = 90", "where = { Country = 'Japan' }", tables='"*Customer"')
    assert left["Customer"].run.counts.deleted == 1
    assert shop.column('SELECT COUNT(*) FROM "RecycleBin" WHERE "Action" = \'Deleted\'') == [1]


def test_a_filter_that_changes_between_two_slices_of_a_sync_begins_it_anew(
    sqlite_shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqlite_shop.run(SHOP)
    sqlite_shop.settings["BackupSync__ChunkSize"] = "1"
    section = '[set.shop.table."Customer"]', "max_delete_percent = 90"

    sqlite_shop.registry(*section).get("shop/Customer").initialize()

    def killed(*_: object) -> None:
        raise Interrupted("killed")

    for before, after, ids in (("{ above = 1 }", "{ below = 3 }", [1, 2]), ("{ below = 3 }", "{ above = 1 }", [2, 3])):
        registry = sqlite_shop.registry(*section, f"where = {{ Id = {before} }}")
        assert registry.get("shop/Customer").sync(Trigger.CLI, turn=Turn(0)).in_progress  # it has passed one record
        registry = sqlite_shop.registry(*section, f"where = {{ Id = {after} }}")
        [plan] = plan_of(registry, "shop/Customer").services
        assert any("begins from the start" in note for note in plan.notes)
        service = registry.get("shop/Customer")
        with monkeypatch.context() as patch:  # right after it has written that it begins anew
            patch.setattr(schema, "refuse_early", killed)
            assert isinstance(sure(service.resume(Trigger.TIMER)).error, Interrupted)
        resumed = sure(service.resume(Trigger.TIMER))
        assert resumed.error is None, resumed.error
        assert any("others than when the sync began" in note for note in resumed.run.notes)
        assert [row[0] for row in sqlite_shop.rows('"Customer"')] == ids
        [plan] = plan_of(registry, "shop/Customer").services
        assert list(plan.notes) == []
    [plan] = plan_of(sqlite_shop.registry(*section), "shop/Customer").services
    assert any("others than in the last sync" in note for note in plan.notes)


def sure(outcome: Outcome | None) -> Outcome:
    """The outcome of a call that had something to do."""
    assert outcome is not None
    return outcome


def test_a_view_and_a_table_without_a_key_take_part_once_the_file_names_their_key(shop: Shop) -> None:
    keys = ['[set.shop.table."German"]', 'key = ["Id"]', '[set.shop.table."Keyless"]', 'key = ["A", "B"]']
    outcomes = shop.sync(*keys, tables='["*German", "*Keyless"]')
    assert {table: outcome.error for table, outcome in outcomes.items()} == {"German": None, "Keyless": None}
    assert [row[:2] for row in shop.rows('"German"')] == [(1, "Ada")]
    shop.run("""INSERT INTO "Keyless" VALUES ('a', NULL)""")
    without_key = shop.sync(*keys, tables='["*German", "*Keyless"]')["Keyless"]
    assert isinstance(without_key.error, RecordsSetAside)
    assert [key for key, _ in without_key.run.failures] == ['["a", "NULL, row 1"]']
    shop.run("""INSERT INTO "Keyless" VALUES ('a', 'b')""")
    repeated = shop.sync(*keys, tables='["*German", "*Keyless"]')
    assert "several rows with the same A, B" in str(repeated["Keyless"].error)
    assert repeated["German"].error is None
    assert len(shop.rows('"Keyless"')) == 2


def test_a_plan_names_the_views_that_fit_a_pattern_and_are_left_out(shop: Shop) -> None:
    left_out = f"shop: the view {shop.prefix}German is left out. A view takes part once a section names its key."
    named = f'[set.shop.table."{shop.prefix}German"]', 'key = ["Id"]'
    for lines, is_told in ((["exclude = ['*tmp_*']"], True), (["exclude = ['*German']"], False), (named, False)):
        notes = plan_of(shop.registry(*lines), "shop").notes
        assert (left_out in notes) is is_told


def test_a_plan_and_the_first_file_name_what_sqlite_has_beside_tables(sqlite_shop: Shop) -> None:
    """Virtual tables, the tables with their data, and a view that cannot be read."""
    sqlite_shop.run(
        'CREATE VIRTUAL TABLE "Place Names" USING fts5 (body); CREATE VIRTUAL TABLE area USING rtree (id, a, b);'
        'CREATE VIEW "Area of gone" AS SELECT * FROM gone'
    )
    virtual = "the virtual tables Place Names, area are left out. Nothing of a virtual table is copied."
    data = "the tables area_node, area_parent, area_rowid are left out. The virtual table area has its data there."
    notes = plan_of(sqlite_shop.registry(), "shop").notes
    view = "the view Area of gone is left out. SQLite cannot read it: it names a table, a column or a function that is"
    assert {f"shop: {virtual}", f"shop: {data}", f"shop: {view} not there."} <= {*notes}
    text = first_file(sqlite_shop.source, "shop", Limits())
    assert f"\n# T{virtual[1:]}\n# T" in text
    only = plan_of(sqlite_shop.registry(tables='"Place*"'), "shop")  # which stands for nothing
    assert "shop: the virtual table Place Names is left out. Nothing of a virtual table is copied." in only.notes
    notes = plan_of(sqlite_shop.registry('exclude = ["area*"]'), "shop").notes
    assert any("the virtual table Place Names is left out" in note for note in notes)
    assert not any("area" in note.lower() for note in notes)


def test_a_plan_says_what_partitions_and_what_is_no_table_of_the_server_are(postgres_shop: Shop) -> None:
    postgres_shop.run("""
        CREATE TABLE sale (id int PRIMARY KEY) PARTITION BY RANGE (id);
        CREATE TABLE sale_1 PARTITION OF sale FOR VALUES FROM (0) TO (9);
        CREATE TABLE sale_2 PARTITION OF sale FOR VALUES FROM (9) TO (99);
        CREATE MATERIALIZED VIEW total AS SELECT count(*) FROM sale;
        CREATE FOREIGN DATA WRAPPER elsewhere; CREATE SERVER there FOREIGN DATA WRAPPER elsewhere;
        CREATE FOREIGN TABLE far (id int) SERVER there;
        CREATE TABLE void ()
    """)
    plan = plan_of(postgres_shop.registry(EXCLUDE), "shop")
    assert {
        "shop: the partitions public.sale_1, public.sale_2 are left out. What is in a partition is copied with its "
        "table, public.sale.",
        "shop: the materialized view public.total is left out. A materialized view takes part once a section names "
        "its key.",
        "shop: the table public.void is left out. It has no column, so nothing of it can be copied.",
        "shop: the foreign table public.far is left out. A foreign table takes part once a section names its key.",
    } <= {*plan.notes}
    assert "shop/public.sale" in [service.service for service in plan.services]


def test_a_key_beside_a_primary_key_is_refused_for_that_table_alone(shop: Shop) -> None:
    outcomes = shop.sync(EXCLUDE, '[set.shop.table."Customer"]', 'key = ["Name"]')
    assert "has the primary key Id" in str(outcomes["Customer"].error)
    assert outcomes["Invoice"].error is None


@pytest.mark.parametrize(
    ("rule", "taken", "refused"), [("add", True, False), ("ignore", False, False), ("fail", True, True)]
)
def test_a_new_table_is_added_ignored_or_refused(shop: Shop, rule: str, taken: bool, refused: bool) -> None:
    lines = (EXCLUDE, f'on_new_table = "{rule}"')
    assert all(outcome.error is None for outcome in shop.sync(*lines).values())
    shop.run('CREATE TABLE "Later" ("Id" INTEGER PRIMARY KEY)')
    outcomes = shop.sync(*lines)
    assert ("Later" in outcomes) == taken
    assert not taken or (outcomes["Later"].error is not None) == refused
    if taken and (error := outcomes["Later"].error) is not None:
        frames = len([*walk_tb(error.__traceback__)])
        error = shop.sync(*lines)["Later"].error
        assert error is not None
        assert len([*walk_tb(error.__traceback__)]) == frames
    named = shop.sync(*lines, tables='["*Customer", "{}"]'.format(f"{shop.prefix}Later"))
    assert named["Later"].error is None


def test_a_table_that_is_gone_is_kept_and_its_past_can_be_seen(shop: Shop) -> None:
    shop.sync(EXCLUDE)
    shop.run('DROP TABLE "Invoice"')
    outcomes = shop.sync(EXCLUDE)
    assert "Invoice" not in outcomes
    registry = shop.registry(EXCLUDE)
    assert registry.directory.sets["shop"].members.gone == [f"{shop.prefix}Invoice"]
    assert len(shop.rows('"Invoice"')) == 2
    assert registry.get(shop.name("invoice")).past.history(1)[0].counts.inserted == 2
    # The copy of a service of the settings in the same database is none of a table that is gone.
    thing_backup = {"BackupThingDb__ConnectionString": shop.backup, "BackupThingDb__Table": f"{shop.prefix}Invoice"}
    beside = replace(shop, settings=thing_backup | {"SourceThingDb__ConnectionString": f"{shop.source}_other"})
    assert beside.registry(EXCLUDE).directory.sets["shop"].members.gone == []


def test_without_its_source_a_set_fails_table_by_table_and_its_past_can_be_seen(sqlite_shop: Shop) -> None:
    sqlite_shop.run(SHOP)
    sqlite_shop.sync(EXCLUDE)
    lost = Shop(sqlite_shop.source.replace("source.db", "gone.db"), sqlite_shop.backup, "")
    outcomes = lost.sync(EXCLUDE)
    assert {type(outcome.error) for outcome in outcomes.values()} == {SourceMissing}
    assert outcomes.keys() == {"shop", "Customer", "Invoice", "Order Details", "[odd.na[me]] 🎵]"}
    assert sqlite_shop.column('SELECT COUNT(*) FROM "SyncHistory" WHERE "Status" = \'Failed\'') == [4]
    assert [run.status for run in lost.registry(EXCLUDE).get("shop/Customer").past.history(2)] == [
        "Failed",
        "Completed",
    ]


def test_an_open_run_of_a_table_that_is_excluded_now_is_left_alone(sqlite_shop: Shop) -> None:
    sqlite_shop.run(SHOP)
    sqlite_shop.sync(EXCLUDE)
    sqlite_shop.run(
        """UPDATE "SyncHistory" SET "Status" = 'InProgress' WHERE "ServiceName" <> 'shop/Invoice'""", "backup"
    )
    fewer = 'exclude = ["*tmp_*", "*Keyless", "Order*", "odd*"]'
    assert sqlite_shop.registry(fewer).directory.to_look_after() == (["shop/Customer"], [])


def test_two_sets_cannot_share_a_table_of_the_backup(shop: Shop) -> None:
    shop.sync(EXCLUDE)
    again = f"[set.twin]\nsource = '{shop.source}'\nbackup = '{shop.backup}'\ntables = '*Customer'"
    outcomes = shop.registry(EXCLUDE, again).sync("twin", Trigger.CLI)
    assert ["name the same place" in str(outcome.error) for outcome in outcomes] == [True]


def test_a_set_as_one_run_fails_with_the_number_of_those_that_were_done(shop: Shop) -> None:
    run = Run("shop", Trigger.JOB, False, utc_now())
    outcome = shop.registry('exclude = ["*tmp_*"]').sync_as_one(RunSoFar(run), NO_OPTIONS, NOBODY)
    assert isinstance(outcome.error, SetFailed)
    assert f"1 of 5 services of shop failed: {shop.name('Keyless')} (SchemaMismatch). 4 were done." in str(
        outcome.error
    )
    assert (outcome.run.status, outcome.run.counts.inserted) == (Status.FAILED, 8)
    whole = shop.registry(EXCLUDE).sync_as_one(RunSoFar(run), NO_OPTIONS, NOBODY)
    assert (whole.error, whole.run.status, whole.run.counts.skipped) == (None, Status.COMPLETED, 8)


def work_on_set(
    shop: Shop, folder: Path, *lines: str, service: str = "shop", occurrence: str | None = None, **settings: str
) -> tuple[Job, Desk, list[int | None]]:
    """The job of the set, or of another service, as it ended, and its percents after each slice. With an occurrence the
    schedule has queued it."""
    values = {"BackupJobs__File": str(folder / "jobs.db"), "BACKUP_TOML": shop.text(*lines), **settings}
    loaded = load_settings(values)
    desk = open_desk(loaded)
    job = desk.records.enqueue(Request(service), "timer" if occurrence else "http", occurrence=occurrence)
    assert job is not None
    percents = []
    for _ in range(100):
        worked = worker_of(loaded, desk).work(job.job_id)
        assert worked is not None
        percents.append(worked.percent)
        if worked.state is not State.ENQUEUED:
            return worked, desk, percents
    raise AssertionError("it does not end")


@pytest.mark.parametrize("small", [{}, SLICES], ids=["in one go", "in slices"])
def test_a_job_of_a_set_is_one_run_in_the_records_and_the_numbers(
    sqlite_shop: Shop, tmp_path: Path, small: dict[str, str]
) -> None:
    sqlite_shop.run(SHOP)
    job, desk, percents = work_on_set(sqlite_shop, tmp_path, EXCLUDE, **small)
    assert (job.state, job.counts["inserted"], len(percents) > 1) == (State.SUCCEEDED, 8, bool(small))
    assert desk.runs.last_of_each(["shop"])["shop"]["versions"]["records"] == 8  # of all services, whichever slice
    run = desk.runs.get(job.sync_id or "")
    assert run is not None
    assert (run["service"], run["jobId"], run["status"]) == ("shop", job.job_id, "Completed")
    day = RunNumbers(desk.keys).day(date.fromisoformat(run["startedAt"][:10]))
    assert {service: numbers["runs"] for service, numbers in day.items()} == {"shop": 1}


def test_a_job_of_a_set_whose_worker_died_at_once_is_still_one_run(sqlite_shop: Shop, tmp_path: Path) -> None:
    sqlite_shop.run(SHOP)
    settings = load_settings({"BackupJobs__File": str(tmp_path / "jobs.db"), "BACKUP_TOML": sqlite_shop.text(EXCLUDE)})
    desk = open_desk(settings)
    job = desk.records.enqueue(Request("shop"), "http", owner="a process that has died")
    assert job is not None
    begun = new_run_of_several("shop", Trigger.JOB, NO_OPTIONS)
    desk.runs.save(begun, job_id=job.job_id)
    worked = worker_of(settings, open_desk(settings, lambda: utc_now() + 2 * SILENCE)).work(job.job_id)
    assert worked is not None
    assert (worked.state, worked.sync_id, worked.counts["inserted"]) == (State.SUCCEEDED, begun.sync_id, 8)
    assert [run["status"] for run in desk.runs.page(service="shop").runs] == ["Completed"]


def test_a_job_of_a_set_whose_worker_died_later_counts_nothing_twice_and_forgets_no_failure(
    sqlite_shop: Shop, tmp_path: Path
) -> None:
    sqlite_shop.run(SHOP)
    text = sqlite_shop.text('exclude = ["*tmp_*"]')
    values = {"BackupJobs__File": str(tmp_path / "jobs.db"), "BACKUP_TOML": text, **SLICES}
    settings = load_settings(values)
    desk = open_desk(settings)
    job = desk.records.enqueue(Request("shop", force=True), "http")
    assert job is not None
    first = worker_of(settings, desk).work(job.job_id)
    assert first is not None
    dead = desk.records.claim(job.job_id, "a process that has died")
    assert dead is not None
    # By its heartbeats it had written more than the checkpoints of the runs say. The failure may be of its slice, too.
    counts = {**first.counts, "inserted": first.counts["inserted"] + 3}
    assert desk.records.beat(dead, counts=counts, error=None, error_kind=None) is not None
    inserted, job = [first.counts["inserted"]], None
    while job is None or job.state is State.ENQUEUED:
        job = worker_of(settings, open_desk(settings, lambda: utc_now() + 2 * SILENCE)).work(first.job_id)
        assert job is not None
        inserted.append(job.counts["inserted"])
    assert (job.state, inserted[-1], inserted) == (State.FAILED, 8, sorted(inserted))
    run = desk.runs.get(job.sync_id or "")
    assert run is not None
    assert (run["status"], run["error"], job.error_kind) == ("Failed", job.error, "SetFailed")
    assert "1 service of shop failed: shop/Keyless (SchemaMismatch)" in str(job.error)
    assert len(inserted) > 2


def test_a_scheduled_job_of_a_set_purges_and_verifies_each_of_its_services(sqlite_shop: Shop, tmp_path: Path) -> None:
    sqlite_shop.run(SHOP)
    sqlite_shop.sync(EXCLUDE)
    names = sqlite_shop.column('SELECT DISTINCT "ServiceName" FROM "RecycleBin" ORDER BY 1')
    assert len(names) == 4
    verified = """SELECT "ServiceName" FROM "SyncHistory" WHERE "Trigger" = 'verify' AND "Verified" = 1 ORDER BY 1"""
    for occurrence, purged in ((None, False), ("2026-12-01T00:00:00+00:00", True)):
        work_on_set(sqlite_shop, tmp_path, EXCLUDE, "recycle_days = 1e-9", occurrence=occurrence)
        assert sqlite_shop.column('SELECT COUNT(*) FROM "RecycleBin"') == ([0] if purged else [8])
        assert sqlite_shop.column(verified) == (names if purged else [])


def test_a_set_that_http_synced_is_safe_and_has_proven_what_its_services_have(
    sqlite_shop: Shop, tmp_path: Path
) -> None:
    sqlite_shop.run(SHOP)
    values = {"BackupJobs__File": str(tmp_path / "jobs.db"), "BACKUP_TOML": sqlite_shop.text(EXCLUDE)}
    settings = load_settings(values)
    desk = open_desk(settings)
    registry = Registry(settings, watcher=RunKeeper(desk.runs))
    for name in ("all", "shop"):
        registry.sync(name, Trigger.HTTP, wait_seconds=60)
        [row] = shape_overview(desk, settings, ["shop"], None, 10, None)["services"]
        assert (row["state"], row["records"], row["versionsProven"]["verified"]) == ("Safe", 8, True)


def test_masks_without_a_key_name_the_table_that_is_left_out(sqlite_shop: Shop) -> None:
    sqlite_shop.run(SHOP)
    plan = plan_of(sqlite_shop.registry(EXCLUDE, '[set.shop.table."Customer"]', 'mask = { Fax = "hmac" }'), "shop")
    [error] = plan.errors
    assert str(error).startswith("shop/Customer is left out. ")
    assert "BackupMask__Key" in str(error)
    # What is said of tables that are gone, and of other sets with such a name, needs no key.
    sqlite_shop.sync(EXCLUDE)
    sqlite_shop.run('DROP TABLE "Customer"')
    other = f"[set.b]\nsource = '{sqlite_shop.source}'\nbackup = '{sqlite_shop.backup}2'\ntables = 'Invoice'"
    masked = sqlite_shop.registry(EXCLUDE, '[set.shop.table."*"]', 'mask = { Fax = "hmac" }', other)
    assert masked.directory.sets["shop"].members.gone == ["Customer"]
    assert [outcome.error for outcome in masked.sync("b", Trigger.CLI)] == [None]


def test_a_mask_whose_table_is_misspelt_keeps_new_tables_out_of_the_backup(sqlite_shop: Shop) -> None:
    sqlite_shop.run(SHOP)
    lines = (EXCLUDE, '[set.shop.table."Custmer"]', 'columns = { exclude = ["Name"] }')
    own = ('[set.shop.table."Invoice"]', "recycle_days = 3")
    outcomes = sqlite_shop.sync(*lines, *own)
    assert {table for table, outcome in outcomes.items() if outcome.error is None} == {"Invoice"}
    assert "'Custmer' hides values" in str(outcomes["Customer"].error)
    assert sqlite_shop.tables("backup") == ["Invoice", "RecycleBin", "SetCatalog", "SyncHistory"]
    sqlite_shop.sync(EXCLUDE)
    sqlite_shop.run('DROP TABLE "Customer"; CREATE TABLE "Later" ("Id" INTEGER PRIMARY KEY)')
    gone = sqlite_shop.sync(EXCLUDE, '[set.shop.table."Customer"]', lines[2])  # a table that was dropped is no mistake
    assert gone["Later"].error is None


def test_commands_say_which_variables_to_set_and_a_shared_note_once(sqlite_shop: Shop, tmp_path: Path) -> None:
    sqlite_shop.run(SHOP)
    ended = command(tmp_path, {}, "init", "SHOP_SOURCE")
    assert (ended.code, "no environment variable SHOP_SOURCE" in ended.err) == (1, True)
    ended = command(tmp_path, {"SHOP_SOURCE": sqlite_shop.source}, "init", "SHOP_SOURCE")
    assert "Set MAIN_BACKUP to a connection string." in ended.out
    values = {"SHOP_SOURCE": sqlite_shop.source, "MAIN_BACKUP": sqlite_shop.backup}
    planned = command(tmp_path, {"BACKUP_CONFIG": str(tmp_path / "backup.toml"), **values}, "plan")
    assert "services: The backup has no table yet" in planned.out
    assert planned.out.count("no table yet") == 1


def test_a_set_goes_on_in_the_next_slice_and_an_early_failure_is_not_forgotten(
    sqlite_shop: Shop, tmp_path: Path
) -> None:
    sqlite_shop.run(SHOP)
    job, desk, percents = work_on_set(sqlite_shop, tmp_path, 'exclude = ["*tmp_*"]', **SLICES)
    percents_told = [percent for percent in percents[:-1] if percent]
    assert len(percents_told) > 1
    assert percents_told == sorted(percents_told)
    assert job.counts["inserted"] == 8  # those of all slices, once
    assert (job.state, job.error_kind) == (State.FAILED, "SetFailed")
    assert "Keyless" in str(job.error)
    run = desk.runs.get(job.sync_id or "")
    assert run is not None
    assert (run["status"], run["errorKind"], run["error"]) == ("Failed", "SetFailed", job.error)
    names = ['"Customer"', '"Invoice"', '"Order Details"']
    assert [len(sqlite_shop.rows(name)) for name in names] == [3, 2, 2]


def test_a_plan_says_what_a_sync_would_do_and_writes_nothing(shop: Shop) -> None:
    lines = ('exclude = ["*tmp_*"]', '[set.shop.table."Customer"]', "delete_guard_floor = 0")
    before = plan_of(shop.registry(*lines), "shop")
    by_table = {plan.service.removeprefix(f"shop/{shop.prefix}"): plan for plan in before.services}
    assert by_table["Customer"].changes == PlannedChanges(inserts=3, source_records=3)
    assert by_table["Order Details"].key == "Order, Line (unique index one line)"
    assert (by_table["Customer"].key, by_table["Customer"].version) == ("Id (primary key)", "content")
    assert isinstance(by_table["Keyless"].error, SchemaMismatch)
    repeated = shop.registry(lines[0], '[set.shop.table."Keyless"]', 'key = ["A"]')
    [keyless] = plan_of(repeated, shop.name("Keyless")).services
    assert "several rows with the same A" in str(keyless.error)
    assert (keyless.key, by_table["Keyless"].key) == ("A (named; checked at every sync)", "none")
    assert shop.tables("backup") == []
    shop.sync(*lines)
    shop.run('UPDATE "Customer" SET "Name" = \'x\' WHERE "Id" = 1; ALTER TABLE "Invoice" ADD "Paid" INTEGER')
    runs = shop.column('SELECT COUNT(*) FROM "SyncHistory"')
    changed = (*lines, "where = { Id = { to = 1 } }", 'columns = { exclude = ["Fax"] }')
    after = plan_of(shop.registry(*changed), shop.name("*i*"))
    [customer] = plan_of(shop.registry(*changed), shop.name("Customer")).services
    assert customer.changes == PlannedChanges(updates=1, deletes=2, source_records=1, backup_records=3)
    assert (customer.filter, list(customer.left_out)) == ("Id<=1", ["Fax"])
    assert isinstance(customer.error, GuardTripped)
    assert "The guard would stop it" in str(customer.error)
    unlike = (*lines, "max_update_percent = 10")
    [stopped] = plan_of(shop.registry(*unlike), shop.name("Customer")).services
    assert "1 of 3 records would be updated" in str(stopped.error)
    assert any("lacks the column Paid" in note for plan in after.services for note in plan.notes)
    assert shop.column('SELECT COUNT(*) FROM "SyncHistory"') == runs
    assert shape_plan(before).status == 400


def test_a_plan_knows_what_was_deleted_in_the_week_and_fails_as_the_sync_would(shop: Shop) -> None:
    shop.run('CREATE TABLE "Big" ("Id" INTEGER PRIMARY KEY)')
    shop.run(";".join(f'INSERT INTO "Big" VALUES ({number})' for number in range(10)))
    lines = ('[set.shop.table."*Big"]', "delete_guard_floor = 0", "max_delete_percent_per_week = 15")
    shop.sync(*lines, tables='"*Big"')
    for number, stopped in ((1, False), (2, True)):
        shop.run(f'DELETE FROM "Big" WHERE "Id" = {number}')
        plan = plan_of(shop.registry(*lines, "max_delete_percent = 50", tables='"*Big"'), "shop")
        [outcome] = shop.sync(*lines, "max_delete_percent = 50", tables='"*Big"').values()
        assert isinstance(outcome.error, GuardTripped) is stopped
        assert ("MaxDeletePercentPerWeek" in str(plan.services[0].error)) is stopped
        assert (shape_plan(plan).status == 200) is not stopped
        left = 10 - number
        assert plan.services[0].changes == PlannedChanges(deletes=1, source_records=left, backup_records=left + 1)


def test_a_plan_counts_what_another_list_of_columns_or_another_mask_will_update(sqlite_shop: Shop) -> None:
    sqlite_shop.run(SHOP)
    table = '[set.shop.table."Customer"]'
    without, masked = (table, 'columns = { exclude = ["Fax"] }'), (table, 'mask = { Fax = "null" }')
    sqlite_shop.settings["BackupMask__Key"] = "sixteen characters"
    notes = {}
    for name, lines in {"first": without, "new": (), "out": without, "back": (), "mask": masked, "clear": ()}.items():
        plan = plan_of(sqlite_shop.registry(*lines), "shop/Customer").services[0]
        run = sqlite_shop.sync(*lines, name="shop/Customer")["Customer"].run
        assert run.status is Status.COMPLETED
        assert plan.changes is not None
        assert (plan.changes.inserts, plan.changes.updates) == (run.counts.inserted, run.counts.updated), name
        notes[name] = (run.counts.updated, " ".join(plan.notes))
    assert [updated for updated, _ in notes.values()] == [0, 3, 0, 3, 3, 3]
    assert "lacks the column Fax" in notes["new"][1]
    assert "The column Fax is copied again" in notes["back"][1]
    assert "older images are purged" in notes["mask"][1]
    assert "older images are purged" not in notes["clear"][1]


def test_a_plan_names_what_is_masked_and_a_set_without_tables_is_an_error(sqlite_shop: Shop) -> None:
    sqlite_shop.run(SHOP)
    section = ('[set.shop.table."Customer"]', 'mask = { Fax = "null" }')
    settings = {"BACKUP_TOML": sqlite_shop.text(*section), "BackupMask__Key": "sixteen characters"}
    [plan] = plan_of(Registry(load_settings(settings)), "shop/Customer").services
    assert list(plan.masked) == ["Fax (null)"]
    [outcome] = sqlite_shop.sync('exclude = ["*"]').values()
    assert "has no table or container" in str(outcome.error)


def test_columns_that_look_like_a_version_are_named_in_the_plan_and_never_taken(shop: Shop) -> None:
    shop.run('CREATE TABLE "Dated" ("Id" INTEGER PRIMARY KEY, "ModifiedAt" TIMESTAMP, "Conversion" VARCHAR(9))')
    shop.sync(tables='"*Dated"')
    [dated] = plan_of(shop.registry(tables='"*Dated"'), "shop").services
    assert dated.version == "content"
    assert any('version = ["ModifiedAt"]' in note for note in dated.notes)
    section = ('[set.shop.table."Dated"]', 'version = ["modifiedat"]')
    [named] = plan_of(shop.registry(*section, tables='"*Dated"'), "shop").services
    assert named.version == "modifiedat (named)"
    assert not any("may be a version" in note for note in named.notes)


def test_the_first_file_names_what_is_there_and_can_be_read(shop: Shop) -> None:
    shop.run('CREATE TABLE "RecycleBin" ("Id" INTEGER PRIMARY KEY)')  # the app has one of this name beside the copies
    text = first_file(shop.source, "shop", Limits(), variable="SHOP_SOURCE")
    assert f'# [set.shop.table."{shop.prefix}Keyless"]' in text
    assert f"{shop.prefix}Order Details has no primary key. Its key is Order, Line" in text
    view = f"{shop.prefix}German"
    reason = "A view takes part once a section names its key."
    assert f'\n# The view {view} is left out. {reason}\n# [set.shop.table."{view}"]\n# key = ' in text
    assert "\n# consistent = true " in text
    environment = {"SHOP_SOURCE": shop.source, "SHOP_BACKUP": shop.backup}
    registry = Registry(load_settings({"BACKUP_TOML": text, **environment}))
    assert all(outcome.error is None for outcome in registry.sync("shop", Trigger.CLI))


def test_names_that_differ_only_in_case_are_two_services_where_the_server_has_both(postgres_shop: Shop) -> None:
    postgres_shop.run('CREATE TABLE "Pair" (id int PRIMARY KEY); CREATE TABLE pair (id int PRIMARY KEY)')
    postgres_shop.run('INSERT INTO "Pair" VALUES (1); INSERT INTO pair VALUES (2)')
    outcomes = postgres_shop.sync('[set.shop.table."public.Pair"]', "where = { id = 1 }")
    assert {table: outcome.error for table, outcome in outcomes.items()} == {"Pair": None, "pair": None}
    assert [postgres_shop.rows(name)[0][0] for name in ('"Pair"', "pair")] == [1, 2]  # the filter is of one alone
    assert postgres_shop.registry().directory.chosen("shop/public.pair") == ["shop/public.pair"]


def test_tables_of_several_schemas_share_one_history(postgres_shop: Shop) -> None:
    postgres_shop.run("CREATE SCHEMA a; CREATE SCHEMA b; CREATE TABLE a.t (id int PRIMARY KEY)")
    postgres_shop.run("CREATE TABLE b.t (id int PRIMARY KEY); INSERT INTO b.t VALUES (7)")
    outcomes = postgres_shop.sync()
    assert [outcome.error for outcome in outcomes.values()] == [None, None]
    assert postgres_shop.rows("b.t")[0][0] == 7
    histories = "SELECT table_schema FROM information_schema.tables WHERE table_name = 'SyncHistory'"
    assert postgres_shop.column(histories) == ["public"]


def test_a_set_of_containers_copies_those_that_fit_and_follows_its_filter(
    cosmos_server: str, cosmos_server_backup: str
) -> None:
    database = f"shop{uuid4().hex[:8]}"
    with cosmos_client(cosmos_server) as client:
        source = client.create_database(database)
        for name in ("orders", "cart", "cart-old", "other"):
            container = source.create_container(name, PartitionKey("/pk"))
            container.upsert_item({"id": "1", "pk": "a", "type": {"is": "Order"}})
            container.upsert_item({"id": "2", "pk": "a", "type": {"is": "Draft"}})
            container.upsert_item({"id": "3", "pk": "a", "type": "Order", "type.is": "Order"})
    text = f"""
[set.shop]
source = '{cosmos_server}'
backup = '{cosmos_server_backup}'
database = '{database}'
containers = ["orders", "cart*", "nothing*"]
exclude = ["*-old"]
where = {{ orders = {{ "type.is" = KIND }} }}
"""

    def sync(kind: str) -> dict[str, Outcome]:
        registry = Registry(load_settings({"BACKUP_TOML": text.replace("KIND", kind)}))
        return {outcome.run.service: outcome for outcome in registry.sync("shop", Trigger.CLI)}

    first = sync("'Order'")
    assert first.keys() == {"shop", "shop/orders", "shop/cart"}
    assert isinstance(first["shop"].error, ConfigError)
    assert (first["shop/orders"].run.counts.inserted, first["shop/cart"].run.counts.inserted) == (1, 3)
    other = sync("'Draft'")["shop/orders"].run.counts
    assert (other.inserted, other.deleted) == (1, 1)
    both = sync("['Order', 'Draft']")
    assert (both["shop/orders"].run.counts.inserted, both["shop/cart"].run.counts.processed) == (1, 0)
    [plan] = plan_of(Registry(load_settings({"BACKUP_TOML": text.replace("KIND", "'Draft'")})), "shop/orders").services
    assert (plan.key, plan.version, plan.changes) == (
        *("partition key, id", "_etag"),
        PlannedChanges(deletes=1, source_records=1, backup_records=2),
    )
    left = sync("'Draft'")["shop/orders"]
    assert (left.error, left.run.counts.deleted) == (None, 1)


def test_another_filter_finds_as_many_documents_of_the_same_seconds(
    cosmos_server: str, cosmos_server_backup: str
) -> None:
    database = f"shop{uuid4().hex[:8]}"

    def registry_for(kind: str) -> Registry:
        text = f"""
[set.shop]
source = '{cosmos_server}'
backup = '{cosmos_server_backup}'
database = '{database}'
containers = "orders"
where = {{ orders = {{ type = ["{kind}", "Both"] }} }}
"""
        return Registry(load_settings({"BACKUP_TOML": text, "BackupSync__OverlapSeconds": "0"}))

    def sync(kind: str) -> Run:
        [outcome] = registry_for(kind).sync("shop", Trigger.CLI)
        assert outcome.error is None, outcome.error
        return outcome.run

    with cosmos_client(cosmos_server) as client:
        container = client.create_database(database).create_container("orders", PartitionKey("/pk"))

        def written(number: str, kind: str) -> int:
            return int(container.upsert_item({"id": number, "pk": "a", "type": kind})["_ts"])

        while written("1", "Order") != (second := written("2", "Draft")):
            pass
        while written("3", "Both") == second:  # so that the last sync's watermark lies behind the first two
            pass
    assert sync("Order").counts.inserted == 2
    [plan] = plan_of(registry_for("Draft"), "shop").services
    assert plan.changes == PlannedChanges(inserts=1, deletes=1, source_records=2, backup_records=2)
    counts = sync("Draft").counts
    assert (counts.inserted, counts.deleted, counts.skipped) == (1, 1, 1)
    assert sync("Draft").counts.processed == 0
