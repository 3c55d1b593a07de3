"""Sends rows to SQL Server as one JSON parameter, which OPENJSON reads: twice as fast as an array of parameters.

Exact for every type but float and real: their texts may give other bits on some servers. Rows with them go as
parameters. So do rows of many columns, rows with too many special characters, and rows with long values, which
Babelfish cuts whatever length OPENJSON declares.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

import sqlalchemy as sa

from backup.stores.sql.engines.mssql.expressions import as_type
from backup.stores.sql.engines.mssql.types import ConvertedType, MssqlType, has_half_a_pair, room
from backup.stores.sql.engines.prepared import Prepared, lengths, send

JSON = MssqlType("nvarchar(max)", "nvarchar")
"""The type of the parameter."""

_INTEGERS = {"bigint", "int", "smallint", "tinyint", "bit"}
_BYTES = {"binary", "varbinary", "image", "hierarchyid", "geography", "geometry"}
_INEXACT = {"float", "real"}
_ESCAPED = re.compile(r'[\x00-\x1f"\\]')
_MAX_REPLACED = 6  # characters: for each the server makes a REPLACE over every value of a column
MAX_COLUMNS = 90  # on Babelfish each is an argument, and a function has at most a hundred
_HALF = 2_000  # of 4,000: a byte takes two characters, and some characters count as two
_BIGINT = range(-1 << 63, 1 << 63)
_PRIVATE_USE = range(0xE000, 0xF900)
_NONE = type(None)


class Form(NamedTuple):
    """How the JSON holds a column: the type that OPENJSON reads, and (replacement, original) of replaced characters.
    `is_shared`: it does not, for all rows share one value, which is a parameter of its own."""

    declared: str
    replaced: tuple[tuple[str, str], ...]
    is_shared: bool = False


class Spelled(NamedTuple):
    """An insert or update of rows in JSON as the driver takes it, and the names of its parameters, in order: `rows`,
    and `c0`, `c1` … of the columns at these places that have one of their own."""

    text: str
    parameters: tuple[str, ...]


Spell = Callable[[Prepared, tuple[Form, ...], sa.Dialect], Spelled]
"""Spells an insert or update of rows in JSON from a prepared one."""


class JsonRows(NamedTuple):
    """Rows as JSON, each a list of values, and the values that all of them share, by the names of their parameters."""

    text: str
    forms: tuple[Form, ...]
    shared: dict[str, str]


def write_as_json(
    cx: sa.Connection, spell: Spell, prepared: Prepared, rows: Sequence[tuple[Any, ...]], *, reads_hex: bool
) -> bool:
    """Writes the rows by one statement with their JSON. Returns False, and has done nothing, if `to_json` cannot hold
    them."""
    types = [prepared.table.c[name].type for name in prepared.names]
    json_rows = to_json(types, rows, reads_hex=reads_hex)
    if json_rows is None:
        return False
    text, names = spell(prepared, json_rows.forms, cx.dialect)
    values = {"rows": json_rows.text, **json_rows.shared}
    typed = {"rows": JSON, **{f"c{place}": type_ for place, type_ in enumerate(types)}}
    send(cx, text, [tuple(values[name] for name in names)], types=tuple(typed[name] for name in names))
    return True


def to_json(types: Sequence[Any], rows: Sequence[Sequence[Any]], *, reads_hex: bool = True) -> JsonRows | None:
    """The rows as JSON, or None if they must go as parameters. No row may be one that `is_long`.

    `reads_hex`: the server makes bytes of hexadecimal digits. Some that speak T-SQL take the digits for the bytes.

    Not every server that speaks T-SQL undoes JSON's escapes. So a character that needs one is replaced by a character
    that the rows do not have, and the statement puts the original back.
    """
    refused = _INEXACT if reads_hex else _INEXACT | _BYTES
    if len(types) > MAX_COLUMNS or any(getattr(type_, "base", "") in refused for type_ in types):
        return None
    typed = list(zip(types, zip(*rows, strict=True), strict=True))
    if not all(_is_plain(type_, values) for type_, values in typed):
        return None
    held = [place for place, (type_, values) in enumerate(typed) if not _is_shared(type_, values)]
    columns = [_column(*typed[place]) for place in held]
    text = _dumped(columns)
    if has_half_a_pair(text):
        return None
    replaced: Sequence[Sequence[tuple[str, str]]] = [()] * len(held)
    if "\\" in text:
        specials = [set(_ESCAPED.findall("".join(v for v in column if isinstance(v, str)))) for column in columns]
        every_special = sorted(set().union(*specials))
        free = list(islice((chr(code) for code in _PRIVATE_USE if chr(code) not in text), len(every_special)))
        if "\0" in every_special or len(every_special) > _MAX_REPLACED or len(free) < len(every_special):
            return None
        replacements = dict(zip(every_special, free, strict=True))
        for special, free_character in replacements.items():  # str.translate takes a hundred times as long
            columns = [
                [v if v is None else v.replace(special, free_character) for v in column] if special in own else column
                for column, own in zip(columns, specials, strict=True)
            ]
        replaced = [[(replacements[c], c) for c in sorted(own)] for own in specials]
        text = _dumped(columns)
    forms = [Form("", (), is_shared=True)] * len(types)
    for place, of_column in zip(held, replaced, strict=True):
        forms[place] = _form(types[place], of_column)
    shared = {f"c{place}": rows[0][place] for place, form in enumerate(forms) if form.is_shared}
    return JsonRows(text, tuple(forms), shared)


def split_long(rows: Sequence[tuple[Any, ...]]) -> tuple[Sequence[tuple[Any, ...]], Sequence[tuple[Any, ...]]]:
    """The rows that `to_json` takes, and the rows with a value that is too long for it."""
    longest = (max(sizes) for column in zip(*rows, strict=True) if (sizes := lengths(column)))
    if max(longest, default=0) <= _HALF:  # most rows are short, and looking at each takes ten times as long
        return rows, ()
    return [row for row in rows if not is_long(row)], [row for row in rows if is_long(row)]


def is_long(row: Iterable[Any]) -> bool:
    """Whether a value of the row is too long for `to_json`."""
    return any(
        (isinstance(value, str) and len(value) > _HALF and not room([value], 2, 2 * _HALF))
        or (isinstance(value, bytes) and len(value) > _HALF)
        for value in row
    )


def _is_shared(type_: MssqlType, values: Sequence[Any]) -> bool:
    """Whether all rows share one text that this process has made, as the time of a write. Then the server need not find
    and convert it in each."""
    first = values[0]
    is_text = isinstance(type_, ConvertedType) and type(first) is str and len(values) > 1
    return is_text and all(value is first for value in values)


def _dumped(columns: Sequence[Sequence[Any]]) -> str:
    return json.dumps(list(zip(*columns, strict=True)), ensure_ascii=False, separators=(",", ":"))


def _is_plain(type_: MssqlType, values: Sequence[Any]) -> bool:
    """Whether the type's columns can hold such values: OPENJSON reads others as NULL."""
    kinds = _kinds(values)
    if type_.base not in _INTEGERS:
        return type_.base not in _BYTES or kinds <= {bytes, _NONE}
    numbers = values if _NONE not in kinds else [value for value in values if value is not None]
    return kinds <= {int, bool, _NONE} and (not numbers or (min(numbers) in _BIGINT and max(numbers) in _BIGINT))


def _column(type_: MssqlType, values: Sequence[Any]) -> Sequence[Any]:
    """The column's values for JSON: integers or texts."""
    kinds = _kinds(values)
    if kinds <= {str, _NONE} or (kinds <= {int, _NONE} and type_.base in _INTEGERS):
        return values
    as_json = int if type_.base in _INTEGERS else bytes.hex if type_.base in _BYTES else _text
    return [value if value is None else as_json(value) for value in values]


def _kinds(values: Iterable[Any]) -> set[type]:
    return set(map(type, values))


def _text(value: Any) -> str:
    """The text of a date, a uuid or a number; a number without exponent."""
    text = str(value)
    return format(value, "f") if isinstance(value, Decimal) and "E" in text else text


def _form(type_: MssqlType, replaced: Iterable[tuple[str, str]]) -> Form:
    # Wider than any value, not as wide as the column: the write then refuses a value that is too long. Else OPENJSON
    # would cut it.
    return Form({"bit": "bit"}.get(type_.base, "bigint" if type_.base in _INTEGERS else "nvarchar(4000)"), (*replaced,))


@lru_cache(maxsize=64)
def insert_statement(insert: Prepared, forms: tuple[Form, ...], dialect: sa.Dialect) -> Spelled:
    """The insert of the rows in one JSON parameter."""
    columns = [insert.table.c[name] for name in insert.names]
    sent = _sent(columns, forms)
    return _spelled(insert.table.insert().from_select(columns, sa.select(*sent.columns)), dialect)


@lru_cache(maxsize=64)
def update_statement(update: Prepared, forms: tuple[Form, ...], dialect: sa.Dialect) -> Spelled:
    """The update of the rows that have the same keys as rows in one JSON parameter."""
    key = update.table.primary_key.columns
    sent = _sent([update.table.c[name] for name in update.names], forms)
    values = dict(zip(update.names, sent.columns, strict=True))
    given = {update.names[place] for place in update.values[: -len(key)]}
    # An integer of the key is the same already. To write it makes the server sort and move rows, as for another key.
    written = given - {column.name for column in key if column.type.base in _INTEGERS} or given  # type: ignore[attr-defined] # an MssqlType
    statement = (
        update.table.update()
        .values({update.table.c[name]: value for name, value in values.items() if name in written})
        .where(*(column == _comparable(column.type, values[column.name]) for column in key))
    )
    return _spelled(statement, dialect)


def _spelled(statement: sa.Insert | sa.Update, dialect: sa.Dialect) -> Spelled:
    compiled: Any = statement.compile(dialect=dialect)
    return Spelled(str(compiled), tuple(compiled.positiontup))


def _sent(columns: Sequence[sa.Column[Any]], forms: Sequence[Form]) -> sa.Subquery:
    """The rows in the parameter as a query, with columns `c0`, `c1` …, one for each of `columns`."""
    held = ((i, form) for i, form in enumerate(forms) if not form.is_shared)
    read = ", ".join(f"c{i} {form.declared} '$[{place}]'" for place, (i, form) in enumerate(held))
    values = [
        (sa.bindparam(f"c{i}", type_=c.type) if form.is_shared else written_value(c.type, form, i)).label(f"c{i}")
        for i, (c, form) in enumerate(zip(columns, forms, strict=True))
    ]
    rows = sa.text(f"OPENJSON(:rows) WITH ({read}) AS j").bindparams(sa.bindparam("rows", type_=JSON))
    return sa.select(*values).select_from(rows).subquery("sent")


def written_value(type_: Any, form: Form, i: int) -> sa.ColumnElement[Any]:
    """The value `j.c<i>` of the JSON, converted as a parameter of the column would be."""
    value: Any = sa.literal_column(f"j.c{i}")
    if form.replaced:
        value = sa.collate(value, "Latin1_General_BIN2")
    for replacement, original in form.replaced:
        value = sa.func.replace(value, _character(replacement), _character(original))
    if type_.base in _BYTES:
        digits = as_type(value, "varchar(4000)")  # the hexadecimal styles are documented only for char and varchar
        value = sa.func.convert(sa.literal_column("varbinary(max)"), digits, sa.literal_column("2"))
    if type_.base == "date":
        value = sa.func.convert(sa.literal_column("date"), value, sa.literal_column("23"))
    converted = type_.bind_expression(value)
    return value if converted is None else converted  # type: ignore[no-any-return]


def _character(character: str) -> sa.ColumnElement[str]:
    return sa.func.nchar(sa.literal_column(str(ord(character))))


def _comparable(type_: Any, value: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """The value, typed and collated as the key column, so that the server compares it alike."""
    if type_.base in _INTEGERS:
        return sa.cast(value, type_)
    collation = type_.declared.partition(" COLLATE ")[2]
    return sa.collate(value, collation) if collation else value
