"""The T-SQL that asks what was written lately, word for word. Needs no server."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from backup.core.errors import ConfigError
from backup.core.retry import Retry
from backup.stores import Limits, Rules
from backup.stores.sql.access import SqlAccess
from backup.stores.sql.engines.tables import TableName
from backup.stores.sql.incremental import SqlIncremental
from backup.stores.sql.table import TableShape
from tests.contract.tsql import COLUMNS, column, shape, text, unasked_server


@pytest.mark.parametrize(
    ("version", "is_indexed", "named", "is_used"),
    [
        ("Stamp", True, "", True),
        ("Stamp", False, "", False),
        ("Version", True, "", False),
        ("Stamp", False, "At", True),  # and says of what use it is
    ],
)
def test_a_rowversion_is_asked_without_being_told_if_it_is_the_version_and_indexed(
    version: str, is_indexed: bool, named: str, is_used: bool
) -> None:
    columns = [COLUMNS[0], *(replace(column, leads_index=is_indexed) for column in (COLUMNS[9], COLUMNS[-1]))]
    things = TableShape(columns, ("Id",), Rules(version=(version,)), TableName("dbo", "Things"), "table")
    catalog: Any = SimpleNamespace(shape=things)
    access = SqlAccess(unasked_server(), Retry(), ConfigError, "")
    incremental = SqlIncremental(access, catalog, Limits(), named)
    assert incremental.is_usable is is_used
    assert (incremental.obstacle is None) is (named == "")


def test_what_was_written_lately_is_found_by_a_seek_and_below_what_is_still_open() -> None:
    asked: list[str] = []

    class Answer:
        cursor = None

        def fetchone(self) -> None:
            """No row."""

        def close(self) -> None:
            pass

        def one(self) -> Any:
            return ("9999-12-31 00:00:00.0000000", datetime(2026, 3, 1, 12, tzinfo=UTC))

        def scalar_one(self) -> Any:
            return b"\x00" * 7 + b"\x11"

    class Connection:
        def execute(self, query: Any) -> Any:
            asked.append(text(query))
            return Answer()

        def scalar(self, query: Any) -> Any:
            asked.append(text(query))
            return "2026-03-01 11:59:59.0000001"

    access = SqlAccess(unasked_server(), Retry(), ConfigError, "")
    access.once = lambda *_, **__: nullcontext(Connection())  # type: ignore[assignment]
    things = shape(columns=[*COLUMNS[:2], COLUMNS[5], COLUMNS[9], column("Version", "bigint", nullable=False)])

    def last_page(name: str) -> tuple[str | None, str]:
        catalog: Any = SimpleNamespace(shape=things)
        incremental = SqlIncremental(access, catalog, Limits(), name)
        incremental.__dict__["_reason"] = None
        mark = incremental.watermark()
        assert [*incremental.recent(mark or "", 300)] == [set()]
        assert name == "at" or not incremental.has_fallen("Stamp 0000000000000009", "Stamp 000000000000000a")
        return mark, asked.pop()

    region = " AND T.[Region] = CAST(? COLLATE SQL_Latin1_General_CP1_CI_AS AS varchar(8000))"
    first = "SELECT TOP __[POSTCOMPILE_param_1] T.[Id], T.[Version], NULL AS anon_1,"
    assert last_page("at") == (
        "At 2026-03-01 11:59:59.0000001",
        f"{first} convert(varchar(40), T.[At], 121) AS [At] FROM T"
        f" WHERE T.[At] >= convert(datetime2(7), ?, 121){region} ORDER BY T.[At] DESC",
    )
    newest = "SELECT convert(varchar(40), max(T.[At]), 121) AS max_1"
    assert asked == [
        f"{newest}, sysutcdatetime() AS sysutcdatetime_1 FROM T",
        f"{newest} FROM T WHERE T.[At] <= convert(datetime2(7), ?, 121)",
    ]
    asked.clear()
    assert last_page("stamp") == (
        "Stamp 0000000000000011",
        f"{first} T.[Stamp] FROM T WHERE T.[Stamp] >= ?{region} ORDER BY T.[Stamp] DESC",
    )
    assert asked == ["SELECT MIN_ACTIVE_ROWVERSION() AS [MIN_ACTIVE_ROWVERSION_1]"]
