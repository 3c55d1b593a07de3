"""How a backup's columns follow its source's: which types are wider, and the statements word for word."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import make_url

from backup.core.errors import SchemaMismatch
from backup.stores import Drift, OnNewColumn, Rules
from backup.stores.connection import SqlServer
from backup.stores.sql.declared import SYNCED_AT
from backup.stores.sql.drift import plan
from backup.stores.sql.engines import Dialect
from backup.stores.sql.engines.column import Column, ServerType, digits, type_parts
from backup.stores.sql.engines.mssql.dialect import SqlServerDialect
from backup.stores.sql.engines.mssql.types import ConvertedType, DecimalType, MssqlType
from backup.stores.sql.engines.postgresql.dialect import PostgresqlDialect
from backup.stores.sql.engines.postgresql.types import type_of as postgresql_type
from backup.stores.sql.engines.sqlite.dialect import SqliteDialect
from backup.stores.sql.engines.sqlite.types import SqliteType as sqlite_type  # noqa: N813 - beside the other two
from backup.stores.sql.engines.tables import TableName
from backup.stores.sql.table import TableShape

MSSQL = SqlServerDialect(SqlServer({"Server": "server", "Database": "db"}, token=False))
POSTGRESQL = PostgresqlDialect(make_url("postgresql+psycopg://server/db"))
SQLITE = SqliteDialect(make_url("sqlite:///file.db"))
CS, CI = "COLLATE Latin1_General_CS_AS", "COLLATE Latin1_General_CI_AS"


def column(name: str, declared: str, *, nullable: bool = True, key: int | None = None, **more: bool) -> Column:
    """A column of this type; its collation in force is the declared one."""
    return Column(name, ServerType(declared), nullable, key, type_parts(declared)[2] or None, **more)


def shape(
    *columns: Column, table: str = "Things", key: Sequence[str] = ("Id",), schema: str | None = "s"
) -> TableShape:
    """A table with an integer key unless a column is in it, and a version."""
    own_key = () if any(given.key_position for given in columns) else (column("Id", "int", nullable=False, key=1),)
    every = (*own_key, column("Version", "int"), *columns)
    return TableShape(every, tuple(key), Rules(version=("Version",)), TableName(schema, table), "backup (test)")


def drift(
    source: Sequence[Column], backup: Sequence[Column], dialect: Dialect = MSSQL, on_new: OnNewColumn = "add"
) -> Drift:
    """The drift of two tables with these columns beside key and version."""
    return plan(shape(*source), shape(*backup), dialect, on_new)


def refused(
    source: Sequence[Column], backup: Sequence[Column], dialect: Dialect = MSSQL, on_new: OnNewColumn = "add"
) -> tuple[str, str]:
    """What the refusal says is wrong, and the statements that it gives."""
    with pytest.raises(SchemaMismatch) as caught:
        drift(source, backup, dialect, on_new)
    start, end = "The backup (test) does not fit its source: ", ". Nothing was changed."
    assert str(caught.value).startswith(start)
    assert str(caught.value).endswith(end)
    statements = caught.value.hint.removeprefix("Run on the backup: ").partition(". Then run initialize, and sync")[0]
    return str(caught.value)[len(start) : -len(end)], statements


# --- types ------------------------------------------------------------------------------------------------------------

WIDER = [
    (MSSQL, "tinyint", "smallint"),
    (MSSQL, "smallint", "int"),
    (MSSQL, "int", "bigint"),
    (MSSQL, f"varchar(10) {CI}", f"varchar(11) {CI}"),
    (MSSQL, f"varchar(10) {CI}", f"varchar(max) {CI}"),
    (MSSQL, f"varchar(10) {CI}", f"nvarchar(10) {CI}"),
    (MSSQL, f"nvarchar(10) {CI}", f"nvarchar(max) {CI}"),
    (MSSQL, f"char(10) {CI}", f"char(20) {CI}"),
    (MSSQL, f"char(10) {CI}", f"nchar(10) {CI}"),
    (MSSQL, f"nchar(10) {CI}", f"nchar(20) {CI}"),
    (MSSQL, "binary(4)", "binary(8)"),
    (MSSQL, "varbinary(4)", "varbinary(max)"),
    (MSSQL, "decimal(9, 2)", "decimal(10, 2)"),
    (MSSQL, "decimal(9, 2)", "numeric(10, 3)"),
    (MSSQL, "time(3)", "time(7)"),
    (MSSQL, "datetime2(3)", "datetime2(7)"),
    (MSSQL, "datetimeoffset(0)", "datetimeoffset(1)"),
    (MSSQL, "real", "float(53)"),
    (POSTGRESQL, "smallint", "integer"),
    (POSTGRESQL, "integer", "bigint"),
    (POSTGRESQL, "character varying(10)", "character varying(20)"),
    (POSTGRESQL, "character varying(10)", "character varying"),
    (POSTGRESQL, "character varying(10)", "text"),
    (POSTGRESQL, "character(10)", "character(20)"),
    (POSTGRESQL, "numeric(9,2)", "numeric(10,3)"),
    (POSTGRESQL, "numeric(9,2)", "numeric"),
    (POSTGRESQL, "timestamp(3) without time zone", "timestamp without time zone"),
    (POSTGRESQL, "timestamp(3) with time zone", "timestamp(4) with time zone"),
    (POSTGRESQL, "time(0) without time zone", "time(1) without time zone"),
    (POSTGRESQL, "real", "double precision"),
]


@pytest.mark.parametrize(("dialect", "old", "new"), WIDER)
def test_a_type_that_widens_is_altered(dialect: Dialect, old: str, new: str) -> None:
    changes = drift([column("N", new)], [column("N", old)], dialect)
    assert changes.widened == ("N",)
    assert len(changes.statements) == 1
    assert changes.statements[0].count(new) == 1


@pytest.mark.parametrize(("dialect", "old", "new"), WIDER)
def test_a_type_that_narrows_is_refused_with_its_statement(dialect: Dialect, old: str, new: str) -> None:
    problem, statement = refused([column("N", old)], [column("N", new)], dialect)
    assert problem == f"column N is {new}, in the source {old}"
    assert "ALTER COLUMN" in statement
    assert old in statement


@pytest.mark.parametrize(
    ("dialect", "old", "new"),
    [
        (MSSQL, f"char(10) {CI}", f"varchar(20) {CI}"),
        (MSSQL, f"varchar(10) {CI}", f"char(20) {CI}"),
        (MSSQL, f"varchar(10) {CI}", f"nvarchar(9) {CI}"),
        (MSSQL, f"nvarchar(10) {CI}", f"varchar(20) {CI}"),
        (MSSQL, "binary(4)", "varbinary(8)"),
        (MSSQL, "decimal(9, 2)", "decimal(9, 3)"),
        (MSSQL, "decimal(9, 2)", "decimal(10, 1)"),
        (MSSQL, "int", "decimal(19, 0)"),
        (MSSQL, "datetime", "datetime2(7)"),
        (MSSQL, "datetime2(3)", "datetimeoffset(7)"),
        (MSSQL, "float(53)", "real"),
        (POSTGRESQL, "character(10)", "text"),
        (POSTGRESQL, "numeric(9,2)", "numeric(9,3)"),
        (POSTGRESQL, "integer", "numeric"),
        (POSTGRESQL, "timestamp without time zone", "timestamp with time zone"),
        (POSTGRESQL, "json", "jsonb"),
        (POSTGRESQL, "character varying(10)[]", "character varying(20)[]"),
    ],
)
def test_any_other_type_is_refused(dialect: Dialect, old: str, new: str) -> None:
    problem, _ = refused([column("N", new)], [column("N", old)], dialect)
    assert problem == f"column N is {old}, in the source {new}"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("smallint", "INTEGER"),
        ("INTEGER", "smallint"),
        ("varchar(10)", "varchar(20)"),
        ("varchar(10)", "TEXT"),
        ("CLOB", "text"),
        ("real", "double precision"),
        ("decimal(9, 2)", "numeric(10, 2)"),
        ("decimal(9, 2)", "date"),
        ("", "blob"),
        ("INTEGER", "FLOATING POINT"),
    ],
)
def test_sqlite_needs_no_statement_for_more_room_of_the_same_affinity(old: str, new: str) -> None:
    assert drift([column("N", new)], [column("N", old)], SQLITE) == Drift()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("varchar(20)", "varchar(10)"),
        ("TEXT", "varchar(10)"),
        ("decimal(9, 2)", "decimal(9, 3)"),
        ("decimal(9, 2)", "decimal(9, 1)"),
        ("INTEGER", "TEXT"),
        ("numeric", "INTEGER"),
        ("numeric", "real"),
        ("", "text"),
    ],
)
def test_sqlite_refuses_less_room_and_another_affinity(old: str, new: str) -> None:
    problem, statement = refused([column("N", new)], [column("N", old)], SQLITE)
    assert problem == f"column N is {old}, in the source {new}"
    assert statement == 'ALTER TABLE "s"."Things" RENAME TO "Things_old"'


def test_equal_types_need_nothing() -> None:
    columns = [column("N", f"nvarchar(max) {CI}"), column("D", "decimal(9, 2)")]
    assert drift(columns, columns) == Drift()


@pytest.mark.parametrize(
    ("declared", "parts"),
    [
        ("varchar(10) COLLATE x", ("varchar", (10.0,), "x")),
        ("nvarchar(MAX)", ("nvarchar", (float("inf"),), "")),
        ("timestamp(3) with time zone", ("timestamp with time zone", (3.0,), "")),
        ('text collate pg_catalog."C"', ("text", (), 'pg_catalog."C"')),
        (" decimal (9, 2)", ("decimal", (9.0, 2.0), "")),
    ],
)
def test_a_declared_type_has_a_name_sizes_and_a_collation(
    declared: str, parts: tuple[str, tuple[float, ...], str]
) -> None:
    assert type_parts(declared) == parts


def test_digits_stand_before_and_behind_the_point() -> None:
    assert [digits(sizes) for sizes in ((9.0, 2.0), (9.0,), ())] == [(7, 2), (9, 0), (float("inf"), float("inf"))]


# --- statements -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dialect", "declared", "statement"),
    [
        (MSSQL, f"nvarchar(20) {CI}", f"ALTER TABLE [s].[Things] ADD [a]] %s] nvarchar(20) {CI} NULL"),
        (POSTGRESQL, 'text COLLATE "C"', 'ALTER TABLE "s"."Things" ADD COLUMN "a] %s" text COLLATE "C"'),
        (SQLITE, "varchar(20)", 'ALTER TABLE "s"."Things" ADD COLUMN "a] %s" varchar(20)'),
    ],
)
def test_a_new_column_is_added_as_a_plain_nullable_one(dialect: Dialect, declared: str, statement: str) -> None:
    new = column("a] %s", declared, nullable=False, identity=True, computed=True, defaulted=True)
    assert drift([new], [], dialect) == Drift(added=("a] %s",), statements=(statement,))


@pytest.mark.parametrize(
    ("dialect", "declared", "old", "statement"),
    [
        (
            MSSQL,
            f"nvarchar(20) {CI}",
            f"nvarchar(10) {CI}",
            f"ALTER TABLE [s].[Things] ALTER COLUMN [N] nvarchar(20) {CI}",
        ),
        (MSSQL, "bigint", "int", "ALTER TABLE [s].[Things] ALTER COLUMN [N] bigint"),
        (POSTGRESQL, "bigint", "integer", 'ALTER TABLE "s"."Things" ALTER COLUMN "N" TYPE bigint'),
        (
            POSTGRESQL,
            'text COLLATE pg_catalog."C"',
            'character varying(9) COLLATE pg_catalog."C"',
            'ALTER TABLE "s"."Things" ALTER COLUMN "N" TYPE text COLLATE pg_catalog."C"',
        ),
    ],
)
def test_a_widened_column_gets_the_sources_type(dialect: Dialect, declared: str, old: str, statement: str) -> None:
    assert drift([column("N", declared)], [column("N", old)], dialect).statements == (statement,)


@pytest.mark.parametrize(
    ("old", "new", "using"),
    [
        ("bigint", "integer", ""),
        ("text", "character varying(5)", ""),
        ("text", "integer", ' USING CAST("N" AS integer)'),
    ],
)
def test_postgresql_is_told_how_to_make_another_kind_of_value_and_never_to_cut(old: str, new: str, using: str) -> None:
    _, statement = refused([column("N", new)], [column("N", old)], POSTGRESQL)
    assert statement == f'ALTER TABLE "s"."Things" ALTER COLUMN "N" TYPE {new}{using}'


def test_a_table_without_a_schema_is_named_alone() -> None:
    source, backup = shape(column("n", "int"), schema=None), shape(schema=None, table="things")
    assert plan(source, backup, MSSQL, "add").statements == ("ALTER TABLE [things] ADD [n] int NULL",)


def test_columns_are_added_before_others_are_altered() -> None:
    source = [column("A", "bigint"), column("B", "int"), column("C", "int")]
    changes = drift(source, [column("A", "int")])
    assert changes.added == ("B", "C")
    assert [statement.split()[3] for statement in changes.statements] == ["ADD", "ADD", "ALTER"]


# --- NULL -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dialect", "statement"),
    [
        (MSSQL, "ALTER TABLE [s].[Things] ALTER COLUMN [N] int NULL"),
        (POSTGRESQL, 'ALTER TABLE "s"."Things" ALTER COLUMN "N" DROP NOT NULL'),
    ],
)
@pytest.mark.parametrize("in_source", [True, False])
def test_a_column_that_may_now_be_null_is_let_be_null(dialect: Dialect, statement: str, in_source: bool) -> None:
    source = [column("N", "int")] if in_source else []
    changes = drift(source, [column("N", "int", nullable=False)], dialect)
    assert (changes.widened, changes.statements) == ((), (statement,))
    assert changes.removed == (() if in_source else ("N",))


@pytest.mark.parametrize(
    ("in_source", "problem"),
    [
        (True, "column N is NOT NULL, in the source it may be NULL"),
        (False, "column N is NOT NULL, and the source no longer has"),
    ],
)
def test_sqlite_cannot_let_a_column_be_null(in_source: bool, problem: str) -> None:
    source = [column("N", "int")] if in_source else []
    message, statement = refused(source, [column("N", "int", nullable=False)], SQLITE)
    assert message.startswith(problem)
    assert statement == 'ALTER TABLE "s"."Things" RENAME TO "Things_old"'


def test_a_column_that_is_nowhere_null_stays_so() -> None:
    assert drift([column("N", "int", nullable=False)], [column("N", "int", nullable=False)]) == Drift()


def test_postgresql_lets_a_widened_column_be_null_as_well() -> None:
    statements = drift(
        [column("N", "bigint", nullable=False)], [column("N", "integer", nullable=False)], POSTGRESQL
    ).statements
    assert statements == (
        'ALTER TABLE "s"."Things" ALTER COLUMN "N" TYPE bigint',
        'ALTER TABLE "s"."Things" ALTER COLUMN "N" DROP NOT NULL',
    )


# --- collations -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("new", ["varchar(10)", "varchar(20)"])
def test_another_collation_is_refused_with_its_statement(new: str) -> None:
    problem, statement = refused([column("N", f"{new} {CI}")], [column("N", f"varchar(10) {CS}")])
    assert problem == "column N has collation Latin1_General_CS_AS, in the source Latin1_General_CI_AS"
    assert statement == f"ALTER TABLE [s].[Things] ALTER COLUMN [N] {new} {CI}"


def test_keys_under_two_collations_that_nobody_declared_are_refused() -> None:
    source, backup = (
        shape(Column("Id", ServerType("text"), False, 1, collation), schema=None) for collation in ("C", "de_DE")
    )
    with pytest.raises(SchemaMismatch, match="key column Id has collation de_DE, in the source C"):
        plan(source, backup, POSTGRESQL, "add")


# --- keys -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("declared", ["bigint", "smallint"])
def test_sql_server_cannot_alter_a_key_by_itself(declared: str) -> None:
    source, backup = (
        shape(column("Id", key_type, nullable=False, key=1), column("B", "int", nullable=False, key=2), key=("Id", "B"))
        for key_type in (declared, "int")
    )
    with pytest.raises(SchemaMismatch, match=f"column Id is int, in the source {declared}") as caught:
        plan(source, backup, MSSQL, "add")
    assert caught.value.hint.startswith(
        "Run on the backup: drop the primary key of [s].[Things]; "
        f"ALTER TABLE [s].[Things] ALTER COLUMN [Id] {declared} NOT NULL; "
        "ALTER TABLE [s].[Things] ADD PRIMARY KEY ([Id], [B]). Then run initialize"
    )


def test_postgresql_alters_a_key_that_widens() -> None:
    source, backup = (shape(column("Id", key_type, nullable=False, key=1)) for key_type in ("bigint", "integer"))
    changes = plan(source, backup, POSTGRESQL, "add")
    assert changes == Drift(widened=("Id",), statements=('ALTER TABLE "s"."Things" ALTER COLUMN "Id" TYPE bigint',))


def test_a_new_key_column_is_refused_whatever_is_done_with_new_columns() -> None:
    new = shape(column("Id", "int", nullable=False, key=1), column("B", "int", nullable=False, key=2), key=("Id", "B"))
    choices: tuple[OnNewColumn, ...] = ("add", "ignore", "fail")
    for on_new in choices:
        with pytest.raises(SchemaMismatch, match=r"source: the primary key is \['Id'\], in the source \['Id', 'B'\]\."):
            plan(new, shape(), MSSQL, on_new)


# --- columns of one side ----------------------------------------------------------------------------------------------


def test_a_new_column_fails_the_run_when_that_is_wanted() -> None:
    problem, statement = refused([column("N", "int"), column("M", "date")], [], on_new="fail")
    assert problem == "column N (int) is new in the source; column M (date) is new in the source"
    assert statement == "ALTER TABLE [s].[Things] ADD [N] int NULL; ALTER TABLE [s].[Things] ADD [M] date NULL"


def test_a_new_column_is_left_out_when_that_is_wanted() -> None:
    assert drift([column("N", "int")], [], on_new="ignore") == Drift(ignored=("N",))


def test_a_removed_column_is_named_and_stays() -> None:
    own = [column("B", "int"), column("A", "int"), column(SYNCED_AT, "datetime2(3)")]
    assert drift([], own) == Drift(removed=("B", "A"))


@pytest.mark.parametrize("fills", ["identity", "computed", "defaulted"])
def test_a_column_of_the_backups_own_that_fills_itself_is_left_alone(fills: str) -> None:
    own = column("Own", "int", nullable=False, **{fills: True})
    assert drift([], [own]) == Drift(removed=("Own",))


def test_names_differ_in_case_at_will() -> None:
    assert drift([column("name", "int")], [column("NAME", "int")]) == Drift()


def test_a_column_for_two_of_the_source_is_refused() -> None:
    problem, _ = refused([column("x", "int"), column("X", "int")], [column("x", "int")], POSTGRESQL)
    assert problem == "column x stands for several columns of the source, which differ only in case"


@pytest.mark.parametrize(("trait", "problem"), [("computed", "is computed"), ("identity", "is an identity column")])
def test_a_copy_that_cannot_be_written_is_refused(trait: str, problem: str) -> None:
    message, _ = refused([column("N", "int")], [column("N", "int", **{trait: True})])
    assert message.startswith(f"column N {problem}")


def test_everything_that_is_wrong_is_told_at_once() -> None:
    problem, statements = refused(
        [column("A", "int"), column("B", "int"), column("C", "bigint"), column("D", "int")],
        [column("B", "bigint"), column("C", "int"), column("D", "bigint")],
        SQLITE,
        "fail",
    )
    assert problem == "column A (int) is new in the source"  # SQLite's integers are all alike
    assert statements == 'ALTER TABLE "s"."Things" ADD COLUMN "A" int'
    problem, statements = refused(
        [column("A", "int"), column("B", "text"), column("D", "text")],
        [column("B", "int"), column("D", "int")],
        SQLITE,
        "fail",
    )
    assert problem.count("; ") == 2
    assert statements == (
        'ALTER TABLE "s"."Things" ADD COLUMN "A" int; ALTER TABLE "s"."Things" RENAME TO "Things_old"'
    )


@pytest.mark.parametrize(
    ("type_", "fits", "others"),
    [
        (postgresql_type("int8", "bigint", True, None), [1], ["1", Decimal(1)]),
        (postgresql_type("numeric", "numeric", True, None), [Decimal(1)], [1, "1"]),
        (postgresql_type("text", "text", True, None), ["1"], [1, UUID(int=1)]),
        (postgresql_type("uuid", "uuid", True, None), [UUID(int=1)], [str(UUID(int=1))]),
        (postgresql_type("timestamp", "timestamp", True, None), ["2024-01-01 00:00:00"], [1, b""]),
        (MssqlType("bigint", "bigint"), [1], ["1"]),
        (MssqlType("nvarchar(9)", "nvarchar"), ["1"], [1, b"1"]),
        (MssqlType("date", "date"), [date(2024, 1, 1)], ["2024-01-01"]),
        (DecimalType("money", "money"), [Decimal(1)], [1]),
        (ConvertedType("datetime2(7)", "datetime2"), ["2024-01-01"], [date(2024, 1, 1)]),
        (
            sqlite_type("INTEGER"),
            [1, 1.5, "x", b"1", "inf", "nan", "0x10", "1_0", "\u0661", "1\x1c"],
            ["1", " 1.\n", "+.5e-5"],
        ),
        (sqlite_type("TEXT"), ["1", b"1"], [1, 1.5]),
        (sqlite_type(""), [1, "1", b"1", 1.5], []),
    ],
)
def test_a_key_from_before_its_type_changed_is_known(type_: ServerType, fits: list[Any], others: list[Any]) -> None:
    assert all(map(type_.may_hold, fits))
    assert not any(map(type_.may_hold, others))


@pytest.mark.parametrize(
    ("include", "exclude", "taken"),
    [
        ((), ("a",), {"A", "Bb", "BB"}),
        ((), ("bb",), {"a", "A"}),
        (("a", "BB"), (), {"a", "BB"}),
        (("bb", "A"), ("Bb",), {"A", "BB"}),
        ((), (), {"a", "A", "Bb", "BB"}),
    ],
)
def test_a_listed_name_means_the_column_that_is_spelled_so_else_all_in_another_case(
    include: tuple[str, ...], exclude: tuple[str, ...], taken: set[str]
) -> None:
    assert Rules(include=include, exclude=exclude).taken(["a", "A", "Bb", "BB"]) == taken
