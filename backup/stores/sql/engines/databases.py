"""Creates and drops a dialect's database, through a connection to another database of the server."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from backup.stores.sql.engines.base import Dialect


def create_database_if_missing(
    dialect: Dialect, name: str, exists: sa.TextClause, server: Callable[[], sa.Engine]
) -> None:
    """Creates the dialect's database if it does not exist. Opens `server` only then.

    `exists` selects NULL or nothing if there is no database `:name`. No error if another process creates it first.
    """
    try:
        with dialect.engine.connect():
            return
    except sa.exc.DBAPIError as error:
        if dialect.failure(error.orig or error).kind != "database_missing":
            raise
    engine = server()
    try:
        with engine.connect() as cx:
            if cx.scalar(exists, {"name": name}) is not None:
                return
            try:
                cx.exec_driver_sql(f"CREATE DATABASE {cx.dialect.identifier_preparer.quote_identifier(name)}")
            except sa.exc.DBAPIError:
                if cx.scalar(exists, {"name": name}) is None:
                    raise
    finally:
        engine.dispose()


def drop_database(dialect: Dialect, name: str, exists: sa.TextClause, server: Callable[[], sa.Engine]) -> None:
    """Drops the dialect's database through `server`; no error if it does not exist. `exists` as above."""
    dialect.engine.dispose()  # no database can be dropped while somebody is connected
    engine = server()
    try:
        with engine.connect() as cx:
            if cx.scalar(exists, {"name": name}) is not None:
                cx.exec_driver_sql(f"DROP DATABASE {cx.dialect.identifier_preparer.quote_identifier(name)}")
    finally:
        engine.dispose()
