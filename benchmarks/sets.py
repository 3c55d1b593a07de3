"""A set of many small tables of which nothing has changed: its sync beside a count and a sum of each of its tables."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import sqlalchemy as sa

from backup.config.settings import load_settings
from backup.core.run_values import Trigger
from backup.services.registry import Registry
from benchmarks.engines.base import EngineMissing
from benchmarks.jobs import EngineName

TABLES, ROWS = 100, 1_000


@dataclass(frozen=True)
class UnchangedSet:
    """Medians of a set of which nothing has changed.

    `floor_seconds`: COUNT(*) and SUM(Version) of each table on both sides, over a connection a side that is open.
    `statements` of a table: on both sides, with history. `connections`: those that a sync opened, of both sides.
    """

    tables: int
    rows: int
    sync_seconds: float
    floor_seconds: float
    statements: float
    connections: int


def unchanged_set(engine: EngineName, folder: Path, repeat: int) -> UnchangedSet:
    """Fills the tables, syncs them twice, and then measures the sync and the floor in turns. Raises EngineMissing for
    an engine on which this is not measured, or without a server."""
    logging.getLogger("backup").setLevel(logging.ERROR)
    with _databases(engine, folder) as (source, backup):
        names = [f"t{number:03}" for number in range(TABLES)]
        _fill(source, names)
        sections = "".join(f'[set.bench.table."{name}"]\nversion = "Version"\n' for name in names)
        text = f"[set.bench]\nsource = '{source}'\nbackup = '{backup}'\ntables = '*t???'\n{sections}"

        def sync() -> None:
            outcomes = Registry(load_settings({"BACKUP_TOML": text})).sync("bench", Trigger.CLI)
            failed = [outcome.error for outcome in outcomes if outcome.error is not None]
            if failed or len(outcomes) != TABLES:
                raise RuntimeError(f"{len(outcomes)} of {TABLES} tables were synced; {failed[:1]}")

        sync()
        statements, connections = _counted(sync)
        with ExitStack() as stack:
            sides = [stack.enter_context(_engine(url).connect()) for url in (source, backup)]

            def floor() -> None:
                for name in names:
                    for side in sides:
                        rows = side.exec_driver_sql(f'SELECT COUNT(*), SUM("Version") FROM {name}').one()[0]
                        if rows != ROWS:
                            raise RuntimeError(f"{name} has {rows} rows")

            floor()
            turns = [(_seconds(sync), _seconds(floor)) for _ in range(repeat)]
    syncs, floors = zip(*turns, strict=True)
    return UnchangedSet(TABLES, ROWS, median(syncs), median(floors), statements / TABLES, connections)


@contextmanager
def _databases(engine: EngineName, folder: Path) -> Iterator[tuple[str, str]]:
    if engine == "sqlite":
        folder = folder / "set"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        yield f"sqlite:///{folder}/source.db", f"sqlite:///{folder}/backup.db"
        shutil.rmtree(folder)
        return
    if engine != "postgresql":
        raise EngineMissing("the workload set is measured on sqlite and postgresql")
    from tests.emulators.servers import ServerMissing, postgres, postgres_database

    try:
        with postgres() as server, postgres_database(server) as source, postgres_database(server) as backup:
            yield source, backup
    except ServerMissing as missing:
        raise EngineMissing(str(missing)) from None


def _engine(url: str) -> sa.Engine:
    return sa.create_engine(url, poolclass=sa.NullPool)


def _fill(source: str, names: list[str]) -> None:
    with _engine(source).begin() as cx:
        for name in names:
            table = sa.table(name, *map(sa.column, ("Id", "Name", "Version")))
            columns = '"Id" INTEGER PRIMARY KEY, "Name" VARCHAR(40), "Version" BIGINT NOT NULL'
            cx.exec_driver_sql(f"CREATE TABLE {name} ({columns})")
            cx.execute(table.insert(), [{"Id": n, "Name": f"name {n}", "Version": n % 97} for n in range(ROWS)])


def _seconds(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _counted(work: Callable[[], None]) -> tuple[int, int]:
    """The number of statements that the work sends, and of connections that it opens."""
    statements, connections = list[None](), list[None]()  # appended to by several threads

    def sent(*_: Any) -> None:
        statements.append(None)

    def opened(*_: Any) -> None:
        connections.append(None)

    sa.event.listen(sa.Engine, "before_cursor_execute", sent)
    sa.event.listen(sa.Pool, "connect", opened)
    try:
        work()
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", sent)
        sa.event.remove(sa.Pool, "connect", opened)
    return len(statements), len(connections)
