"""PostgreSQL's types: what has no exact Python value travels as the server's own text, and so comes back the same."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from functools import cache
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from backup.stores.sql.engines.column import Relation, ServerType, digits, type_parts

# Types whose Python value is exact in both directions. All others (times with infinity, intervals with months, json,
# arrays, ranges, enums …) are read as text and cast back.
_NATIVE = {
    **dict.fromkeys(("int2", "int4", "int8"), int),
    **dict.fromkeys(("text", "varchar", "bpchar"), str),
    **{"bool": bool, "bytea": bytes, "numeric": Decimal, "uuid": UUID},
}
_INTEGERS = ("smallint", "integer", "bigint")
_SIZED = {"text", "character varying", "character", "bytea"}
_STORED_SMALL = 1_000
_TEXTS = ("character varying", "text")


class TextType(ServerType):
    """A column read as the server's text for it and cast back when written or compared: to its `own` type, which the
    table may have and no copy, as one that somebody has made."""

    cache_ok = True
    kinds = (str,)

    def __init__(self, declared: str, own: str) -> None:
        super().__init__(declared)
        self.own = own

    def column_expression(self, column: Any) -> Any:
        return sa.cast(column, sa.Text)

    def bind_expression(self, bindvalue: Any) -> Any:
        # The driver takes a single % of a name for a parameter.
        return sa.cast(sa.cast(bindvalue, sa.Text), ServerType(self.own.replace("%", "%%")))


class NativeType(ServerType):
    """A column whose values the driver has exactly; `base` is the catalogue's name for its type."""

    cache_ok = True

    def __init__(self, declared: str, base: str) -> None:
        super().__init__(declared)
        self.base = base
        self.kinds = (_NATIVE[base],)


class IntegerType(ServerType):
    """Integers. Many are looked up by one parameter: a list of a thousand takes the driver longer than the server."""

    cache_ok = True
    kinds = (int,)

    def has_one_of(self, column: sa.ColumnElement[Any], values: Sequence[Any]) -> sa.ColumnElement[bool]:
        if any(type(value) is not int for value in values):
            return super().has_one_of(column, values)
        # Through a query, or the planner takes a new table, of which it knows nothing, from end to end for each batch.
        any_of = sa.text("ANY (ARRAY(SELECT unnest(CAST(:sought AS bigint[]))))")
        return column.op("=", is_comparison=True)(any_of.bindparams(sought=f"{{{','.join(map(str, values))}}}"))


def size_expression(column: sa.ColumnElement[Any]) -> sa.ColumnElement[int] | None:
    """How many bytes a value of this column takes when it is read; None where it is never large. Reads no large value,
    unless it has to become text for that."""
    if isinstance(column.type, TextType):
        text = sa.func.octet_length(sa.cast(column, sa.Text))
        stored = sa.func.pg_column_size(column)
        return sa.func.coalesce(sa.case((stored > _STORED_SMALL, text), else_=stored), 0)
    declared = getattr(column.type, "declared", None)
    if isinstance(column.type, sa.String) or (declared and type_parts(declared)[0] in _SIZED):
        return sa.func.coalesce(sa.func.octet_length(column), 0)
    return None


def relation(source: str, copy: str) -> Relation:
    """How the source's declared type stands to its copy's, collations aside."""
    (name, has, _), (was, had, _) = type_parts(source), type_parts(copy)
    if (name, has) == (was, had):
        return "same"
    if name in _INTEGERS and was in _INTEGERS:
        wider = _INTEGERS.index(name) > _INTEGERS.index(was)
    elif name in _TEXTS and was in _TEXTS:
        wider = _size(has) >= _size(had)
    elif name == was == "numeric":
        wider = all(now >= before for now, before in zip(digits(has), digits(had), strict=True))
    elif name == was and name.startswith("time"):
        wider = _size(has, 6) >= _size(had, 6)
    elif name == was == "character":
        wider = _size(has) >= _size(had)
    else:
        wider = (was, name) == ("real", "double precision")
    return "wider" if wider else "other"


def _size(sizes: tuple[float, ...], default: float = float("inf")) -> float:
    return sizes[0] if sizes else default


@cache  # so that the columns of a table read twice are equal
def type_of(base: str, own: str, builtin: bool, collation: str | None) -> ServerType:
    """The type of a column: `base` is the catalogue's name for it, `own` how this session spells it. A copy keeps as
    text what is not `builtin`, for its database need not have the type."""
    declared = own if builtin else "text"
    spelled = f"{declared} COLLATE {collation}" if collation else declared
    if not (builtin and base in _NATIVE):
        return TextType(spelled, own)
    return IntegerType(spelled) if declared in _INTEGERS else NativeType(spelled, base)
