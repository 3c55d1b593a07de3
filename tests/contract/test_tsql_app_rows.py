"""Rows of the app's own tables on SQL Server, as they are added and named. Needs no server."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from backup.stores.sql.app_table_queries import FIELD_TYPES
from backup.stores.sql.engines.mssql.app_rows import add_row_statement, added_rows, is_one_of
from backup.stores.sql.engines.mssql.dialect import SqlServerDialect
from tests.contract.tsql import dialect, text

ENTRIES = sa.Table(
    "Bin",
    sa.MetaData(),
    sa.Column("Id", FIELD_TYPES["name"], primary_key=True),
    sa.Column("Record", FIELD_TYPES["text"]),
    sa.Column("At", SqlServerDialect.utc_time),
)


def test_only_texts_with_quotes_or_backslashes_are_looked_through() -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    rows = [{"Id": "a", "Record": 'x "y"', "At": at}, {"Id": "b", "Record": "\\", "At": at}]
    [(statement, values)] = added_rows(dialect(), ENTRIES, rows, has_openjson=True)
    assert text(statement) == (
        "INSERT INTO [Bin] ([Id], [Record], [At]) SELECT [Id], REPLACE(REPLACE([Record] COLLATE Latin1_General_BIN2,"
        " NCHAR(57344), N'\"'), NCHAR(57345), N'\\'), [At] FROM OPENJSON(?) WITH ([Id] NVARCHAR(4000) '$.Id', [Record]"
        " NVARCHAR(max) '$.Record', [At] DATETIME2 '$.At') AS added WHERE NOT EXISTS (SELECT 1 FROM [Bin] AS old WHERE"
        " old.[Id] = added.[Id])"
    )
    assert [row["Record"] for row in json.loads(values["rows"])] == ["x \ue000y\ue000", "\ue001"]
    [(statement, _)] = added_rows(dialect(), ENTRIES, [{**rows[0], "Record": None}], has_openjson=True)
    assert "REPLACE" not in text(statement)


@pytest.mark.parametrize(
    ("name", "listed"),
    [
        *[("Größe", True), ("山", True), ("a" * 4_000, True)],
        *[("a\tb", False), ("\ue000", False), ("\ud800", False), ("a" * 4_001, False)],
    ],
)
def test_names_of_any_letters_are_listed_and_others_go_one_by_one(name: str, listed: bool) -> None:
    entries = [{"Id": "a", "Record": "[1]", "At": None}, {"Id": name, "Record": None, "At": None}]
    sent = [*added_rows(dialect(), ENTRIES, entries, has_openjson=True)]
    assert [row["Id"] for row in json.loads(sent[0][1]["rows"])] == (["a", name] if listed else ["a"])
    assert [values["Id"] for _, values in sent[1:]] == ([] if listed else [name])


def test_an_entry_with_a_long_text_is_added_by_parameters() -> None:
    assert text(add_row_statement(ENTRIES)) == (
        "INSERT INTO [Bin] ([Id], [Record], [At]) SELECT ? AS anon_1, ? AS anon_2, CAST(? AS DATETIME2) AS anon_3"
        " WHERE NOT (EXISTS (SELECT * FROM [Bin] WHERE [Bin].[Id] = ?))"
    )


def test_entries_are_named_by_one_parameter() -> None:
    condition = is_one_of(ENTRIES.c["Id"], ["a", "ß"])
    assert text(condition) == "[Bin].[Id] IN (SELECT v FROM OPENJSON(?) WITH (v NVARCHAR(4000) '$'))"
    assert condition.compile(dialect=dialect()).params == {"sought": '["a", "ß"]'}


@pytest.mark.parametrize("other", ['"', "\\", "\t"])
def test_entries_with_characters_that_not_every_server_reads_are_named_one_by_one(other: str) -> None:
    assert "POSTCOMPILE" in text(is_one_of(ENTRIES.c["Id"], ["a", other]))
