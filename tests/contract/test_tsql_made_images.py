"""The T-SQL of images that the server makes, and of rows that it makes of images, word for word. Needs no server."""

from __future__ import annotations

from typing import Any

import pytest

from backup.recycle_bin.entries import RECYCLE_BIN
from backup.stores.sql.app_table_queries import app_table
from backup.stores.sql.engines.images_to_make import EntryIds, ImagesToMake
from backup.stores.sql.engines.images_to_stage import ImagesToStage, StagedImages
from backup.stores.sql.engines.mssql.dialect import SqlServerDialect
from backup.stores.sql.engines.mssql.images import make_images, spelled_image
from backup.stores.sql.engines.mssql.staged_images import count_equal, stage_images
from tests.contract.tsql import Session, column, shape, text

LATIN = "Latin1_General_CI_AS"
COLUMNS = [
    column("Id", "int", nullable=False),
    column("It's [é%]", "nvarchar", 20, collation=LATIN),
    column("Code", "varchar", 4, collation=LATIN),
    column("Price", "money", 8),
    column("Amount", "decimal", 9, 18, 4),
    column("Day", "date", 3),
    column("At", "datetime2", 8, 27, 7),
    column("Flag", "bit", 1),
    column("Row", "uniqueidentifier", 16),
    column("Region", "nvarchar", 4, collation=LATIN),
    column("Version", "bigint"),
]
BIN = app_table(RECYCLE_BIN, "dbo", SqlServerDialect.utc_time)
NEEDS = " NOT LIKE N'%[^ -!#-Z_-' + NCHAR(55295) + NCHAR(57344) + N'-' + NCHAR(65533) + N']%'"


def spelled(name: str, declared: str) -> str:
    """How an image has the text of the column."""
    value = f"CAST(T.{name} AS {declared}) COLLATE Latin1_General_BIN2"
    replaced = f"CAST({value} AS nvarchar(max)) COLLATE Latin1_General_BIN2"
    for code, escape in ((92, "005c"), (34, "0022"), (9, "0009"), (10, "000a"), (13, "000d")):
        replaced = f"replace({replaced}, NCHAR({code}), N'\\u{escape}')"
    is_plain = f"(T.{name} IS NULL OR ({value}){NEEDS})"
    return f"isnull(N'\"' + CASE WHEN {is_plain} THEN {value} ELSE {replaced} END + N'\"', N'null')"


def test_an_image_has_every_column_in_its_order_and_each_value_as_json() -> None:
    parts = [
        *("N'{\"Id\":'", "isnull(CAST(T.[Id] AS nvarchar(20)), N'null')"),
        *("N',\"It''s [\\u00e9%]\":'", spelled("[It's [é%]]]", "nvarchar(10)")),
        *("N',\"Code\":'", spelled("[Code]", "nvarchar(4)")),
        "N',\"Price\":'",
        "isnull(N'{\"$decimal\":\"' + CAST(CAST(T.[Price] AS decimal(19, 4)) AS nvarchar(60)) + N'\"}', N'null')",
        "N',\"Amount\":'",
        "isnull(N'{\"$decimal\":\"' + CAST(T.[Amount] AS nvarchar(60)) + N'\"}', N'null')",
        "N',\"Day\":'",
        "isnull(N'{\"$date\":\"' + CAST(convert(varchar(60), T.[Day], 23) AS nvarchar(20)) + N'\"}', N'null')",
        "N',\"At\":'",
        "isnull(N'\"' + CAST(convert(varchar(40), T.[At], 121) AS nvarchar(40)) + N'\"', N'null')",
        "N',\"Flag\":'",
        "CASE WHEN (T.[Flag] = 1) THEN N'true' WHEN (T.[Flag] = 0) THEN N'false' ELSE N'null' END",
        *("N',\"Row\":'", "isnull(N'\"' + CAST(T.[Row] AS nvarchar(36)) + N'\"', N'null')"),
        *("N',\"Region\":'", spelled("[Region]", "nvarchar(2)")),
        *("N',\"Version\":'", "isnull(CAST(T.[Version] AS nvarchar(20)), N'null')"),
        "N'}'",
    ]
    image = text(spelled_image([*shape(columns=COLUMNS).table.columns]))
    assert image == f"concat(CAST(N'' AS nvarchar(max)), {', '.join(parts)}) COLLATE Latin1_General_BIN2"


def made(session: Session, **more: Any) -> int | None:
    things = shape(columns=more.pop("columns", COLUMNS))
    fields = {"SyncId": "one", "Action": "Updated"}
    images = ImagesToMake(
        BIN, EntryIds("e", "d", "x"), fields, things.key, things.version, [*things.table.columns], (1, 9)
    )
    lock = SqlServerDialect.locked_for_share
    return make_images(session, images._replace(**more), things.key[0] > 3, lock)  # type: ignore[arg-type]


def test_images_are_made_of_locked_rows_and_counted_in_the_bin() -> None:
    session = Session((0, 0, 0), (2,), (), (7,))
    assert made(session) == 5
    look, before, insert, after = session.asked
    assert look.startswith("SELECT max(CASE WHEN ([my shop].[Things].[It's [é%]]] IS NULL OR ")
    assert look.endswith(" FROM [my shop].[Things] WHERE [my shop].[Things].[Id] > ?")
    assert before == after
    assert before.startswith(
        "SELECT count_big(*) AS count_big_1 FROM dbo.[RecycleBin] WHERE dbo.[RecycleBin].[EntryId] BE"
    )
    names = "[EntryId], [KeyHash], [RecordKey], [Version], [Record], [SyncId], [Action]"
    assert insert.startswith(f"INSERT INTO dbo.[RecycleBin] ({names}) SELECT ? + rows_now.[KeyHash] AS ")
    assert " FROM [my shop].[Things] WITH (REPEATABLEREAD, ROWLOCK) WHERE [my shop].[Things].[Id] > ?)" in insert
    assert " WHERE NOT (EXISTS (SELECT * FROM dbo.[RecycleBin] AS [RecycleBin_1] WHERE " in insert
    session = Session((0, 0, 0), (0,), (), (5,))
    assert made(session) == 5
    assert "EXISTS" not in session.asked[2]


def test_texts_that_need_escapes_are_looked_for_before() -> None:
    for found, number in (((0, 1, 0), 5), ((0, 0, 0), 0)):
        session = Session(found, (0,), (), (1,))
        made(session)
        assert session.asked[2].count("replace(") == number
        assert spelled("[Code]", "nvarchar(4)").replace("T.", "[my shop].[Things].") in session.asked[2] or not number


@pytest.mark.parametrize("found", [(0, 2, 0), (0, 0, 2)])
def test_a_text_that_the_server_cannot_spell_is_left_to_this_process(found: tuple[int, ...]) -> None:
    session = Session(found)
    assert made(session) is None
    assert len(session.asked) == 1


def test_large_rows_and_keys_and_types_that_it_does_not_spell_are_left_to_this_process() -> None:
    wide = [*COLUMNS, column("Long", "nvarchar", -1, collation=LATIN)]
    session = Session((0, 0, 0, 0, 1 << 18))
    assert made(session, columns=wide) is None
    assert session.asked[0].count("CAST(isnull(datalength([my shop].[Things].") == 4
    assert made(session := Session((0, 0, 0), (0,), (), (1,))) == 1
    assert "datalength" not in session.asked[0]
    assert made(Session(), columns=[*COLUMNS, column("Real", "float", 8, 53)]) is None
    assert made(Session(), ends=None) is None
    things = shape(("Id", "Version"), COLUMNS)
    assert made(Session(), key=things.key) is None


def staged(session: Session, columns: Any = COLUMNS) -> StagedImages | None:
    table = shape(columns=columns).table
    images = ImagesToStage(BIN.c["Record"], [BIN.c["EntryId"] > "e"], (*table.columns,), (*table.columns,))
    return stage_images(session, images)  # type: ignore[arg-type]


def test_rows_are_made_of_images_by_paths_and_each_text_becomes_its_value() -> None:
    session = Session((), (3,))
    made_of = staged(session)
    assert made_of is not None
    drop, create, insert = session.asked
    assert drop == "DROP TABLE IF EXISTS #backup_changes"
    assert create.startswith("SELECT TOP 0 [Id] AS c0, [It's [é%]]] AS c1, ")
    assert create.endswith(", CAST(N'' AS nvarchar(max)) AS c11 INTO #backup_changes FROM [my shop].[Things]")
    as_code = f"CAST(j.c2 COLLATE {LATIN} AS varchar(8000)) AS anon_1"
    times = "convert(date, j.c5, 23) AS convert_1, convert(datetime2(7), j.c6, 121) AS convert_2"
    parts = [
        *("c0 bigint '$.\"Id\"'", "c1 nvarchar(max) N'$.\"It''s [é%]\"'", "c2 nvarchar(max) '$.\"Code\"'"),
        *('c3 nvarchar(max) \'$."Price"."$decimal"\'', 'c4 nvarchar(max) \'$."Amount"."$decimal"\''),
        *('c5 nvarchar(max) \'$."Day"."$date"\'', "c6 nvarchar(max) '$.\"At\"'", "c7 bit '$.\"Flag\"'"),
        *("c8 nvarchar(max) '$.\"Row\"'", "c9 nvarchar(max) '$.\"Region\"'", "c10 bigint '$.\"Version\"'"),
    ]
    assert insert == (
        "INSERT INTO [#backup_changes] (c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11)"
        f" SELECT j.c0, j.c1, {as_code}, CAST(j.c3 AS money) AS [j.c3], CAST(j.c4 AS decimal(18, 4)) AS [j.c4],"
        f" {times}, j.c7, j.c8, j.c9, j.c10, dbo.[RecycleBin].[Record]"
        f" FROM dbo.[RecycleBin] CROSS APPLY OPENJSON([Record]) WITH ({', '.join(parts)}) AS j"
        " WHERE dbo.[RecycleBin].[EntryId] > ?"
    )
    assert count_equal(session, made_of) == 3  # type: ignore[arg-type]
    image = text(spelled_image([*shape(columns=COLUMNS).table.columns])).replace("T.", "[my shop].[Things].")
    assert session.asked[-1] == (
        "SELECT count(*) AS count_1 FROM [#backup_changes], [my shop].[Things]"
        f" WHERE [my shop].[Things].[Id] = [#backup_changes].c0 AND ({image}) = [#backup_changes].c11"
    )


@pytest.mark.parametrize(
    "odd",
    [
        column("Real", "float", 8, 53),
        column('quo"ted', "int"),
        column("back\\slash", "int"),
        *[[column(f"c{n}", "int") for n in range(90)]],
    ],
)
def test_what_no_path_names_and_no_image_shows_exactly_is_left_to_this_process(odd: Any) -> None:
    session = Session()
    assert staged(session, [*COLUMNS, *(odd if isinstance(odd, list) else [odd])]) is None
    assert session.asked == []
