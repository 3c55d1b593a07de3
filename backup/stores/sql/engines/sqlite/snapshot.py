"""A snapshot of a SQLite file: one connection with one read transaction, in WAL mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from backup.core.errors import ConfigError
from backup.core.model import utc_now
from backup.stores.calls import end_this_with
from backup.stores.sql.engines.snapshot import OneConnection

_HINT = (
    "In WAL mode writers need not wait for readers: let a program that may write to the file say PRAGMA journal_mode = "
    "WAL once. Or remove consistent from backup.toml."
)


def begin_read_transaction(engine: sa.Engine, cut: Callable[[sa.Connection], Callable[[], None]]) -> OneConnection:
    """Begins a snapshot of the whole file. Raises ConfigError where writers would have to wait for its end, and the
    driver's errors; then nothing is held."""
    cx = engine.connect()
    try:
        end_this_with(cut(cx))
        mode = cx.exec_driver_sql("PRAGMA journal_mode").scalar()
        if mode != "wal" and not _is_immutable(cx):
            raise ConfigError(
                f"consistent is true, and the source's file is not in WAL mode ({mode}): while its tables were read as "
                "of one moment, nobody could write to it. Nothing was read.",
                hint=_HINT,
            )
        cx.exec_driver_sql("BEGIN")
        cx.exec_driver_sql("SELECT 1 FROM sqlite_master LIMIT 1")  # the first read decides what all others see
        return OneConnection(cx, cut(cx), utc_now(), lambda own_cx: bool(_driver(own_cx).in_transaction))
    except BaseException:
        cx.close()
        raise


def _driver(cx: sa.Connection) -> Any:
    return cx.connection.driver_connection


def _is_immutable(cx: sa.Connection) -> bool:
    """Whether the connection string says that nobody writes to the file."""
    return bool(_driver(cx).is_immutable)
