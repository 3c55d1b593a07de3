"""SQL Server's column types: how the driver sends their values, and which the server converts.

Times, and other values that are not exact in Python, travel as text or bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from functools import cache
from typing import Any

import sqlalchemy as sa

from backup.core.errors import ConfigError
from backup.core.model import Key
from backup.stores.sql.engines.column import Relation, ServerType, digits, type_parts
from backup.stores.sql.engines.mssql.expressions import as_exact_text, as_type, converted_to_text, hash_as_text


class MssqlType(ServerType):
    """A SQL Server type that says how to send its values: within a CAST, for NULL and in arrays the driver would guess
    wrongly."""

    cache_ok = True
    lists_whole_keys = False

    def __init__(self, declared: str, base: str) -> None:
        super().__init__(declared)
        self.base = base

    @property
    def kinds(self) -> tuple[type, ...]:  # type: ignore[override] # they follow from `base`
        match self.base:
            case "binary" | "varbinary" | "image" | "hierarchyid" | "geography" | "geometry":
                return (bytes,)
            case "bigint" | "int" | "smallint" | "tinyint" | "bit":
                return (int,)
            case "decimal" | "numeric" | "money" | "smallmoney":
                return (Decimal,)
            case "float" | "real":
                return (float,)
            case "date":
                return (date,)
            case _:  # text, and values that travel as text
                return (str,)

    def sent_as(self, dbapi: Any, values: Iterable[Any]) -> tuple[Any, int, int]:
        """The driver's type, size and scale for parameters with these values. The size is that of the values, not of
        the column: arrays need less memory, and the server refuses a value that is too long. It is never cut."""
        match self.base:
            case "binary" | "varbinary" | "image" | "hierarchyid" | "geography" | "geometry":
                return (dbapi.SQL_VARBINARY, room(values, 1, 8_000), 0)
            case "bigint":
                return (dbapi.SQL_BIGINT, 0, 0)
            case "int" | "smallint" | "tinyint":
                return (dbapi.SQL_INTEGER, 0, 0)
            case "bit":
                return (dbapi.SQL_BIT, 0, 0)
            case "float" | "real":
                return (dbapi.SQL_DOUBLE, 0, 0)
            case "date":
                return (dbapi.SQL_TYPE_DATE, 10, 0)
            case _:  # text, and values that travel as text
                return (dbapi.SQL_WVARCHAR, room(values, 2, 4_000), 0)

    def short_text(self, column: Any) -> Any:
        """The column's value as a text of at most 60 characters, without ; and ~. Equal values have equal texts,
        different values different ones. None for types whose values are texts of any length."""
        match self.base:
            case "binary" | "varbinary" | "image":
                return hash_as_text(as_type(column, "varbinary(max)"))
            case "char" | "varchar" | "nchar" | "nvarchar" | "text" | "ntext":
                return None
            case "float" | "real":  # all bits
                plain = sa.cast(as_type(as_type(column, "float"), "binary(8)"), sa.BigInteger)
            case "money" | "smallmoney":  # their own text has two decimals
                plain = as_type(column, "decimal(19, 4)")
            case "date":
                return converted_to_text(column, "121")
            case _:  # integers, decimals, uniqueidentifier
                plain = column
        return as_type(plain, "varchar(60)")

    def exact_text(self, column: Any) -> Any:
        """As `short_text`, as nvarchar(max), and of any type."""
        short = self.short_text(column)
        return as_exact_text(column if short is None else short)


def room(values: Iterable[Any], widest: int, limit: int) -> int:
    """A parameter size for every value: a power of two, so that statements differ little; 0, for max, above `limit`.

    `widest` is the number of code units of the widest character. Each character of a text that is not ASCII counts as
    so many.
    """
    longest = 1
    for value in values:
        if value is not None:
            units = len(value) if isinstance(value, bytes) or value.isascii() else len(value) * widest
            longest = max(longest, units)
    return min(1 << max(longest - 1, 15).bit_length(), limit) if longest <= limit else 0


def has_half_a_pair(text: str) -> bool:
    """Whether the text has half a surrogate pair: nvarchar may hold one, Python's encoders refuse it."""
    return not text.isascii() and _HALF_A_PAIR.search(text) is not None


class IntegerType(MssqlType):
    """The integers. One parameter looks up many of them: a list of a thousand takes the server several times as
    long."""

    cache_ok = True

    def may_list(self, values: Sequence[Any]) -> bool:
        return all(type(value) is int and value in _RANGES[self.base] for value in values)

    def listed(self, types: Sequence[ServerType], keys: Sequence[Key]) -> sa.TextClause:  # noqa: ARG002 - of one column
        # A list without NULL can be looked up by its hashes, also by NOT IN.
        return self._rows([key[0] for key in keys], " WHERE v IS NOT NULL")

    def has_one_of(self, column: sa.ColumnElement[Any], values: Sequence[Any]) -> sa.ColumnElement[bool]:
        return column.in_(self._rows(values)) if self.may_list(values) else super().has_one_of(column, values)

    def _rows(self, values: Sequence[int], condition: str = "") -> sa.TextClause:
        rows = sa.text(f"SELECT v FROM OPENJSON(:sought) WITH (v {self.declared} '$'){condition}")  # noqa: S608 - a type's name
        sought = sa.bindparam("sought", f"{list(values)}", type_=MssqlType("nvarchar(max)", "nvarchar"), unique=True)
        return rows.bindparams(sought)


class ConvertedType(MssqlType):
    """Types that are read as `CONVERT(read type, column, style)` and written as `CONVERT(type, value, style)`."""

    cache_ok = True

    def _convert(self, to: str, value: Any) -> Any:
        _, styles = _CONVERTED[self.base]
        return sa.func.convert(sa.literal_column(to), value, *map(sa.literal_column, styles))

    def column_expression(self, column: Any) -> Any:
        return self._convert(_CONVERTED[self.base][0], column)

    def short_text(self, column: Any) -> Any:
        return None if self.base in ("xml", "json") else self.column_expression(column)

    def exact_text(self, column: Any) -> Any:
        return as_exact_text(self.column_expression(column))

    def bind_expression(self, bindvalue: Any) -> Any:
        return self._convert(self.declared, bindvalue)


class RowVersionType(MssqlType):
    """rowversion, also called timestamp. A copy keeps its values in a plain column."""

    cache_ok = True
    lowest_open = sa.func.MIN_ACTIVE_ROWVERSION()


class DecimalType(MssqlType):
    """decimal, numeric and the money types. Exact in Python, but written as text: not every driver keeps 38 digits of a
    parameter."""

    cache_ok = True

    def bind_expression(self, bindvalue: Any) -> Any:
        return as_type(bindvalue, self.declared)


class ClrType(MssqlType):
    """hierarchyid, geography, geometry. Their values travel as serialised bytes."""

    cache_ok = True

    def column_expression(self, column: Any) -> Any:
        return as_type(column, "varbinary(max)")

    def short_text(self, column: Any) -> Any:
        return hash_as_text(self.column_expression(column))

    def bind_expression(self, bindvalue: Any) -> Any:
        return as_type(bindvalue, self.declared)


class CodePageType(MssqlType):
    """char and varchar. Parameters are Unicode: cast to the column's collation they compare as the column does and use
    its index."""

    cache_ok = True

    def __init__(self, declared: str, base: str, collation: str) -> None:
        super().__init__(declared, base)
        self.collation = collation

    def bind_expression(self, bindvalue: Any) -> Any:
        # As wide as possible: a cast to the column's length would cut a longer key into another key.
        widest = "varchar(max)" if "(max)" in self.declared else "varchar(8000)"
        return as_type(sa.collate(bindvalue, self.collation), widest)


def type_of(column: str, row: Mapping[str, Any]) -> ServerType:
    """The type in a row of sys.columns and sys.types. Raises ConfigError for a type that cannot be copied exactly."""
    sizes = (row["max_length"], row["precision"], row["scale"])
    type_ = _type_of(row["type_name"], row["base_name"], sizes, row["collation_name"], bool(row["has_openjson"]))
    if type_ is None:
        raise ConfigError(
            f"Column {column} has the type {row['type_name']}, which cannot be copied exactly.",
            hint="Back up a table without this column, or change the column's type.",
        )
    return type_


@cache  # so that a table read twice has equal columns
def _type_of(
    name: str | None, base_name: str | None, sizes: tuple[int, int, int], collation: str | None, has_openjson: bool
) -> ServerType | None:
    is_known = (
        name in _SIMPLE or name in _SIZED or name in _CONVERTED or name in _CLR or name in ("timestamp", "rowversion")
    )
    base = name if is_known else base_name  # an alias type counts as its base type, sysname as nvarchar(128)
    length, precision, scale = sizes
    collate = f" COLLATE {collation}" if collation else ""
    if base in ("timestamp", "rowversion"):
        return RowVersionType("binary(8)", "binary")
    if base in _SIZED:
        size = "max" if length == -1 else str(length // 2 if base in ("nchar", "nvarchar") else length)
        spelled = f"{base}({size}){collate}"
        return CodePageType(spelled, base, collation or "") if base in _CODE_PAGE else MssqlType(spelled, base)
    if base in ("decimal", "numeric"):
        return DecimalType(f"{base}({precision}, {scale})", base)
    if base in ("money", "smallmoney"):
        return DecimalType(base, base)
    if base == "float":
        return MssqlType(f"float({precision})" if precision in range(1, 54) else "float", base)
    if base in _SCALED_TIMES:
        return ConvertedType(f"{base}({scale})", base)
    if base in _CONVERTED:
        return ConvertedType(base, base)
    if base in _CLR:
        return ClrType(base, base)
    if base in _RANGES and has_openjson:
        return IntegerType(base, base)
    return MssqlType(f"{base}{collate}", base) if base in _SIMPLE else None


def relation(source: str, copy: str) -> Relation:
    """How the source's declared type compares with its copy's. Ignores collations."""
    (name, sizes, _), (copy_name, copy_sizes, _) = type_parts(source), type_parts(copy)
    if (name, sizes) == (copy_name, copy_sizes):
        return "same"
    if name in _INTEGERS and copy_name in _INTEGERS:
        wider = _INTEGERS.index(name) > _INTEGERS.index(copy_name)
    elif name in _LENGTHENED_TO.get(copy_name, ()) or (name == copy_name and name in _SCALED_TIMES):
        wider = sizes >= copy_sizes
    elif name in _DECIMALS and copy_name in _DECIMALS:
        wider = all(size >= copy_size for size, copy_size in zip(digits(sizes), digits(copy_sizes), strict=True))
    else:
        wider = (copy_name, name) == ("real", "float")
    return "wider" if wider else "other"


_HALF_A_PAIR = re.compile("[\ud800-\udfff]")
_INTEGERS = ("tinyint", "smallint", "int", "bigint")
_RANGES = {"tinyint": range(1 << 8)} | {
    name: range(-1 << bits, 1 << bits) for name, bits in (("smallint", 15), ("int", 31), ("bigint", 63))
}
_DECIMALS = ("decimal", "numeric")
_SCALED_TIMES = ("time", "datetime2", "datetimeoffset")
_LENGTHENED_TO = {  # with at least the same length; not char to varchar, since the padding would stay
    "char": ("char", "nchar"),
    "nchar": ("nchar",),
    "varchar": ("varchar", "nvarchar"),
    "nvarchar": ("nvarchar",),
    "binary": ("binary",),
    "varbinary": ("varbinary",),
}
_SIMPLE = {"bigint", "int", "smallint", "tinyint", "bit", "real", "float", "date", "uniqueidentifier"}
_SIMPLE |= {"image", "text", "ntext", "decimal", "numeric", "money", "smallmoney"}
_CODE_PAGE = {"char", "varchar"}
_SIZED = {"nchar", "nvarchar", "binary", "varbinary", *_CODE_PAGE}
_CONVERTED = {  # the type to read as, and the style of both conversions
    "time": ("varchar(20)", ()),
    "xml": ("nvarchar(max)", ("1",)),  # 1 keeps white space
    "json": ("nvarchar(max)", ()),
    **dict.fromkeys(("datetime", "smalldatetime", "datetime2", "datetimeoffset"), ("varchar(40)", ("121",))),
}
_CLR = {"hierarchyid", "geography", "geometry"}
