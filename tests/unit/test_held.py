"""A connection that the calls of one thread share: an error, a write and another thread do without it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import URL

from backup.core.errors import NotInitialized, StoreError
from backup.core.retry import Retry
from backup.stores.sql.access import SqlAccess
from backup.stores.sql.engines.sqlite.dialect import SqliteDialect


@pytest.fixture
def access(tmp_path: Path) -> Iterator[SqlAccess]:
    dialect = SqliteDialect(URL.create("sqlite", database=str(tmp_path / "backup.db")))
    dialect.ensure_database()
    access = SqlAccess(dialect, Retry(max_attempts=1), NotInitialized, "backup")
    yield access
    access.close()


def driver(access: SqlAccess, **how: Any) -> Any:
    """The driver's connection of a call."""
    with access.once("ask", **how) as cx:
        return cx.connection.driver_connection


def test_calls_share_the_connection_and_a_write_takes_it(access: SqlAccess) -> None:
    with access.held():
        first = driver(access)
        assert driver(access, single=True) is first
        assert driver(access, writes=True) is first
        assert driver(access) is first


def test_after_an_error_the_connection_is_given_back(access: SqlAccess) -> None:
    with access.held():
        assert access.dialect.engine.pool.status() == "0 open, 0 idle"
        with pytest.raises(StoreError), access.once("ask") as cx:
            cx.execute(sa.text("SELECT nonsense"))
        assert access.dialect.engine.pool.status() == "1 open, 1 idle"
        assert driver(access, single=True) is not None


def test_another_thread_has_a_connection_of_its_own(access: SqlAccess) -> None:
    others: list[Any] = []
    with access.held():
        own = driver(access)
        thread = Thread(target=lambda: others.append(driver(access)))
        thread.start()
        thread.join()
    assert others
    assert others[0] is not own


def test_a_write_over_the_shared_connection_is_there_for_all_and_one_that_fails_for_nobody(access: SqlAccess) -> None:
    def names(**how: Any) -> list[str]:
        with access.once("ask", **how) as cx:
            return list(cx.scalars(sa.text("SELECT name FROM sqlite_master")))

    with access.held():
        assert names() == []
        with access.once("make", writes=True) as cx:
            cx.execute(sa.text("CREATE TABLE made (n)"))
        others: list[str] = []
        thread = Thread(target=lambda: others.extend(names()))
        thread.start()
        thread.join()
        assert others == ["made"]
        half = ["CREATE TABLE half (n)", "SELECT nonsense"]
        with pytest.raises(StoreError), access.once("make", writes=True) as cx:
            [cx.execute(sa.text(statement)) for statement in half]
        assert names() == ["made"]
        assert names(writes=True) == ["made"]


def test_a_file_that_is_read_only_is_written_over_another_connection(access: SqlAccess) -> None:
    path = str(access.dialect.location)
    dialect = SqliteDialect(URL.create("sqlite", database=path), read_only_by_default=True)
    source = SqlAccess(dialect, Retry(max_attempts=1), NotInitialized, "source")
    with source.held():
        reading = driver(source)
        with source.once("make", writes=True) as cx:
            cx.execute(sa.text("CREATE TABLE made (n)"))
            assert cx.connection.driver_connection is not reading
        assert driver(source) is reading
    source.close()
