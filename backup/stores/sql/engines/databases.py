"""Databases made and dropped on a server, by an engine on the server itself."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from backup.stores.sql.engines.base import Dialect


def create_database_if_missing(
    dialect: Dialect, name: str, exists: sa.TextClause, server: Callable[[], sa.Engine]
) -> None:
    """Creates the dialect's database through an engine on the server itself, made only when the database is missing.

    `exists` answers NULL or nothing for a `:name` that is not there; whoever creates it at the same time may win.
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
    """Drops the dialect's database through an engine on the server itself; `exists` as above."""
    dialect.engine.dispose()
    engine = server()
    try:
        with engine.connect() as cx:
            if cx.scalar(exists, {"name": name}) is not None:
                cx.exec_driver_sql(f"DROP DATABASE {cx.dialect.identifier_preparer.quote_identifier(name)}")
    finally:
        engine.dispose()
