"""Rows of the app's own tables on SQL Server: added and named by one JSON parameter, which OPENJSON reads."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.mssql.base import MSDialect

from backup.stores.sql.engines.mssql.json import JSON, is_long

_SPELLING = MSDialect()  # type: ignore[no-untyped-call] # SQLAlchemy leaves it so
_UNESCAPED = "REPLACE(REPLACE({0} COLLATE Latin1_General_BIN2, NCHAR(57344), N'\"'), NCHAR(57345), N'\\')"
_REPLACED = ("\ue000", "\ue001")


def added_rows(
    dialect: sa.Dialect, table: sa.Table, rows: Sequence[Mapping[str, Any]], *, has_openjson: bool
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Statements and their parameters that insert the rows, except those whose primary key exists.

    One parameter holds all rows without long values, and without characters that JSON cannot show as they are. It is
    not an array: for an array pyodbc would ask the server (`parameters`). The other rows go one by one.
    """
    plain = [{name: _plain(value) for name, value in row.items()} for row in rows]
    listed = [row for row in plain if _is_listed(row)] if has_openjson else []
    if listed:
        short = [{name: _listed(value) for name, value in row.items()} for row in listed]
        replaced = frozenset(name for row in short for name, value in row.items() if _has_replaced(value))
        yield add_rows_statement(dialect, table, replaced), {"rows": json.dumps(short, ensure_ascii=False)}
    for row in plain if len(listed) < len(plain) else ():
        if not (has_openjson and _is_listed(row)):
            yield add_row_statement(table), row


def add_rows_statement(dialect: sa.Dialect, table: sa.Table, replaced: Collection[str]) -> sa.TextClause:
    """The insert of the rows in the JSON list `:rows`, except those whose primary key exists.

    It names OPENJSON's paths, and `_listed` replaces quotes and backslashes: not every server that speaks T-SQL finds
    the columns itself or undoes escapes. In the columns `replaced`, which have some, it puts them back: to look for
    them in each text takes as long again as all else.
    """
    quote = dialect.identifier_preparer
    into, [key] = quote.format_table(table), [quote.quote_identifier(c.name) for c in table.primary_key]
    columns = [(quote.quote_identifier(c.name), _read_as(c).compile(dialect=dialect), c) for c in table.columns]
    typed = ", ".join(f"{name} {spelled} '$.{column.name}'" for name, spelled, column in columns)
    values = ", ".join(_UNESCAPED.format(name) if column.name in replaced else name for name, _, column in columns)
    statement = (
        f"INSERT INTO {into} ({', '.join(name for name, _, _ in columns)}) SELECT {values} "  # noqa: S608 - names of the app's own
        f"FROM OPENJSON(:rows) WITH ({typed}) AS added "
        f"WHERE NOT EXISTS (SELECT 1 FROM {into} AS old WHERE old.{key} = added.{key})"
    )
    return sa.text(statement).bindparams(sa.bindparam("rows", type_=JSON))


def add_row_statement(table: sa.Table) -> sa.Insert:
    """The insert of one row, with a parameter for each column, unless its primary key exists."""
    [key] = table.primary_key.columns
    values: dict[str, Any] = {column.name: sa.bindparam(column.name, type_=JSON) for column in table.columns}
    selected = [
        sa.cast(values[c.name], c.type) if isinstance(c.type, sa.types.TypeDecorator) else values[c.name]
        for c in table.columns
    ]
    exists = sa.exists().where(key == values[key.name])
    return table.insert().from_select([*table.columns], sa.select(*selected).where(~exists))


def _read_as(column: sa.Column[Any]) -> sa.types.TypeEngine[Any]:
    """The type as which OPENJSON reads the column's values. It cuts a text that is too long for its type: so it gets
    one for any that is listed, and the table refuses the text."""
    return sa.Unicode(4_000) if isinstance(column.type, sa.Unicode) else column.type


def _plain(value: Any) -> Any:
    """The value of a row of the app's own tables; a time as text."""
    return value.astimezone(UTC).replace(tzinfo=None).isoformat() if isinstance(value, datetime) else value


def _is_listed(row: Mapping[str, Any]) -> bool:
    """Whether the JSON list may have the row. A text that is printable has no control character, no half of a surrogate
    pair, and none of those that stand for others."""
    return not is_long(row.values()) and all(value.isprintable() for value in row.values() if isinstance(value, str))


def _listed(value: Any) -> Any:
    """The value for the JSON list."""
    if isinstance(value, str):  # str.translate takes a hundred times as long
        return value.replace('"', _REPLACED[0]).replace("\\", _REPLACED[1])
    return value


def _has_replaced(value: Any) -> bool:
    return isinstance(value, str) and (_REPLACED[0] in value or _REPLACED[1] in value)


def is_one_of(column: sa.Column[Any], values: Sequence[str]) -> sa.ColumnElement[bool]:
    """The condition that a column has one of the texts, which one parameter holds: of two thousand parameters the
    server takes five times as long."""
    if not all(value.isprintable() and not {*value} & {'"', "\\"} for value in values):
        return column.in_(values)
    declared = _read_as(column).compile(dialect=_SPELLING)
    rows = sa.text(f"SELECT v FROM OPENJSON(:sought) WITH (v {declared} '$')")  # noqa: S608 - a type's name
    return column.in_(rows.bindparams(sa.bindparam("sought", json.dumps([*values], ensure_ascii=False), JSON)))
