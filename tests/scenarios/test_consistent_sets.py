"""A set with `consistent = true`: its tables are read as of one moment, or their runs say that they were not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa

from backup.config.settings import load_settings
from backup.core.errors import ConfigError, Interrupted, RecordsSetAside, StoreError
from backup.core.model import utc_now
from backup.core.run_values import Run, Trigger
from backup.doctor.examination import examine
from backup.doctor.findings import Grade
from backup.entry.answers import result_of
from backup.entry.command_line.outcomes import show_outcomes
from backup.jobs.job import Request, State
from backup.jobs.job_queue import open_job_queue
from backup.jobs.worker import worker_of
from backup.runs.outcome import NOBODY, Observer, Outcome
from backup.services.service import Options
from backup.services.service_plans import plan_of
from backup.services.set_snapshot import NOT_ONE_MOMENT
from backup.stores.sql.engines import Dialect
from backup.stores.sql.engines.described import Described
from backup.stores.sql.engines.postgresql.dialect import PostgresqlDialect
from backup.stores.sql.engines.sqlite.dialect import SqliteDialect
from backup.stores.sql.engines.tables import TableName
from backup.stores.sql.many_tables import ManyTables
from tests.scenarios import places
from tests.scenarios.shops import Shop, work_on_set

CONSISTENT = "consistent = true"
TABLES = """
CREATE TABLE "Purse" ("Id" INTEGER PRIMARY KEY, "Coins" INTEGER NOT NULL);
CREATE TABLE "Safe" ("Id" INTEGER PRIMARY KEY, "Coins" INTEGER NOT NULL);
INSERT INTO "Purse" VALUES (1, 50), (2, 10), (3, 10), (4, 10), (5, 10), (6, 10), (7, 10), (8, 10);
INSERT INTO "Safe" VALUES (1, 50), (2, 30)
"""
COINS = 'SELECT (SELECT sum("Coins") FROM "Purse") + (SELECT sum("Coins") FROM "Safe")'


class Mover(Observer):
    """Somebody who carries coins from one table into the other whenever a sync of a table begins. All of them together
    never change."""

    def __init__(self, shop: Shop) -> None:
        self.shop, self.moved = shop, 0

    def started(self, run: Run) -> None:
        self.moved += 1
        self.shop.run(
            'UPDATE "Purse" SET "Coins" = "Coins" - 7 WHERE "Id" = 1;'
            'UPDATE "Safe" SET "Coins" = "Coins" + 7 WHERE "Id" = 1;'
            'INSERT INTO "Safe" SELECT (SELECT max("Id") FROM "Safe") + 1, "Coins" FROM "Purse" '
            'WHERE "Id" = (SELECT max("Id") FROM "Purse");'
            'DELETE FROM "Purse" WHERE "Id" = (SELECT max("Id") FROM "Purse")'
        )


@pytest.fixture
def wal_shop(sqlite_shop: Shop) -> Shop:
    """An empty shop whose source is a file in WAL mode."""
    with places.engine(sqlite_shop.source).connect() as cx:
        cx.exec_driver_sql("PRAGMA journal_mode = WAL")
    return sqlite_shop


@pytest.fixture
def file_shop(wal_shop: Shop) -> Shop:
    """Two tables in a file, of which coins go from one into the other."""
    wal_shop.run(TABLES)
    return wal_shop


@pytest.fixture
def server_shop(postgres_shop: Shop) -> Shop:
    """The same tables on a server."""
    postgres_shop.run(TABLES)
    return postgres_shop


@pytest.fixture(params=["file_shop", "server_shop"])
def shop(request: pytest.FixtureRequest) -> Shop:
    """Each of both in turn."""
    shop: Shop = request.getfixturevalue(request.param)
    return shop


def synced(shop: Shop, observer: Observer = NOBODY, *lines: str, name: str = "shop", **options: Any) -> list[Outcome]:
    registry = shop.registry("services_at_once = 1", *(lines or [CONSISTENT]))
    return registry.sync(name, Trigger.CLI, Options(**options), observer)


def test_a_writer_that_keeps_an_invariant_over_two_tables_finds_it_kept_in_the_backup(shop: Shop) -> None:
    for _ in range(2):  # a first copy, then changes of it
        mover = Mover(shop)
        outcomes = synced(shop, mover)
        assert mover.moved == 2
        assert [outcome.error for outcome in outcomes] == [None, None]
        assert all(outcome.run.verified for outcome in outcomes)
        assert shop.column(COINS) == shop.column(COINS, "source") == [200]
        [moment] = {outcome.run.read_as_of for outcome in outcomes}
        assert moment is not None
        assert abs((utc_now() - moment).total_seconds()) < 300
        assert [result_of(outcome.run)["ReadAsOf"] for outcome in outcomes] == [
            result_of(outcomes[0].run)["ReadAsOf"]
        ] * 2
        for outcome in outcomes:
            past = shop.registry(CONSISTENT).get(outcome.run.service).past
            assert past.history(1)[0].read_as_of == outcome.run.read_as_of
    # The same without the option tears them apart: so the writer is one that can.
    outcomes = synced(shop, Mover(shop), "# not consistent")
    assert shop.column(COINS) != shop.column(COINS, "source")
    assert {outcome.run.read_as_of for outcome in outcomes} == {None}


class Calls(Observer):
    """Calls something when the run of the table begins."""

    def __init__(self, table: str, call: Callable[[], None]) -> None:
        self.table, self.call = table, call

    def started(self, run: Run) -> None:
        if run.service.endswith(self.table):
            self.call()


def moments(outcomes: list[Outcome]) -> dict[str, bool]:
    """Whether each table was read as of the set's moment. Every one that was not says why."""
    for outcome in outcomes:
        excuses = [note for note in outcome.run.notes if note.startswith(NOT_ONE_MOMENT)]
        assert bool(excuses) != (outcome.run.read_as_of is not None), outcome
    names = [outcome.run.service.rpartition(".")[2].rpartition("/")[2] for outcome in outcomes]
    return {name: outcome.run.read_as_of is not None for name, outcome in zip(names, outcomes, strict=True)}


def nothing_is_held(shop: Shop) -> bool:
    """Whether the source keeps nothing for a reader any more."""
    if shop.source.startswith("sqlite"):
        shop.run('UPDATE "Purse" SET "Coins" = "Coins" + 1')
        shop.run('UPDATE "Purse" SET "Coins" = "Coins" - 1')
        with places.engine(shop.source).connect() as cx:
            cx.exec_driver_sql("PRAGMA busy_timeout = 0")
            return [*cx.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()] == [0, 0, 0]
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'backup' "
    return shop.column(query + "AND (xact_start IS NOT NULL OR backend_xmin IS NOT NULL)", "source") == [0]


def test_nothing_is_held_once_the_source_is_read_whatever_happened(shop: Shop) -> None:
    held = []
    synced(shop, Calls("Safe", lambda: held.append(nothing_is_held(shop))))
    assert held == [False]
    assert nothing_is_held(shop)

    def interrupt() -> None:
        raise Interrupted

    outcomes = synced(shop, Calls("Purse", interrupt), force=True)
    assert any(isinstance(outcome.error, Interrupted) for outcome in outcomes)
    assert nothing_is_held(shop)
    assert plan_of(shop.registry(CONSISTENT), "shop").notes[-1].endswith("reads its tables as of one moment.")
    assert nothing_is_held(shop)


def test_the_look_at_unchanged_tables_sees_the_same_moment(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    synced(shop)
    describe = ManyTables.describe

    def then_describe(tables: ManyTables, names: Sequence[TableName]) -> Sequence[Described | None]:
        shop.run('DELETE FROM "Purse"')  # the snapshot has begun
        return describe(tables, names)

    monkeypatch.setattr(ManyTables, "describe", then_describe)
    started: list[str] = []
    outcomes = synced(shop, Calls("", lambda: started.append("a run of its own")))
    assert moments(outcomes) == {"Purse": True, "Safe": True}
    assert (started, shop.column(COINS)) == ([], [200])
    [moment] = {outcome.run.read_as_of for outcome in outcomes}
    assert moment is not None


def test_a_look_that_loses_the_snapshot_settles_nothing(file_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    synced(file_shop)
    describe = ManyTables.describe

    def lose_and_describe(tables: ManyTables, names: Sequence[TableName]) -> Sequence[Described | None]:
        if tables.snapshot is not None:
            tables.snapshot.snapshot.lose("somebody ended it")
        return describe(tables, names)

    monkeypatch.setattr(ManyTables, "describe", lose_and_describe)
    started: list[str] = []
    outcomes = synced(file_shop, Calls("", lambda: started.append("a run of its own")))
    assert moments(outcomes) == {"Purse": False, "Safe": False}
    assert len(started) == 2


def test_what_is_not_a_sync_of_the_whole_set_says_so(file_shop: Shop, tmp_path: Path) -> None:
    synced(file_shop)
    for name in ("Purse", "P*"):
        assert moments(synced(file_shop, name=file_shop.name(name))) == {"Purse": False}
    outcomes = synced(file_shop, limit=1, force=True)
    assert moments(outcomes)["Purse"] is False
    assert moments(synced(file_shop, name="all", dry_run=True)) == {"Purse": True, "Safe": True}
    settings = load_settings({"BackupJobs__File": str(tmp_path / "jobs.db"), "BACKUP_TOML": file_shop.text(CONSISTENT)})
    job_queue = open_job_queue(settings)
    job = job_queue.records.enqueue(Request(file_shop.name("Safe")), "http")
    assert job is not None
    ended = worker_of(settings, job_queue).work(job.job_id)
    assert ended is not None
    assert ended.state is State.SUCCEEDED
    notes = file_shop.registry(CONSISTENT).get(file_shop.name("Safe")).past.history(1)[0].notes
    assert notes == (f"{NOT_ONE_MOMENT}: only a sync of the whole set is.",)


def test_a_job_of_the_set_is_one_moment_if_it_ends_within_one_slice(file_shop: Shop, tmp_path: Path) -> None:
    for folder, small, note in (
        ("whole", {}, "Its tables were read as of one moment: "),
        (
            "parts",
            {"BackupSync__ChunkSize": "2", "BackupSync__SliceSeconds": "1e-6"},
            "Its tables were not all read as",
        ),
    ):
        (tmp_path / folder).mkdir()
        file_shop.run('UPDATE "Purse" SET "Coins" = "Coins" + 1')
        job, job_queue, slices = work_on_set(file_shop, tmp_path / folder, CONSISTENT, **small)
        assert (job.state, len(slices) > 1) == (State.SUCCEEDED, bool(small))
        run = job_queue.runs.get(job.sync_id or "")
        assert run is not None
        assert run["notes"][-1].startswith(note)
        assert ("readAsOf" in run) != bool(small)
    entries = [
        file_shop.registry(CONSISTENT).get(file_shop.name(name)).past.history(1)[0] for name in ("Purse", "Safe")
    ]
    assert entries[0].notes[-1] == f"{NOT_ONE_MOMENT}: the sync took more than one call."
    assert entries[0].read_as_of is None
    assert nothing_is_held(file_shop)


def test_a_run_that_was_left_in_the_middle_is_compared_again_as_of_the_new_moment(file_shop: Shop) -> None:
    file_shop.settings.update({"BackupSync__ChunkSize": "2", "BackupSync__Parallelism": "1"})

    class Leaves(Observer):
        def progress(self, service: str, counts: Any) -> None:
            if service.endswith("Purse") and counts.seen > 2:
                raise Interrupted

    left = synced(file_shop, Leaves())
    assert [outcome.in_progress for outcome in left if outcome.run.service.endswith("Purse")] == [True]
    file_shop.run('UPDATE "Purse" SET "Coins" = "Coins" - 5 WHERE "Id" = 1; UPDATE "Safe" SET "Coins" = "Coins" + 5')
    file_shop.run('UPDATE "Safe" SET "Coins" = "Coins" - 5 WHERE "Id" = 2')
    mover = Mover(file_shop)
    outcomes = synced(file_shop, mover)
    assert moments(outcomes) == {"Purse": True, "Safe": True}
    assert file_shop.column(COINS) == [200]
    assert [outcome.run.sync_id for outcome in outcomes if outcome.run.service.endswith("Purse")] == [
        outcome.run.sync_id for outcome in left if outcome.run.service.endswith("Purse")
    ]


def test_a_copy_that_is_newer_than_the_moment_goes_back_to_it(file_shop: Shop) -> None:
    def sync_the_other_alone() -> None:
        file_shop.run('UPDATE "Purse" SET "Coins" = "Coins" - 7 WHERE "Id" = 1')
        file_shop.run('UPDATE "Safe" SET "Coins" = "Coins" + 7 WHERE "Id" = 1; INSERT INTO "Safe" VALUES (3, 0)')
        synced(file_shop, name="shop/Safe")

    synced(file_shop)
    file_shop.run('UPDATE "Purse" SET "Coins" = "Coins" - 1; UPDATE "Safe" SET "Coins" = "Coins" + 4')
    outcomes = synced(file_shop, Calls("Purse", sync_the_other_alone))
    assert moments(outcomes) == {"Purse": True, "Safe": True}
    assert [outcome.run.counts.deleted for outcome in outcomes] == [0, 1]
    assert file_shop.column(COINS) == [200]
    assert file_shop.column('SELECT "Coins" FROM "Safe" WHERE "Id" = 1') == [54]


def test_the_command_line_says_as_of_when(file_shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = synced(file_shop)
    show_outcomes(None, outcomes)
    moment = outcomes[0].run.read_as_of
    assert moment is not None
    assert f"All were read as of one moment: {moment:%Y-%m-%d %H:%M:%S}." in capsys.readouterr().out


def examined(shop: Shop) -> tuple[Grade, str]:
    """What the doctor says of reading the set as of one moment."""
    findings = examine(load_settings({"BACKUP_TOML": shop.text(CONSISTENT)}))
    [finding] = [finding for finding in findings if finding.check == "one moment"]
    return finding.grade, finding.message


def test_a_file_whose_writers_would_have_to_wait_is_refused_with_what_to_do(sqlite_shop: Shop) -> None:
    sqlite_shop.run(TABLES)
    plan = plan_of(sqlite_shop.registry(CONSISTENT), "shop")
    [error] = plan.errors
    assert "is not in WAL mode (delete)" in str(error)
    assert examined(sqlite_shop) == (Grade.FAILED, str(error))
    outcomes = synced(sqlite_shop)
    assert [type(outcome.error) for outcome in outcomes] == [ConfigError] * 2
    assert all("journal_mode" in (outcome.error.hint if outcome.error else "") for outcome in outcomes)
    immutable = Shop(f"{sqlite_shop.source}?immutable=1", sqlite_shop.backup, "")
    assert moments(synced(immutable)) == {"Purse": True, "Safe": True}
    assert examined(immutable) == (Grade.OK, "all tables of the set can be read as of one moment")


def test_a_text_that_is_no_utf_8_is_read_in_the_snapshot_too(wal_shop: Shop) -> None:
    wal_shop.run("CREATE TABLE a (id INTEGER PRIMARY KEY, t TEXT); INSERT INTO a VALUES (1, CAST(x'ff41' AS TEXT))")
    wal_shop.run("CREATE TABLE b (id INTEGER PRIMARY KEY, t TEXT); INSERT INTO b VALUES (1, 'ä')")
    assert moments(synced(wal_shop)) == {"a": True, "b": True}
    assert wal_shop.column("SELECT hex(t) FROM a UNION ALL SELECT hex(t) FROM b") == ["FF41", "C3A4"]


def held_by(shop: Shop) -> str:
    return "FROM pg_locks WHERE mode = 'AccessShareLock' AND relation = 'public.\"Purse\"'::regclass"


def test_a_snapshot_that_is_lost_is_never_claimed(server_shop: Shop) -> None:
    shop = server_shop
    shop.run('CREATE TABLE "Third" ("Id" INTEGER PRIMARY KEY)')
    shop.settings["BackupRetry__BaseSeconds"] = "0"
    assert moments(synced(shop)) == {"Purse": True, "Safe": True, "Third": True}
    shop.run('UPDATE "Purse" SET "Coins" = 9; UPDATE "Safe" SET "Coins" = 9; INSERT INTO "Third" VALUES (1)')
    kill = f"SELECT pg_terminate_backend(pid) {held_by(shop)}"
    order = [outcome.run.service.rpartition(".")[2] for outcome in synced(shop, dry_run=True)]
    outcomes = synced(shop, Calls(order[1], lambda: shop.run(kill)))
    assert [outcome.error for outcome in outcomes] == [None] * 3
    assert moments(outcomes) == {order[0]: True, order[1]: False, order[2]: False}
    assert "what held the source's state is gone" in outcomes[1].run.notes[-1]
    assert shop.rows('"Purse"')[0][:2] == (1, 9)


def test_a_table_of_which_a_record_was_set_aside_claims_nothing(server_shop: Shop) -> None:
    shop = server_shop
    synced(shop)
    shop.run('ALTER TABLE "Purse" ADD CHECK ("Coins" < 100)', "backup")
    shop.run('UPDATE "Purse" SET "Coins" = 100 WHERE "Id" = 1')
    outcomes = {outcome.run.service: outcome for outcome in synced(shop)}
    purse, safe = outcomes["shop/public.Purse"], outcomes["shop/public.Safe"]
    assert isinstance(purse.error, RecordsSetAside)
    assert (purse.run.read_as_of is None, safe.run.read_as_of is None) == (True, False)


def test_nobody_can_empty_a_table_that_a_snapshot_would_then_show_as_empty(server_shop: Shop) -> None:
    shop = server_shop
    refused: list[str] = []

    def truncate() -> None:
        try:
            shop.run("SET LOCAL lock_timeout = '50ms'; TRUNCATE \"Safe\"")
        except sa.exc.OperationalError as error:
            refused.append(str(error))

    assert moments(synced(shop, Calls("Purse", truncate))) == {"Purse": True, "Safe": True}
    assert ["lock timeout" in text for text in refused] == [True]
    assert shop.column(COINS) == [200]


def test_a_table_that_no_snapshot_can_read_fails_alone_and_the_plan_says_so(server_shop: Shop) -> None:
    role = f"reader_{uuid4().hex}"
    server_shop.run('CREATE MATERIALIZED VIEW "Sums" AS SELECT 1 AS "Id", count(*) AS "Number" FROM "Purse"')
    server_shop.run('CREATE VIEW "Rich" AS SELECT * FROM "Safe"; CREATE TABLE "Denied" ("Id" INTEGER PRIMARY KEY)')
    server_shop.run(f'CREATE ROLE {role} LOGIN PASSWORD \'secret\'; GRANT SELECT ON "Purse", "Rich", "Sums" TO {role}')
    login = sa.make_url(server_shop.source).set(username=role, password="secret")
    shop = replace(server_shop, source=login.render_as_string(hide_password=False))
    sections = ['exclude = "*Safe"', *(f'[set.shop.table."public.{name}"]\nkey = "Id"' for name in ("Sums", "Rich"))]
    try:
        outcomes = synced(shop, NOBODY, CONSISTENT, *sections)
        failed = {outcome.run.service: outcome.error for outcome in outcomes if outcome.error is not None}
        assert {service: type(error) for service, error in failed.items()} == {
            "shop/public.Denied": StoreError,
            "shop/public.Sums": StoreError,
        }
        assert "permission denied for table Denied" in str(failed["shop/public.Denied"])
        assert moments([outcome for outcome in outcomes if outcome.error is None]) == {"Purse": True, "Rich": True}
        planned = plan_of(shop.registry(CONSISTENT, *sections), "shop").errors
        assert {*map(str, planned)} == {*map(str, failed.values())}
    finally:
        server_shop.run(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_a_relay_reads_in_the_snapshot_or_not_at_all(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    relayed: list[str] = []

    def counted(relay: Callable[..., Any]) -> Callable[..., Any]:
        def relay_and_note(dialect: Dialect, *given: Any) -> Any:
            relayed.append(dialect.kind)
            return relay(dialect, *given)

        return relay_and_note

    for engine in (SqliteDialect, PostgresqlDialect):
        monkeypatch.setattr(engine, "relay", counted(engine.relay))
    assert moments(synced(shop, Mover(shop))) == {"Purse": True, "Safe": True}
    assert relayed == (["postgresql", "postgresql"] if shop.prefix else [])
    assert shop.column(COINS) == [200]
