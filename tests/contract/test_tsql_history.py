"""The T-SQL about entries of SyncHistory, word for word. Needs no server."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

from backup.core.errors import ConfigError
from backup.core.retry import Retry
from backup.runs.history_entries import HISTORY
from backup.stores.sibling import FieldType, Groups, Look, Shape
from backup.stores.sql.access import SqlAccess
from backup.stores.sql.app_table_queries import app_table, next_query
from backup.stores.sql.app_tables import SqlSibling
from backup.stores.sql.engines.utc_time import UtcTime
from tests.contract.tsql import dialect, text, unasked_server


def test_an_entry_is_added_in_one_statement_if_it_is_the_next_of_its_group() -> None:
    fields: dict[str, FieldType] = {"Id": "name", "Of": "place", "No": "integer", "Status": "name"}
    runs = app_table(Shape("Runs", "runs", "Id", "Of", {**fields, "Notes": "text"}), "dbo", UtcTime())
    groups = Groups("Id", "Of", "No", ("Status", "x"), (), ("Status", "InProgress"))
    assert text(next_query(runs, groups, (*fields,), casts=True)) == (
        "INSERT INTO dbo.[Runs] ([Id], [Of], [No], [Status]) SELECT CAST(? AS NVARCHAR(200)) AS anon_1, "
        "CAST(? AS NVARCHAR(400)) AS anon_2, CAST(? AS BIGINT) AS anon_3, CAST(? AS NVARCHAR(200)) AS anon_4 "
        "WHERE NOT (EXISTS (SELECT * FROM dbo.[Runs] AS [Runs_1] WHERE [Runs_1].[Id] = ? AND [Runs_1].[Of] = ? "
        "AND ([Runs_1].[No] >= ? OR [Runs_1].[Status] = ?)))"
    )


def test_a_fence_keeps_the_runs_entry_as_it_is_until_its_transaction_ends() -> None:
    asked: list[str] = []

    class Transaction:
        def execute(self, query: Any, _: Mapping[str, Any]) -> Any:
            asked.append(str(query.compile(dialect=dialect())))
            return self

        def first(self) -> None:
            return None

    server = unasked_server()
    entries = SqlSibling(SqlAccess(server, Retry(), ConfigError, "backup"), HISTORY, lambda _: "dbo")
    assert not entries.holds("id", {"Owner": ["one"], "Attempt": ["a", None]}, Transaction())
    [text] = asked
    assert " ".join(text.split()).startswith(
        "SELECT dbo.[SyncHistory].[SyncId] FROM dbo.[SyncHistory] WITH (REPEATABLEREAD, ROWLOCK) WHERE"
    )


def test_what_a_run_reads_of_history_is_one_query() -> None:
    """By SQL Server's rules: a subquery that is sorted has TOP; every part of UNION ALL has the key of the same table,
    so neither a type nor a collation has to be agreed on; the rows are joined to the keys."""
    asked: list[str] = []

    class Connection:
        dialect = dialect()

        def execute(self, query: Any, values: Mapping[str, Any]) -> Any:
            sent = query.compile(dialect=self.dialect).construct_expanded_state(values)
            asked.append(" ".join(sent.statement.split()))
            asked.append(repr(sent.positional_parameters))
            described = [(column.name, None) for column in query.selected_columns]
            cursor = SimpleNamespace(description=described, fetchall=lambda: [])
            return SimpleNamespace(cursor=cursor, close=lambda: None)

    server = unasked_server()
    access = SqlAccess(server, Retry(), ConfigError, "backup")
    access.attempts = lambda *_, **__: [nullcontext(Connection())]  # type: ignore[assignment]
    fields: dict[str, FieldType] = {"Id": "name", "Place": "place", "Number": "integer", "At": "time", "Notes": "json"}
    entries = SqlSibling(access, Shape("Runs", "runs", "Id", "Place", fields), lambda _: "dbo")
    answers = entries.look(
        [
            Look({"Place": "p", "Id": ["a", "b"]}, "Number", 30, descending=True),
            Look({"Place": None}, "At", 1),
        ]
    )
    assert answers.entries == [[], []]

    def part(number: int, top: int, condition: str, order: str) -> str:
        return (
            f"SELECT look{number}.[Id] AS [Id], look{number}.place_in_look AS place_in_look, {number} AS look_number"
            f" FROM (SELECT TOP {top} dbo.[Runs].[Id] AS [Id], row_number() OVER (ORDER BY {order}) AS place_in_look"
            f" FROM dbo.[Runs] WHERE {condition} ORDER BY {order}) AS look{number}"
        )

    first = part(0, 30, "dbo.[Runs].[Place] = ? AND dbo.[Runs].[Id] IN (?, ?)", "dbo.[Runs].[Number] DESC")
    second = part(1, 1, "dbo.[Runs].[Place] IS NULL", "dbo.[Runs].[At]")
    columns = ", ".join(f"dbo.[Runs].[{name}]" for name in fields)
    query = (
        f"SELECT {columns}, looks.look_number, sysutcdatetime() AS server_time"
        f" FROM ({first} UNION ALL {second}) AS looks JOIN dbo.[Runs] ON looks.[Id] = dbo.[Runs].[Id]"
        " ORDER BY looks.look_number, looks.place_in_look"
    )
    assert asked == [query, "('p', 'a', 'b')"]
