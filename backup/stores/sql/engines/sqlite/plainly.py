"""Questions to a SQLite file by its driver alone, for those that are asked again and again."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import sqlalchemy as sa

from backup.stores.sql.engines.sqlite.text import execute_plainly


def asked_plainly(cx: sa.Connection, statement: str, values: Sequence[Any] = ()) -> list[Any]:
    """The rows of a statement, as the driver reads them. For one that reads little, SQLAlchemy takes several times as
    long as SQLite. Raises the driver's error as SQLAlchemy does."""
    try:
        rows: list[Any] = _executed(cx, statement, values).fetchall()
    except sqlite3.Error as error:
        raise sa.exc.DBAPIError(None, None, error) from None
    return rows


def read_plainly(cx: sa.Connection, query: sa.Executable, values: Mapping[str, Any]) -> Any | None:
    """As `Dialect.read_plainly`."""
    spelled = _spelled(query, cx.dialect)
    if spelled is None:
        return None
    given = {**spelled.fixed, **values}
    sent = [given[name] if convert is None else convert(given[name]) for name, convert in spelled.parameters]
    try:
        return _executed(cx, spelled.text, sent)
    except sqlite3.Error as error:
        raise sa.exc.DBAPIError(None, None, error) from None


def _executed(cx: sa.Connection, statement: str, values: Sequence[Any]) -> Any:
    driver: Any = cx.connection.driver_connection
    cursor = driver.cursor()
    execute_plainly(cursor, statement, values)
    return cursor


class _Spelled(NamedTuple):
    """A statement as the driver takes it: its parameters in order, each with what converts its values (None: they go as
    they are), and the values that the statement itself fixes."""

    text: str
    parameters: Sequence[tuple[str, Callable[[Any], Any] | None]]
    fixed: Mapping[str, Any]


@lru_cache(maxsize=64)  # the app's own statements, each made once
def _spelled(statement: Any, dialect: sa.Dialect) -> _Spelled | None:
    """The statement in the driver's spelling; None for one with a list of values, which has another spelling for each
    number of them."""
    compiled = statement.compile(dialect=dialect)
    if compiled.post_compile_params or compiled.literal_execute_params:
        return None
    binds = {name: compiled.binds[name] for name in compiled.positiontup}
    converts = {name: bind.type.dialect_impl(dialect).bind_processor(dialect) for name, bind in binds.items()}
    fixed = {name: bind.value for name, bind in binds.items() if not bind.required}
    return _Spelled(str(compiled), [(name, converts[name]) for name in compiled.positiontup], fixed)
