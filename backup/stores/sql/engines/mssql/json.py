"""Rows for SQL Server as one JSON parameter, which OPENJSON takes apart: twice as fast as an array of parameters.

Exact for every type but float and real. Their text is not known to give back the same bits on every server, so rows
with them, and texts of which too much would have to be spelled otherwise, are told to go another way. So are rows of
many columns, and long values: Babelfish cuts them, whatever OPENJSON is told of their length.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

import sqlalchemy as sa

from backup.stores.sql.engines.mssql.types import MssqlType, as_type, has_half_a_pair, room
from backup.stores.sql.engines.prepared import Prepared, lengths

JSON = MssqlType("nvarchar(max)", "nvarchar")
"""The type of the parameter."""

_INTEGERS = {"bigint", "int", "smallint", "tinyint", "bit"}
_BYTES = {"binary", "varbinary", "image", "hierarchyid", "geography", "geometry"}
_INEXACT = {"float", "real"}
_ESCAPED = re.compile(r'[\x00-\x1f"\\]')
_MOST_INSTEAD = 6
_MOST_COLUMNS = 90  # Babelfish takes each for an argument, of which a function has at most a hundred
_HALF = 2_000  # bytes take two characters, and some characters two places of 4,000
_BIGINT = range(-1 << 63, 1 << 63)
_PRIVATE_USE = range(0xE000, 0xF900)
_NONE = type(None)


class Form(NamedTuple):
    """How a column stands in the JSON: the type to read it with, and the characters there that stand for others."""

    declared: str
    instead: tuple[tuple[str, str], ...]


Spell = Callable[[Prepared, tuple[Form, ...], sa.Dialect], str]
"""What makes a prepared insert or update one of rows in such JSON."""


class Sent(NamedTuple):
    """Rows as JSON, a list of values each."""

    text: str
    forms: tuple[Form, ...]


def to_json(types: Sequence[Any], rows: Sequence[Sequence[Any]]) -> Sent | None:
    """The rows, none of which `is_long`, for columns of these types, or None where they have to go another way.

    Not every server that speaks T-SQL undoes JSON's escapes. So what needs one travels as characters that the rows do
    not have, and the statement puts it back.
    """
    if len(types) > _MOST_COLUMNS or any(getattr(type_, "base", "") in _INEXACT for type_ in types):
        return None
    given = list(zip(types, zip(*rows, strict=True), strict=True))
    if not all(_is_plain(type_, values) for type_, values in given):
        return None
    columns = [_column(type_, values) for type_, values in given]
    text = _dumped(columns)
    if has_half_a_pair(text):
        return None
    if "\\" not in text:
        return Sent(text, tuple(_form(type_, ()) for type_ in types))
    found = [set(_ESCAPED.findall("".join(v for v in column if isinstance(v, str)))) for column in columns]
    wanted = sorted(set().union(*found))
    free = list(islice((chr(code) for code in _PRIVATE_USE if chr(code) not in text), len(wanted)))
    if "\0" in wanted or len(wanted) > _MOST_INSTEAD or len(free) < len(wanted):
        return None
    instead = dict(zip(wanted, free, strict=True))
    for special in instead:  # to translate them all at once takes a hundred times as long
        columns = [
            [v if v is None else v.replace(special, instead[special]) for v in column] if special in some else column
            for column, some in zip(columns, found, strict=True)
        ]
    forms = (_form(type_, [(instead[c], c) for c in sorted(s)]) for type_, s in zip(types, found, strict=True))
    return Sent(_dumped(columns), tuple(forms))


def parted(rows: Sequence[tuple[Any, ...]]) -> tuple[Sequence[tuple[Any, ...]], Sequence[tuple[Any, ...]]]:
    """The rows that `to_json` takes, and those with a value that is too long for it."""
    longest = (max(found) for column in zip(*rows, strict=True) if (found := lengths(column)))
    if max(longest, default=0) <= _HALF:  # most rows are short, and to look at each takes ten times as long
        return rows, ()
    return [row for row in rows if not is_long(row)], [row for row in rows if is_long(row)]


def is_long(row: Iterable[Any]) -> bool:
    """Whether a value of the row is too long for `to_json`."""
    return any(
        (isinstance(value, str) and len(value) > _HALF and not room([value], 2, 2 * _HALF))
        or (isinstance(value, bytes) and len(value) > _HALF)
        for value in row
    )


def _dumped(columns: Sequence[Sequence[Any]]) -> str:
    return json.dumps(list(zip(*columns, strict=True)), ensure_ascii=False, separators=(",", ":"))


def _is_plain(type_: MssqlType, values: Sequence[Any]) -> bool:
    """Whether the values are such as the type's columns have: OPENJSON reads NULL where it finds others."""
    kinds = _kinds(values)
    if type_.base not in _INTEGERS:
        return type_.base not in _BYTES or kinds <= {bytes, _NONE}
    given = values if _NONE not in kinds else [value for value in values if value is not None]
    return kinds <= {int, bool, _NONE} and (not given or (min(given) in _BIGINT and max(given) in _BIGINT))


def _column(type_: MssqlType, values: Sequence[Any]) -> Sequence[Any]:
    """The column's values as JSON has them: integers, or texts."""
    kinds = _kinds(values)
    if kinds <= {str, _NONE} or (kinds <= {int, _NONE} and type_.base in _INTEGERS):
        return values
    as_json = int if type_.base in _INTEGERS else bytes.hex if type_.base in _BYTES else _text
    return [value if value is None else as_json(value) for value in values]


def _kinds(values: Iterable[Any]) -> set[type]:
    return set(map(type, values))


def _text(value: Any) -> str:
    """Dates, uuids and texts as they are spelled; a number without exponent."""
    text = str(value)
    return format(value, "f") if isinstance(value, Decimal) and "E" in text else text


def _form(type_: MssqlType, instead: Iterable[tuple[str, str]]) -> Form:
    # Wider than any value, not as the column: what is too long for that is refused when it is written, not cut.
    return Form({"bit": "bit"}.get(type_.base, "bigint" if type_.base in _INTEGERS else "nvarchar(4000)"), (*instead,))


@lru_cache(maxsize=64)
def insert_statement(insert: Prepared, forms: tuple[Form, ...], dialect: sa.Dialect) -> str:
    """The insert, of the rows of one JSON parameter."""
    columns = [insert.table.c[name] for name in insert.names]
    sent = _sent(columns, forms)
    return str(insert.table.insert().from_select(columns, sa.select(*sent.columns)).compile(dialect=dialect))


@lru_cache(maxsize=64)
def update_statement(update: Prepared, forms: tuple[Form, ...], dialect: sa.Dialect) -> str:
    """The update, by the rows of one JSON parameter: each row that has the key of one of them."""
    key = update.table.primary_key.columns
    sent = _sent([update.table.c[name] for name in update.names], forms)
    values = dict(zip(update.names, sent.columns, strict=True))
    written = {update.names[place] for place in update.values[: -len(key)]}
    statement = (
        update.table.update()
        .values({update.table.c[name]: value for name, value in values.items() if name in written})
        .where(*(column == _comparable(column.type, values[column.name]) for column in key))
    )
    return str(statement.compile(dialect=dialect))


def _sent(columns: Sequence[sa.Column[Any]], forms: Sequence[Form]) -> sa.Subquery:
    """The rows as a query, with a column `c0`, `c1` … for each of the table's."""
    read = ", ".join(f"c{i} {form.declared} '$[{i}]'" for i, form in enumerate(forms))
    values = [_written(c.type, form, i).label(f"c{i}") for i, (c, form) in enumerate(zip(columns, forms, strict=True))]
    rows = sa.text(f"OPENJSON(:rows) WITH ({read}) AS j").bindparams(sa.bindparam("rows", type_=JSON))
    return sa.select(*values).select_from(rows).subquery("sent")


def _written(type_: Any, form: Form, i: int) -> sa.ColumnElement[Any]:
    """What a parameter of the column would be made into."""
    value: Any = sa.literal_column(f"j.c{i}")
    if form.instead:
        value = sa.collate(value, "Latin1_General_BIN2")
    for stands, meant in form.instead:
        value = sa.func.replace(value, _character(stands), _character(meant))
    if type_.base in _BYTES:
        digits = as_type(value, "varchar(4000)")  # the styles of hexadecimal are documented for char and varchar alone
        value = sa.func.convert(sa.literal_column("varbinary(max)"), digits, sa.literal_column("2"))
    if type_.base == "date":
        value = sa.func.convert(sa.literal_column("date"), value, sa.literal_column("23"))
    converted = type_.bind_expression(value)
    return value if converted is None else converted  # type: ignore[no-any-return]


def _character(character: str) -> sa.ColumnElement[str]:
    return sa.func.nchar(sa.literal_column(str(ord(character))))


def _comparable(type_: Any, value: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """The value of a key as the column compares it."""
    if type_.base in _INTEGERS:
        return sa.cast(value, type_)
    collation = type_.declared.partition(" COLLATE ")[2]
    return sa.collate(value, collation) if collation else value


# --- rows of the app's own tables -------------------------------------------------------------------------------------


def added_rows(
    dialect: sa.Dialect, table: sa.Table, rows: Sequence[Mapping[str, Any]], *, has_openjson: bool
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Statements, with their parameters, that insert those of the rows whose primary key is not there yet.

    One parameter holds all that are not long: no array, for which pyodbc would ask the server (see mssql_parameters).
    """
    plain = [{name: _plain(value) for name, value in row.items()} for row in rows]
    alone = [row for row in plain if is_long(row.values())] if has_openjson else plain
    if len(alone) < len(plain):
        short = [{name: _listed(value) for name, value in row.items()} for row in plain if not is_long(row.values())]
        yield add_rows_statement(dialect, table), {"rows": json.dumps(short, ensure_ascii=False)}
    for row in alone:
        yield add_row_statement(table), row


def add_rows_statement(dialect: sa.Dialect, table: sa.Table) -> sa.TextClause:
    """An insert of the rows in the JSON list `:rows` whose primary key is not there yet.

    OPENJSON's paths are given, and quotes and backslashes come as other characters (`_listed`): not every server that
    speaks T-SQL finds columns or undoes escapes.
    """
    quote = dialect.identifier_preparer
    into, [key] = quote.format_table(table), [quote.quote_identifier(c.name) for c in table.primary_key]
    columns = [(quote.quote_identifier(c.name), c.type.compile(dialect=dialect), c) for c in table.columns]
    typed = ", ".join(f"{name} {spelled} '$.{column.name}'" for name, spelled, column in columns)
    values = ", ".join(_UNESCAPED.format(name) if "char" in spelled.lower() else name for name, spelled, _ in columns)
    statement = (
        f"INSERT INTO {into} ({', '.join(name for name, _, _ in columns)}) SELECT {values} "  # noqa: S608 - names of the app's own
        f"FROM OPENJSON(:rows) WITH ({typed}) AS added "
        f"WHERE NOT EXISTS (SELECT 1 FROM {into} AS old WHERE old.{key} = added.{key})"
    )
    return sa.text(statement).bindparams(sa.bindparam("rows", type_=JSON))


def add_row_statement(table: sa.Table) -> sa.Insert:
    """An insert of one row, by a parameter for each column, if its primary key is not there yet."""
    [key] = table.primary_key.columns
    values: dict[str, Any] = {column.name: sa.bindparam(column.name, type_=JSON) for column in table.columns}
    selected = [
        sa.cast(values[c.name], c.type) if isinstance(c.type, sa.types.TypeDecorator) else values[c.name]
        for c in table.columns
    ]
    there = sa.exists().where(key == values[key.name])
    return table.insert().from_select([*table.columns], sa.select(*selected).where(~there))


_UNESCAPED = "REPLACE(REPLACE({0} COLLATE Latin1_General_BIN2, NCHAR(57344), N'\"'), NCHAR(57345), N'\\')"


def _plain(value: Any) -> Any:
    """A value of a row of the app's own, a time as text."""
    return value.astimezone(UTC).replace(tzinfo=None).isoformat() if isinstance(value, datetime) else value


def _listed(value: Any) -> Any:
    """The value as it goes into the JSON list; texts are ASCII without control characters."""
    if isinstance(value, str):
        if not (value.isascii() and value.isprintable()):
            raise ValueError("a text that is not plain ASCII")
        return value.replace('"', "\ue000").replace("\\", "\ue001")  # a hundred times as fast as to translate
    return value
