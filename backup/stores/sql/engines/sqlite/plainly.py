"""Questions to a SQLite file by its driver alone, for those that are asked again and again."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from backup.stores.sql.engines.sqlite.text import execute_plainly


def asked_plainly(cx: sa.Connection, statement: str, values: Sequence[Any] = ()) -> list[Any]:
    """The rows of a statement, as the driver reads them. For one that reads little, SQLAlchemy takes several times as
    long as SQLite. Raises the driver's error as SQLAlchemy does."""
    driver: Any = cx.connection.driver_connection
    try:
        cursor = driver.cursor()
        execute_plainly(cursor, statement, values)
        rows: list[Any] = cursor.fetchall()
    except sqlite3.Error as error:
        raise sa.exc.DBAPIError(None, None, error) from None
    return rows
