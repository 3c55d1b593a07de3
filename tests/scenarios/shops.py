"""A shop with tables of many kinds, as a set on each kind of server."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from backup.config.settings import load_settings
from backup.core.run_values import Trigger
from backup.jobs.job import Job, Request, State
from backup.jobs.job_queue import JobQueue, open_job_queue
from backup.jobs.worker import worker_of
from backup.runs.outcome import Outcome
from backup.services.registry import Registry
from tests.contract.benches import SQL_SERVER
from tests.scenarios import places

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


IN_FILES = pytest.mark.parametrize("shop", ["sqlite_shop"], indirect=True)
"""For what is no matter of the engine: `shop` is the one in files alone."""
SHOPS = ["sqlite_shop", "postgres_shop", *(["mssql_shop"] if SQL_SERVER else [])]
"""SQL Server is left out without a server: test_sqlserver_types.py says so once."""


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


EXCLUDE = 'exclude = ["*tmp_*", "*Keyless"]'
SLICES = {"BackupSync__ChunkSize": "1", "BackupSync__SliceSeconds": "0.000001"}


def work_on_set(
    shop: Shop, folder: Path, *lines: str, service: str = "shop", occurrence: str | None = None, **settings: str
) -> tuple[Job, JobQueue, list[int | None]]:
    """The job of the set, or of another service, as it ended, and its percents after each slice. With an occurrence the
    schedule has queued it."""
    values = {"BackupJobs__File": str(folder / "jobs.db"), "BACKUP_TOML": shop.text(*lines), **settings}
    loaded = load_settings(values)
    job_queue = open_job_queue(loaded)
    job = job_queue.records.enqueue(Request(service), "timer" if occurrence else "http", occurrence=occurrence)
    assert job is not None
    percents = []
    for _ in range(100):
        worked = worker_of(loaded, job_queue).work(job.job_id)
        assert worked is not None
        percents.append(worked.percent)
        if worked.state is not State.ENQUEUED:
            return worked, job_queue, percents
    raise AssertionError("it does not end")
