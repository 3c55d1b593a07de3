"""The relay between two databases of one SQL Server: what it sends, and when it declines. Needs no server."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from backup.stores.connection import SqlServer
from backup.stores.sql.declared import declare
from backup.stores.sql.engines.mssql.dialect import SqlServerDialect
from backup.stores.sql.engines.mssql.json import JSON
from backup.stores.sql.engines.mssql.relay import relay_rows, stage_rows
from backup.stores.sql.engines.mssql.staged_images import rows_of_images
from backup.stores.sql.engines.relayed import Relayed, RelayedRows
from backup.stores.sql.engines.tables import TableName
from tests.contract.tsql import Session, column, shape

COLUMNS = [
    column("Id", "int", nullable=False),
    column("Name", "nvarchar", 400, collation="Latin1_General_CI_AS"),
    column("At", "datetime2", 8, 27, 7),
    column("Stamp", "timestamp", 8),
]


def rows(source: Session, columns: Any = COLUMNS, **more: Any) -> RelayedRows:
    """Rows of the table T in the source, for the table C in the backup."""
    original = shape(columns=columns)
    copy = declare(TableName("copies", "C"), COLUMNS, ("Id",), sa.Column("SyncedAt", SqlServerDialect.utc_time))
    pairs = [(original.table.c[name], copy.c[name]) for name in original.names]
    mark_type = column("SyncedAt", "datetime2", 8, 27, 7).type
    mark = (sa.Column("SyncedAt", mark_type), "2026-01-02 03:04:05.006")
    conditions = [original.key[0] > 7, original.table.c["Name"].in_(["a"])]
    return RelayedRows(pairs, mark, conditions, original.key, False, source.opened, **more)


def test_the_rows_are_inserted_by_the_full_name_of_their_table_as_they_are() -> None:
    source, backup = Session(("one", 7, "shop")), Session(("one", 7), ())
    assert relay_rows(backup, rows(source)) == Relayed(3)  # type: ignore[arg-type]
    assert backup.asked[-1] == (
        "INSERT INTO copies.[C] ([Id], [Name], [At], [Stamp], [SyncedAt]) SELECT original.[Id], original.[Name],"
        " original.[At], original.[Stamp], convert(datetime2(7), ?, 121) AS anon_1 FROM shop.[my shop].[Things] AS"
        " original WHERE original.[Id] > ? AND original.[Name] IN (__[POSTCOMPILE_Name_1])"
    )


def test_the_source_is_a_table_that_a_statement_of_another_database_reads_as_its_own_session_does() -> None:
    source = Session(None)
    assert relay_rows(Session(), rows(source)) is None  # type: ignore[arg-type]
    assert source.asked[0].endswith(
        " FROM sys.databases d JOIN sys.tables t ON t.name = ? JOIN sys.schemas s ON s.schema_id = t.schema_id AND"
        " s.name = ? WHERE d.database_id = DB_ID() AND (d.is_read_committed_snapshot_on = 1 OR"
        " d.snapshot_isolation_state <> 1) AND CAST(SERVERPROPERTY('EngineEdition') AS int) IN (2, 3, 4, 8)"
    )


def test_numbers_of_the_source_are_let_into_a_column_that_numbers_by_itself() -> None:
    backup = Session(("one", 7), ())
    relay_rows(backup, rows(Session(("one", 7, "shop")), identity=True))  # type: ignore[arg-type]
    on, insert, off = backup.asked[1:]
    assert (on, off) == ("SET IDENTITY_INSERT [copies].[C] ON", "SET IDENTITY_INSERT [copies].[C] OFF")
    assert insert.startswith("INSERT INTO copies.[C]")


def test_rows_for_older_copies_go_into_a_temporary_table_of_the_types_of_these() -> None:
    source, backup = Session(("one", 7, "shop")), Session(("one", 7), ())
    staged = stage_rows(backup, rows(source))  # type: ignore[arg-type]
    assert staged is not None
    assert (staged.number, len(staged.table.columns)) == (3, 5)
    assert backup.asked[1:] == [
        "DROP TABLE IF EXISTS #backup_changes",
        "SELECT TOP 0 [Id] AS c0, [Name] AS c1, [At] AS c2, [Stamp] AS c3, [SyncedAt] AS c4 INTO #backup_changes"
        " FROM [copies].[C]",
        "INSERT INTO [#backup_changes] (c0, c1, c2, c3, c4) SELECT original.[Id], original.[Name], original.[At],"
        " original.[Stamp], convert(datetime2(7), ?, 121) AS anon_1 FROM shop.[my shop].[Things] AS original"
        " WHERE original.[Id] > ? AND original.[Name] IN (__[POSTCOMPILE_Name_1])",
    ]


@pytest.mark.parametrize(
    ("there", "here"),
    [
        (None, None),  # a view, a source that is read under SNAPSHOT, a server that reaches one database alone
        (("two", 7, "shop"), ("one", 7)),
        (("one", 8, "shop"), ("one", 7)),
        (("one", None, "shop"), ("one", None)),
        (("one", 7, "my.shop"), ("one", 7)),
    ],
)
def test_another_server_or_login_or_none_that_all_databases_know_reads_in_its_own_session(
    there: tuple[Any, ...] | None, here: tuple[Any, ...] | None
) -> None:
    backup = Session(here)
    assert relay_rows(backup, rows(Session(there))) is None  # type: ignore[arg-type]
    assert all(asked.startswith("SELECT CAST(SERVERPROPERTY") for asked in backup.asked)


def test_a_value_that_the_server_would_convert_passes_this_process() -> None:
    narrow = [COLUMNS[0], replace(COLUMNS[1], type=column("Name", "nvarchar", 40, collation="x").type), *COLUMNS[2:]]
    assert relay_rows(Session(), rows(Session(), narrow)) is None  # type: ignore[arg-type]
    other = [COLUMNS[0], column("Name", "nvarchar", 400, collation="Latin1_General_CS_AS"), *COLUMNS[2:]]
    assert relay_rows(Session(), rows(Session(), other)) is None  # type: ignore[arg-type]


def test_a_condition_that_may_name_tables_passes_this_process() -> None:
    assert relay_rows(Session(), rows(Session())._replace(own_condition=True)) is None  # type: ignore[arg-type]


def restored(source: Session, **more: Any) -> RelayedRows:
    """The rows as those of a backup, which is `source` here, for a place with a schema of the same name."""
    given = rows(source, apart=True, **more)
    place = declare(TableName("my shop", "P"), COLUMNS, ("Id",))
    return given._replace(columns=[(column, place.c[column.name]) for column, _ in given.columns], mark=None)


def test_what_is_restored_lies_in_a_temporary_table_before_the_place_is_written() -> None:
    backup, place = Session(("one", 7, "kept")), Session(("one", 7), (), ())
    assert relay_rows(place, restored(backup)) == Relayed(3)  # type: ignore[arg-type]
    assert place.asked[1:] == [
        "DROP TABLE IF EXISTS #backup_changes",
        "SELECT TOP 0 [Id] AS c0, [Name] AS c1, [At] AS c2, [Stamp] AS c3 INTO #backup_changes FROM [my shop].[P]",
        "INSERT INTO [#backup_changes] (c0, c1, c2, c3) SELECT kept.[my shop].[Things].[Id],"
        " kept.[my shop].[Things].[Name], kept.[my shop].[Things].[At], kept.[my shop].[Things].[Stamp]"
        " FROM kept.[my shop].[Things] WHERE kept.[my shop].[Things].[Id] > ?"
        " AND kept.[my shop].[Things].[Name] IN (__[POSTCOMPILE_Name_1])",
        "INSERT INTO [my shop].[P] ([Id], [Name], [At], [Stamp]) SELECT [#backup_changes].c0, [#backup_changes].c1,"
        " [#backup_changes].c2, [#backup_changes].c3 FROM [#backup_changes]",
    ]


def test_no_column_of_the_temporary_table_numbers_rows_by_itself() -> None:
    place = Session(("one", 7), (), ())
    relay_rows(place, restored(Session(("one", 7, "kept")), identity=True))  # type: ignore[arg-type]
    selected = "SELECT TOP 0 [Id] AS c0, [Name] AS c1, [At] AS c2, [Stamp] AS c3"
    assert (
        place.asked[2] == f"{selected} INTO #backup_changes FROM [my shop].[P] UNION ALL {selected} FROM [my shop].[P]"
    )
    on, insert, off = place.asked[4:]
    assert (on, off) == ("SET IDENTITY_INSERT [my shop].[P] ON", "SET IDENTITY_INSERT [my shop].[P] OFF")
    assert insert.startswith("INSERT INTO [my shop].[P]")


def test_rows_are_made_of_the_images_of_a_bin_in_another_database() -> None:
    bin_table = sa.Table(
        "RecycleBin", sa.MetaData(), sa.Column("EntryId", sa.Unicode(99)), sa.Column("Record", JSON), schema="kept"
    )
    original = shape(columns=COLUMNS[:3]).table
    made = rows_of_images(bin_table, (*original.columns,))
    assert made is not None
    given = restored(Session(("one", 7, "copies")))
    pairs = [(made.rows.c[column.name], taker) for column, taker in given.columns if column.name != "Stamp"]
    wanted = given._replace(columns=pairs, conditions=[made.entry_id == "x", made.is_exact], key=[made.entry_id])  # type: ignore[arg-type]
    place = Session(("one", 7), (), ())
    assert relay_rows(place, wanted) == Relayed(3)  # type: ignore[arg-type]
    insert = place.asked[3]
    assert insert.startswith(
        "INSERT INTO [#backup_changes] (c0, c1, c2) SELECT images.[Id], images.[Name], images.[At]"
        " FROM (SELECT j.c0 AS [Id], j.c1 AS [Name], convert(datetime2(7), j.c2, 121) AS [At],"
        " copies.kept.[RecycleBin].[EntryId] AS entry_id, copies.kept.[RecycleBin].[Record] AS image"
        " FROM copies.kept.[RecycleBin] CROSS APPLY OPENJSON([Record]) WITH (c0 bigint '$.\"Id\"',"
        " c1 nvarchar(max) '$.\"Name\"', c2 nvarchar(max) '$.\"At\"') AS j) AS images WHERE images.entry_id = ?"
        " AND (concat(CAST(N'' AS nvarchar(max)), N'{\"Id\":', isnull(CAST(images.[Id] AS nvarchar(20)), N'null'),"
    )
    assert insert.endswith("N'}') COLLATE Latin1_General_BIN2) = images.image")
    staging = Session(("one", 7), ())
    again = wanted._replace(reading=Session(("one", 7, "copies")).opened)
    assert stage_rows(staging, again) is not None  # type: ignore[arg-type]
    assert staging.asked[1:] == place.asked[1:4]
    assert rows_of_images(bin_table, (*shape(columns=COLUMNS).table.columns,)) is None  # it spells no bytes


def test_copies_that_a_restore_writes_over_other_rows_pass_this_process() -> None:
    assert stage_rows(Session(), restored(Session())) is None  # type: ignore[arg-type]


def test_no_server_is_asked_where_the_settings_name_two_or_two_logins() -> None:
    given = {"Server": "one", "Database": "shop", "UID": "app", "PWD": "x"}
    own = SqlServerDialect(SqlServer({**given, "Database": "copies"}, token=False))
    for other in ({"Server": "two"}, {"UID": "reader"}, {"PWD": "y"}):
        source = SqlServerDialect(SqlServer({**given, **other}, token=False))
        assert own.relay(Session(), rows(Session()), source) is None  # type: ignore[arg-type]
        assert not own.reads_images_of(source)
        assert not own.reaches(source)
    assert own.reads_images_of(SqlServerDialect(SqlServer(given, token=False)))
