"""The fixture `bench`: the suite runs once for each kind of store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
import sqlalchemy as sa

from backup.stores.sql.engines import Dialect
from backup.stores.sql.engines.mssql.dialect import SqlServerDialect
from backup.stores.sql.engines.postgresql.dialect import PostgresqlDialect
from backup.stores.sql.engines.sqlite.dialect import SqliteDialect
from tests.contract.benches import (
    ROLES,
    SQL_SERVER,
    Bench,
    CosmosBench,
    PostgresBench,
    Role,
    ServerBench,
    SqlBench,
    SqliteBench,
    SqlServerBench,
    drop_database,
    made_databases,
)
from tests.contract.memory_bench import MemoryBench
from tests.emulators.partitioned import Partitioned

Served = TypeVar("Served", bound=ServerBench)
# Without servers for it, SQL Server is left out here; test_sqlserver_types.py says so once, instead of a hundred times.
SQL_KINDS = ("sqlite", "postgresql", "mssql") if SQL_SERVER else ("sqlite", "postgresql")


@pytest.fixture(params=("memory", *SQL_KINDS, "cosmos"))
def bench(request: pytest.FixtureRequest) -> Bench:
    """Each kind of store in turn."""
    chosen: Bench = request.getfixturevalue(f"{request.param}_bench")
    return chosen


@pytest.fixture(params=SQL_KINDS)
def sql_bench(request: pytest.FixtureRequest) -> SqlBench:
    """Each kind of SQL store in turn."""
    chosen: SqlBench = request.getfixturevalue(f"{request.param}_bench")
    return chosen


@pytest.fixture
def memory_bench() -> MemoryBench:
    """The store in memory, on a server of this test's own."""
    return MemoryBench()


@pytest.fixture
def sqlite_bench(tmp_path: Path) -> Iterator[SqliteBench]:
    """SQLite, in files of this test's own."""
    made = SqliteBench(tmp_path)
    yield made
    made.close()


@pytest.fixture
def postgresql_bench(postgres_databases: Mapping[Role, str]) -> Iterator[PostgresBench]:
    """PostgreSQL, in schemas of this test's own."""
    with _dropped(PostgresBench(postgres_databases)) as made:
        yield made


@pytest.fixture
def mssql_bench(sqlserver_databases: Mapping[Role, str]) -> Iterator[SqlServerBench]:
    """SQL Server, in schemas of this test's own."""
    with _dropped(SqlServerBench(sqlserver_databases)) as made:
        yield made


@pytest.fixture
def cosmos_bench(cosmos_server: str, cosmos_server_backup: str) -> Iterator[CosmosBench]:
    """Cosmos DB, in databases of this test's own; documents are partitioned by /customer/id."""
    made = CosmosBench({"source": cosmos_server, "backup": cosmos_server_backup})
    yield made
    made.close()


@pytest.fixture(scope="session")
def postgres_databases(postgres: str) -> Iterator[Mapping[Role, str]]:
    """Two databases of one server."""
    with made_databases(dict.fromkeys(ROLES, postgres)) as databases:
        yield databases


@pytest.fixture(scope="session")
def sqlserver_databases(sqlserver_urls: tuple[str, str]) -> Iterator[Mapping[Role, str]]:
    """Two databases, on the two servers that the environment names."""
    with made_databases(dict(zip(ROLES, sqlserver_urls, strict=True))) as databases:
        yield databases


@contextmanager
def _dropped(bench: Served) -> Iterator[Served]:
    yield bench
    for store in bench.opened:
        store.close()
    for text in bench.absent:
        drop_database(text)
    if bench.kind == "postgresql":
        # Its sessions go on with the next test: a new one costs both ends more than all that a test asks of it.
        for role in ROLES:
            bench.sql(role, f"DROP SCHEMA IF EXISTS {bench.quote(bench.schema or '')} CASCADE")
        return
    for role in ROLES:
        inspector = sa.inspect(bench.engines[role])
        if bench.schema in inspector.get_schema_names():
            for table in inspector.get_table_names(bench.schema):
                bench.sql(role, f"DROP TABLE {bench.quoted(table)}")
            bench.sql(role, f"DROP SCHEMA {bench.quote(bench.schema or '')}")
    bench.close()


@pytest.fixture(scope="module")
def accounts(plain_cosmos_server: str, plain_cosmos_server_backup: str) -> Iterator[tuple[Partitioned, Partitioned]]:
    """The accounts of source and backup, whose containers have partitions, for the tests of a module."""
    with (
        Partitioned(plain_cosmos_server).running() as source,
        Partitioned(plain_cosmos_server_backup).running() as backup,
    ):
        yield source, backup


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """What the server has answered to each request for images: how many entries it has added, or None."""
    answers: list[int | None] = []

    def noted(make_images: Callable[..., int | None]) -> Callable[..., int | None]:
        def note(self: Dialect, *arguments: Any) -> int | None:
            answer = None
            try:
                answer = make_images(self, *arguments)
            finally:
                answers.append(answer)
            return answer

        return note

    for dialect in (PostgresqlDialect, SqliteDialect, SqlServerDialect):
        monkeypatch.setattr(dialect, "make_images", noted(dialect.make_images))
    return answers


@pytest.fixture(params=["sqlite", "postgresql"])
def making_bench(request: pytest.FixtureRequest) -> SqlBench:
    """Each kind of store whose server makes images."""
    bench: SqlBench = request.getfixturevalue(f"{request.param}_bench")
    return bench
