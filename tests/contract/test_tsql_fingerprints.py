"""The T-SQL of fingerprints, buckets and hashes of contents, word for word. Needs no server."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from backup.core.key_ranges import EqualRanges
from backup.core.masks import Mask, Masking
from backup.core.model import Chunk, Fingerprint
from backup.stores import Rules
from backup.stores.sql.engines.base import StampColumns
from backup.stores.sql.engines.column import Column
from backup.stores.sql.engines.mixing import MIXES, NULL_AS, Mix
from backup.stores.sql.engines.mssql.blocks import SqlServerBlocks
from backup.stores.sql.engines.mssql.fingerprint import (
    BYTES_STAMP,
    bucket_expression,
    content_hash,
    fingerprint_query,
    keyed_hash,
    no_stamp,
)
from backup.stores.sql.engines.tables import TableName
from backup.stores.sql.masked import MaskedColumns
from backup.stores.sql.table import TableShape
from tests.contract.tsql import COLUMNS, column, dialect, shape, text


class Hashing:
    """As much of the dialect as a shape asks for its stamps."""

    content_hash = staticmethod(content_hash)
    no_stamp = no_stamp(BYTES_STAMP)

    @staticmethod
    def keyed_hash(columns: Any, masking: Masking) -> Any:
        return keyed_hash(columns, masking.stamp_secret, masking.mark, BYTES_STAMP)


def stamps_of(things: TableShape) -> StampColumns:
    return things.stamps(Hashing())  # type: ignore[arg-type]


def mixed(*parts: str) -> str:
    """The two sums over these parts, each named in the subquery `stamps`."""

    def sum_of(mix: Mix) -> str:
        chained = f"stamps.part0 % {cast(mix.first)}"
        for n in range(1, len(parts)):
            left = f"({chained})" if n == 1 else chained
            chained = f"({left} * {cast(mix.multiplier)} + stamps.part{n} % {cast(mix.rest)}) % {cast(mix.wrap)}"
        return f"sum({cast(mix.dividend)} % ({chained} + {cast(mix.first + mix.wrap)}))"

    return ", ".join(f"{sum_of(mix)} AS sum_{n}" for n, mix in enumerate(MIXES, start=2))


def cast(number: int) -> str:
    return f"CAST({number} AS BIGINT)"


def test_a_masked_record_is_stamped_with_a_keyed_hash_and_the_mark_of_its_masks() -> None:
    masking = Masking({"Name": Mask("hmac")}, "a key of the masks")
    rules = Rules(version=("Version",), masking=masking, is_source=True)
    masked = MaskedColumns.checked(rules, COLUMNS, ("Id",), "table", "mssql")
    columns = [replace(column, nullable=False) if column.name == "Version" else column for column in COLUMNS]
    own = column("SourceStamp", "varbinary", 40)
    source = TableShape(columns, ("Id",), rules, TableName("my shop", "Things"), "table", masked=masked)
    stamped = TableShape([*columns, own], ("Id",), Rules(), TableName("my shop", "Things"), "table", own_stamp=own)
    stamped.match(source)
    collated, version = "AS nvarchar(max)) COLLATE Latin1_General_BIN2", "CAST(T.[Version] AS varchar(60))"
    pieces = (
        f"isnull(CAST(datalength(CAST({value} {collated}) AS nvarchar(20)) + N':' + CAST({value} {collated}, N'-')"
        for value in ("?", version)
    )
    hashed = f"CAST(hashbytes('SHA2_256', {' + '.join(pieces)}) + 0x{masking.mark} AS varbinary(40))"
    assert text(source.stamp_query(Hashing())) == f"SELECT T.[Id], {hashed} AS anon_1 FROM T"  # type: ignore[arg-type]
    assert (
        text(stamped.stamp_query(Hashing()))  # type: ignore[arg-type]
        == "SELECT T.[Id], coalesce(T.[SourceStamp], 0x) AS coalesce_1 FROM T"
    )
    assert text(source.reading(Hashing())[1]).endswith(f", {hashed} AS anon_1 FROM T")  # type: ignore[arg-type]


def test_without_version_fields_the_whole_content_is_hashed() -> None:
    without = TableShape(COLUMNS, ("Id",), Rules(), TableName("my shop", "Things"), "table")
    unlike = TableShape(COLUMNS, ("Id",), Rules(version=("None",)), TableName("my shop", "Things"), "table")
    statement = text(without.stamp_query(Hashing()))  # type: ignore[arg-type]
    assert "hashbytes" in statement.lower()
    assert statement == text(unlike.stamp_query(Hashing()))  # type: ignore[arg-type]
    assert (without.lacks_version, unlike.lacks_version, shape().lacks_version) == (False, True, False)


def test_the_fingerprint_of_integers_is_arithmetic() -> None:
    columns = [column("Id", "int", nullable=False), COLUMNS[1], column("Version", "bigint", nullable=False)]
    things = shape(columns=columns)
    assert text(fingerprint_query(stamps_of(things), things.within(Chunk((1,), (5,))))) == (
        "SELECT NULL AS anon_1, count_big(*) AS count_big_1,"
        f" sum(stamps.version & {cast(4294967295)}) AS sum_1, {mixed('Id', 'Version')}"
        " FROM (SELECT CAST(T.[Id] AS bigint) AS part0, CAST(T.[Version] AS bigint) AS part1,"
        " CAST(T.[Version] AS bigint) AS version FROM T WHERE T.[Id] > ? AND T.[Id] <= ?) AS stamps"
    )


def test_the_fingerprint_of_a_small_table_reads_one_row_more_than_such_a_table_has() -> None:
    columns = [column("Id", "int", nullable=False), COLUMNS[1], column("Version", "bigint", nullable=False)]
    query = fingerprint_query(stamps_of(shape(columns=columns)), (), None, 10)
    assert " FROM (SELECT TOP __[POSTCOMPILE_param_1] CAST(" in text(query)
    assert query.compile(dialect=dialect()).params["param_1"] == 11


def test_blocks_are_grouped_between_their_ends_and_sought_by_one_parameter() -> None:
    columns = [column("Id", "int", nullable=False), COLUMNS[1], column("Version", "bigint", nullable=False)]
    things, asked = shape(columns=columns), list[Any]()

    class Connection:
        def execute(self, query: Any) -> list[tuple[int, ...]]:
            asked.append(query)
            return [(2, 1, 7, 8, 9)]

    blocks = SqlServerBlocks()
    made = blocks.fingerprints(Connection(), stamps_of(things), (), EqualRanges(-5, 900, 64))  # type: ignore[arg-type]
    assert made == {123: Fingerprint("T-SQL", 1, (7, 8, 9))}
    assert text(asked[0]).endswith(
        ", (CAST(T.[Id] AS bigint) - ?) / ? AS bucket FROM T WHERE T.[Id] >= ? AND T.[Id] <= ?) AS stamps"
        " GROUP BY stamps.bucket"
    )
    in_blocks = sa.select(things.key[0]).where(blocks.contain(things.key[0], [-5, 123], 64))
    assert text(in_blocks) == (
        "SELECT T.[Id] FROM T, (SELECT start FROM OPENJSON(?) WITH (start bigint '$')) AS blocks"
        " WHERE T.[Id] >= blocks.start AND T.[Id] <= blocks.start + ?"
    )
    parameters = in_blocks.compile(dialect=dialect()).params
    assert sorted(parameters.values(), key=str) == [63, "[-5, 123]"]
    for beyond in (
        EqualRanges(-(1 << 62), 1 << 62, 64),
        EqualRanges(0, (1 << 63) - 1, 64),
        EqualRanges.joined([EqualRanges(-(1 << 63), -1, 64)]),
    ):
        assert blocks.fingerprints(Connection(), stamps_of(things), (), beyond) is None  # type: ignore[arg-type]


REGION = (
    "CAST(substring(hashbytes('SHA2_256', CAST(T.[Region] AS nvarchar(max)) COLLATE Latin1_General_BIN2), 1, 8)"
    " AS BIGINT)"
)


@pytest.mark.parametrize(
    ("key", "number"),
    [
        (("Id",), f"(CAST(T.[Id] AS bigint) / {cast(64)}) % {cast(1021)}"),
        (("Region",), f"({REGION} / {cast(64)}) % {cast(1021)}"),
        (
            ("Region", "Id"),
            f"(((CAST(T.[Id] AS bigint) / {cast(64)}) % {cast(1021)}) * {cast(31)} + {REGION} % {cast(1021)})"
            f" % {cast(1021)}",
        ),
    ],
)
def test_buckets_are_numbers_made_of_the_key(key: tuple[str, ...], number: str) -> None:
    columns = [column("Id", "int", nullable=False), COLUMNS[1], column("Version", "bigint", nullable=False)]
    things = shape(key, columns)
    bucket = bucket_expression(things.key)
    statement = text(fingerprint_query(stamps_of(things), things.within(Chunk(None, (5,) * len(key))), bucket))
    assert statement.startswith("SELECT stamps.bucket, count_big(*) AS count_big_1, sum(stamps.version & ")
    assert f", {number} AS bucket FROM T WHERE " in statement
    assert statement.endswith(") AS stamps GROUP BY stamps.bucket")
    rows = things.stamp_query(Hashing()).where(bucket.type.has_one_of(bucket, [1, -2]))  # type: ignore[attr-defined, arg-type] # a ServerType
    assert text(rows).endswith(f" WHERE {number} IN (__[POSTCOMPILE_one_of_1])")


@pytest.mark.parametrize(
    ("key", "parts"),
    [
        (column("K", "timestamp", 8, nullable=False), ["CAST(T.[K] AS bigint)"]),
        (column("K", "bit", nullable=False), ["CAST(T.[K] AS bigint)"]),
        (
            column("K", "uniqueidentifier", nullable=False),
            [f"CAST(substring(CAST(T.[K] AS binary(16)), {start}, 8) AS BIGINT)" for start in (1, 9)],
        ),
        (
            column("K", "varchar", 10, collation="Latin1_General_CI_AS", nullable=False),
            [
                "CAST(substring(hashbytes('SHA2_256', CAST(T.[K] AS nvarchar(max)) COLLATE Latin1_General_BIN2), 1, 8)"
                " AS BIGINT)"
            ],
        ),
        (
            column("K", "datetime2", 8, 27, 7, nullable=False),
            ["CAST(substring(hashbytes('SHA2_256', convert(varchar(40), T.[K], 121)), 1, 8) AS BIGINT)"],
        ),
    ],
)
def test_each_kind_of_key_has_its_integers(key: Column, parts: list[str]) -> None:
    things = shape(("K",), [key, COLUMNS[1], column("Version", "int", nullable=False)])
    inner = text(fingerprint_query(stamps_of(things), [])).partition(" FROM (SELECT ")[2]
    named = ", ".join(f"{part} AS part{n}" for n, part in enumerate(parts))
    assert inner.startswith(f"{named}, CAST(T.[Version] AS bigint) AS part{len(parts)}, ")


def test_only_the_first_part_of_a_version_stands_for_the_content_where_it_is_null() -> None:
    columns = [*COLUMNS[:2], column("Version", "bigint"), column("Revision", "int")]
    rules = Rules(version=("Version", "Revision"))
    things = TableShape(columns, ("Id",), rules, TableName("my shop", "Things"), "table")
    inner = text(fingerprint_query(stamps_of(things), [])).partition(" FROM (SELECT ")[2]
    assert " ELSE CAST(T.[Version] AS bigint) END AS part1, " in inner
    assert f", isnull(CAST(T.[Revision] AS bigint), {cast(NULL_AS)}) AS part2, " in inner


def test_a_row_without_a_version_has_the_hash_of_its_content() -> None:
    query = text(shape().stamp_query(Hashing()))  # type: ignore[arg-type]
    assert query.startswith("SELECT T.[Id], T.[Version], CASE WHEN (T.[Version] IS NULL) THEN hashbytes('SHA2_256', ")
    assert query.endswith(" END AS anon_1 FROM T")


def test_a_row_that_must_have_a_version_is_not_hashed() -> None:
    things = shape(columns=[*COLUMNS[:2], column("Version", "bigint", nullable=False)])
    assert text(things.stamp_query(Hashing())) == "SELECT T.[Id], T.[Version], NULL AS anon_1 FROM T"  # type: ignore[arg-type]


def test_contents_are_short_texts_before_an_end_and_others_behind_their_lengths() -> None:
    only = shape(columns=[COLUMNS[1], COLUMNS[0], COLUMNS[13]])
    region, version = only.table.c.Region, only.table.c.Version
    short, text_of = (
        "isnull(CAST(T.[Version] AS varchar(60)) + ';', '~')",
        "CAST({} AS nvarchar(max)) COLLATE Latin1_General_BIN2",
    )
    long = text_of.format("T.[Region]")
    hashed = [text(sa.select(content_hash(columns))) for columns in ([version], [region, version])]
    assert hashed == [
        f"SELECT hashbytes('SHA2_256', {short}) AS hashbytes_1 FROM T",
        f"SELECT hashbytes('SHA2_256', {text_of.format(short)}"
        f" + isnull(CAST(datalength({long}) AS nvarchar(20)) + N':' + {long}, N'-')) AS hashbytes_1 FROM T",
    ]


@pytest.mark.parametrize(
    ("type_", "of_each"), [("int", r"T\.(c\d+) AS varchar"), ("ntext", r"datalength\(.*?T\.(\w+)")]
)
def test_many_columns_are_strung_together_in_parts_of_the_same_text(type_: str, of_each: str) -> None:
    names = [f"c{i}" for i in range(130)]
    wide = shape(columns=[*COLUMNS[:2], *(column(name, type_) for name in names), COLUMNS[13]])
    hashed = text(sa.select(content_hash([wide.table.c[name] for name in names])))
    assert re.findall(of_each, hashed) == names
    assert max(itertools.accumulate({"(": 1, ")": -1}.get(c, 0) for c in hashed)) < 60


HALF = "CAST(CAST(substring(hashbytes('SHA2_256', CAST(T.[A] AS varbinary(max))), {}, 8) AS BIGINT) AS nvarchar(20))"


@pytest.mark.parametrize(
    ("of_type", "read"),
    [
        (column("A", "float", 8, 53), "CAST(CAST(CAST(CAST(T.[A] AS float) AS binary(8)) AS BIGINT) AS varchar(60))"),
        (column("A", "money", 8), "CAST(CAST(T.[A] AS decimal(19, 4)) AS varchar(60))"),
        (column("A", "date", 3), "convert(varchar(60), T.[A], 121)"),
        (column("A", "xml", -1), "convert(nvarchar(max), T.[A], 1)"),
        (column("A", "decimal", 9, 18, 4), "CAST(T.[A] AS varchar(60))"),
        (column("A", "ntext", 16, collation="Latin1_General_CI_AS"), "T.[A]"),
        (
            column("A", "varbinary", -1),
            f"{HALF.format(1)} + N',' + {HALF.format(9)}",
        ),
    ],
)
def test_every_type_has_an_exact_text(of_type: Column, read: str) -> None:
    things = shape(columns=[*COLUMNS[:2], COLUMNS[13], of_type])
    exact = of_type.type.exact_text(things.table.c.A)  # type: ignore[attr-defined]
    assert f"CAST({read} AS nvarchar(max))" in text(sa.select(exact))
