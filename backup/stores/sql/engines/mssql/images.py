"""Images that SQL Server makes of a table's rows: their JSON, and the ids and hashes of their keys.

Only of rows whose values it spells exactly as this process would, on every server that speaks T-SQL: integers,
decimals, dates, times, and texts of bounded planes. Bytes, floats and others are left to this process.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa

from backup.core.batched import batched
from backup.stores.sql.engines.column import type_parts
from backup.stores.sql.engines.images_to_make import LARGEST_BYTES, ImagesToMake
from backup.stores.sql.engines.mssql.expressions import as_type, big, concatenated, converted_to_text
from backup.stores.sql.engines.mssql.types import ConvertedType, MssqlType

_Text = Any  # an expression
_Lock = Callable[[sa.Select[Any]], sa.Select[Any]]

INTEGER_BASES = ("bigint", "int", "smallint", "tinyint")
DECIMAL_BASES = ("decimal", "numeric", "money", "smallmoney")
_TEXTS = ("char", "varchar", "nchar", "nvarchar")
_TIMES = ("time", "datetime", "smalldatetime", "datetime2", "datetimeoffset")
_SPELLED = {*INTEGER_BASES, *DECIMAL_BASES, *_TEXTS, *_TIMES, "bit", "date", "uniqueidentifier"}

_ARGUMENTS = 90  # on Babelfish a function has at most a hundred
_LONGEST = 1_000  # characters of a text that stays one of bounded length with all that is joined to it
_BINARY = "Latin1_General_BIN2"
# Classes of characters in the order of their codes. Some that need no escape are taken for one that does: a class has
# no good place for brackets. What is in neither is left to this process: NUL and the like, halves of surrogate pairs.
_PLAIN = "N'%[^ -!#-Z_-' + NCHAR(55295) + NCHAR(57344) + N'-' + NCHAR(65533) + N']%'"
_ESCAPED = "N'%[^ -' + NCHAR(55295) + NCHAR(57344) + N'-' + NCHAR(65533) + NCHAR(9) + NCHAR(10) + NCHAR(13) + N']%'"
_ESCAPES = {code: f"N'\\u{code:04x}'" for code in (92, 34, 9, 10, 13)}  # the backslash first: the others have one
_PLAIN_TEXT, _WITH_ESCAPES, _OTHER = 0, 1, 2


def make_images(cx: sa.Connection, images: ImagesToMake, condition: sa.ColumnElement[bool], lock: _Lock) -> int | None:
    """As `Dialect.make_images`. A handful of statements; no row passes this process. `lock` makes a query lock rows."""
    if images.ends is None or not may_spell(images.key, (*images.version, *images.columns)):
        return None
    escaped = _with_escapes(cx, images, condition)
    if escaped is None:
        return None
    rows = _rows(images, escaped, condition, lock).subquery("rows_now")
    made = {"EntryId": concatenated(sa.literal(images.ids.id_start, _NAME), rows.c["KeyHash"])}
    made |= {name: rows.c[name] for name in ("KeyHash", "RecordKey", "Version", "Record")}
    entries = images.entries(made, sa.true()).select_from(rows)
    kept = sa.select(sa.func.count_big(sa.literal_column("*"))).where(images.may_have_id(images.ends))
    before = cx.scalar(kept)
    if before:
        kept_before = images.bin.alias()
        entries = entries.where(~sa.exists().where(kept_before.c["EntryId"] == made["EntryId"]))
    cx.execute(images.bin.insert().from_select([*made, *images.fields], entries, include_defaults=False))
    # What the server says that it has inserted may have been swallowed by a trigger.
    return int(cx.scalar(kept) or 0) - int(before or 0)


def may_spell(key: Sequence[sa.Column[Any]], columns: Sequence[sa.Column[Any]]) -> bool:
    """Whether the server may make images of rows with such a key and such columns."""
    return len(key) == 1 and _base(key[0]) in INTEGER_BASES and {*map(_base, columns)} <= _SPELLED


def spelled_image(columns: Sequence[sa.Column[Any]]) -> _Text:
    """The image of a row, under a collation that compares codes. Of a row with a text that this process has to spell,
    it is no JSON: there is a character in it that JSON does not show as it is."""
    return sa.collate(_record(columns, frozenset(columns)), _BINARY)


def _rows(
    images: ImagesToMake, escaped: frozenset[sa.Column[Any]], condition: sa.ColumnElement[bool], lock: _Lock
) -> sa.Select[Any]:
    """The fields of the rows' entries that the server makes. It locks the rows, so that nobody changes one between its
    image and what this transaction does to it."""
    fields = {
        "KeyHash": _digits_of(*images.key),
        "RecordKey": _list(images.key, escaped),
        "Version": _list(images.version, escaped),
        "Record": _record(images.columns, escaped),
    }
    return lock(sa.select(*(made.label(name) for name, made in fields.items())).where(condition))


_NAME = MssqlType("nvarchar(200)", "nvarchar")


def _base(column: sa.Column[Any]) -> str:
    return str(getattr(column.type, "base", ""))


def _with_escapes(
    cx: sa.Connection, images: ImagesToMake, condition: sa.ColumnElement[bool]
) -> frozenset[sa.Column[Any]] | None:
    """The columns of which a text needs escapes in JSON. None where a row is too large, or has a text that this process
    has to spell."""
    texts = [column for column in images.columns if _base(column) in _TEXTS]
    widths = [_width(column) for column in texts]
    looks = [sa.func.max(_look(column)) for column in texts]
    if sum(widths) + 100 * len(images.columns) > LARGEST_BYTES:
        sizes = (sa.func.isnull(sa.func.datalength(c), sa.literal_column("0")) for c in texts)
        whole: Any = concatenated(*(sa.cast(size, sa.BigInteger) for size in sizes))
        looks.append(sa.func.max(whole))
    if not looks:
        return frozenset()
    found = cx.execute(sa.select(*looks).where(condition)).one()
    sizes_found = found[len(texts) :]
    if _OTHER in found[: len(texts)] or any((size or 0) > LARGEST_BYTES for size in sizes_found):
        return None
    return frozenset(column for column, kind in zip(texts, found, strict=False) if kind == _WITH_ESCAPES)


def _look(column: sa.Column[Any]) -> _Text:
    """What the text needs, as a number."""
    text = _as_text(column)
    is_other = text.like(sa.literal_column(_ESCAPED))
    return sa.case(
        (_is_plain(column), sa.literal_column(str(_PLAIN_TEXT))),
        (is_other, sa.literal_column(str(_OTHER))),
        else_=sa.literal_column(str(_WITH_ESCAPES)),
    )


def _is_plain(column: sa.Column[Any]) -> sa.ColumnElement[bool]:
    return sa.or_(column.is_(None), sa.not_(_as_text(column).like(sa.literal_column(_PLAIN))))


def _width(column: sa.Column[Any]) -> float:
    """How many bytes a text of the column has at most."""
    _, (size,), _ = type_parts(column.type.declared)  # type: ignore[attr-defined] # an MssqlType
    return 2 * size


def _as_text(column: sa.Column[Any]) -> _Text:
    """The text in one collation, which compares codes: the server does not join texts of two."""
    size = _width(column) / 2
    declared = f"nvarchar({int(size)})" if size <= _LONGEST else "nvarchar(max)"
    return sa.collate(as_type(column, declared), _BINARY)


def _record(columns: Sequence[sa.Column[Any]], escaped: frozenset[sa.Column[Any]]) -> _Text:
    parts = [
        part
        for place, column in enumerate(columns)
        for part in (_literal(f"{',' if place else '{'}{json.dumps(column.name)}:"), _json(column, column in escaped))
    ]
    return _joined([as_type(sa.literal_column("N''"), "nvarchar(max)"), *parts, _literal("}")])


def _list(columns: Sequence[sa.Column[Any]], escaped: frozenset[sa.Column[Any]]) -> _Text:
    """The columns' values as a JSON list."""
    parts = [
        part
        for place, column in enumerate(columns)
        for part in (_literal("," if place else "["), _json(column, column in escaped))
    ]
    return _joined([as_type(sa.literal_column("N''"), "nvarchar(max)"), *parts, _literal("]" if columns else "[]")])


def _joined(parts: list[_Text]) -> _Text:
    while len(parts) > 1:
        parts = [sa.func.concat(*some) for some in batched(parts, _ARGUMENTS)]
    return parts[0]


def _literal(text: str) -> _Text:
    """A constant of ASCII, as the statement spells it."""
    quoted = text.replace("'", "''")
    return sa.literal_column(f"N'{quoted}'")


def _json(column: sa.Column[Any], needs_escapes: bool) -> _Text:
    """The column's value as JSON; null for NULL."""
    base = _base(column)
    if base in INTEGER_BASES:
        return _or_null(as_type(column, "nvarchar(20)"))
    if base == "bit":
        one: Any = sa.literal_column("1")
        zero: Any = sa.literal_column("0")
        return sa.case((column == one, _literal("true")), (column == zero, _literal("false")), else_=_literal("null"))
    if base in DECIMAL_BASES:
        number = as_type(column, "decimal(19, 4)") if "money" in base else column
        return _or_null(concatenated(_literal('{"$decimal":"'), as_type(number, "nvarchar(60)"), _literal('"}')))
    if base == "date":
        day = as_type(converted_to_text(column, "23"), "nvarchar(20)")
        return _or_null(concatenated(_literal('{"$date":"'), day, _literal('"}')))
    if isinstance(column.type, ConvertedType):
        return _quoted(as_type(column.type.column_expression(column), "nvarchar(40)"))
    if base == "uniqueidentifier":
        return _quoted(as_type(column, "nvarchar(36)"))
    text = _as_text(column)
    if needs_escapes:
        replaced: _Text = sa.collate(as_type(text, "nvarchar(max)"), _BINARY)
        for code, escape in _ESCAPES.items():
            replaced = sa.func.replace(replaced, sa.literal_column(f"NCHAR({code})"), sa.literal_column(escape))
        text = sa.case((_is_plain(column), text), else_=replaced)
    return _quoted(text)


def _quoted(text: _Text) -> _Text:
    return _or_null(concatenated(_literal('"'), text, _literal('"')))


def _or_null(text: _Text) -> _Text:
    return sa.func.isnull(text, _literal("null"))


def _digits_of(key: sa.Column[Any]) -> _Text:
    """The sixteen hexadecimal digits of the key plus 2^63."""
    number = sa.cast(key, sa.BigInteger)
    low = number.op("&")(big((1 << 60) - 1))  # never negative, so a division cuts it as a shift would
    first = (number - low).op("/", precedence=8)(big(1 << 60)) + big(8)
    others = ((low.op("/", precedence=8)(big(1 << shift))).op("&")(big(15)) for shift in range(56, -1, -4))
    return concatenated(*map(_digit, (first, *others)))


def _digit(number: Any) -> _Text:
    one: Any = sa.literal_column("1")
    return sa.func.substring(sa.literal_column("N'0123456789abcdef'"), number + one, one)
