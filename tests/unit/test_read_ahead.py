"""The catalogue of a table that another thread reads ahead: its next use waits for it, and meets its error once."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import URL

from backup.core.errors import SourceMissing
from backup.core.retry import Retry
from backup.core.workers import Workers
from backup.stores.sql.engines.sqlite.dialect import SqliteDialect
from backup.stores.sql.store import SqlStore
from backup.stores.values import Limits, Rules


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shop.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqlStore]:
    dialect = SqliteDialect(URL.create("sqlite", database=str(path)))
    store = SqlStore(dialect, "A", Rules(is_source=True), Limits(retry=Retry(max_attempts=1)), "source", SourceMissing)
    yield store
    store.close()


def make(path: Path, columns: str) -> None:
    with closing(sqlite3.connect(path)) as file, file:
        file.execute("DROP TABLE IF EXISTS A")
        file.execute(f"CREATE TABLE A ({columns})")


def test_what_was_read_ahead_is_not_read_again_until_it_is_forgotten(store: SqlStore, path: Path) -> None:
    make(path, "Id INTEGER PRIMARY KEY, Name TEXT")
    asked, waited = list[str](), list[bool]()
    sa.event.listen(store.access.dialect.engine, "before_cursor_execute", lambda *sent: asked.append(sent[2]))
    with Workers(2) as workers:

        def begin(work: Callable[[], Any]) -> Callable[[], Any]:
            wait = workers.begun(work)

            def noted() -> Any:
                waited.append(True)
                return wait()

            return noted

        store.relational.read_ahead(begin)
        assert store.shape.names == ("Id", "Name")
        assert len(waited) == 1
        times = len(asked)
        assert store.catalog.qualified_name() == "A"
        assert len(asked) == times
        store.relational.read_ahead(begin)
        make(path, "Id INTEGER PRIMARY KEY, Other TEXT")
        store.relational.forget()
        assert store.shape.names == ("Id", "Other")


def test_an_error_is_raised_where_the_table_is_needed_and_the_next_use_asks_again(store: SqlStore, path: Path) -> None:
    with Workers(2) as workers:
        store.relational.read_ahead(workers.begun)
        with pytest.raises(SourceMissing):
            _ = store.shape
        make(path, "Id INTEGER PRIMARY KEY")
        assert store.shape.names == ("Id",)
