"""PostgreSQL's types. Values without an exact Python value travel as the server's own text and come back the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import cache
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from backup.core.model import Key
from backup.stores.exact_json import has_integers_only
from backup.stores.sql.engines.column import Relation, ServerType, digits, own_parameter, type_parts
from backup.stores.sql.engines.postgresql.collations import NOT_DETERMINISTIC

# Types whose Python value is exact in both directions. All others (times with infinity, intervals with months, json,
# arrays, ranges, enums …) are read as text and cast back.
_NATIVE = {
    **dict.fromkeys(("int2", "int4", "int8"), int),
    **dict.fromkeys(("text", "varchar", "bpchar"), str),
    **{"bool": bool, "bytea": bytes, "numeric": Decimal, "uuid": UUID},
}
_INTEGERS = ("smallint", "integer", "bigint")
_SIZED = {"text", "character varying", "character", "bytea"}
_STORED_SMALL = 1_000  # bytes
_SPELLED_ONCE = {
    *("int2", "int4", "int8", "uuid", "text", "varchar", "bytea", "bool"),
    *("date", "time", "timestamp", "timestamptz"),
}
_FIXED_SIZE = {"bpchar", "numeric"}
"""Types of which a column with a size spells each value in one way, which another size spells in another way."""
_TEXTS = ("character varying", "text")
_NAMING = {
    *("regclass", "regcollation", "regconfig", "regdictionary", "regnamespace", "regoper", "regoperator"),
    *("regproc", "regprocedure", "regrole", "regtype", "aclitem"),
}


class ListedType(ServerType):
    """A type of which one parameter looks up many values: a list of a thousand takes the driver longer than the
    server."""

    cache_ok = True

    @property
    def element(self) -> str:
        """The type of the parameter's elements. It has no size: to cast a text to a smaller one cuts it."""
        raise NotImplementedError

    def array(self, values: Sequence[Any]) -> Any:
        """The values as the parameter."""
        return [*values]

    def may_list(self, values: Sequence[Any]) -> bool:
        return {*map(type, values)} <= {*self.kinds}

    def listed(self, types: Sequence[ServerType], keys: Sequence[Key]) -> sa.TextClause:
        return unnested(types, keys)

    def has_one_of(self, column: sa.ColumnElement[Any], values: Sequence[Any]) -> sa.ColumnElement[bool]:
        if not self.may_list(values):
            return super().has_one_of(column, values)
        # As a subquery: otherwise the planner reads a table without statistics from end to end for each batch.
        any_of = sa.text(f"ANY (ARRAY(SELECT unnest(CAST(:sought AS {self.element}[]))))")
        return column.op("=", is_comparison=True)(any_of.bindparams(own_parameter("sought", self.array(values))))


class TextType(ListedType):
    """A column that is read as the server's text, and cast back to its `own` type when it is written or compared.

    A copy need not have the table's `own` type, for example a type that somebody created there.
    """

    cache_ok = True
    kinds = (str,)

    def __init__(self, declared: str, own: str) -> None:
        super().__init__(declared)
        self.own = own

    def column_expression(self, column: Any) -> Any:
        return sa.cast(column, sa.Text)

    @property
    def element(self) -> str:
        return self.own

    def may_list(self, values: Sequence[Any]) -> bool:
        # The driver, and SQLAlchemy, would take some characters of a name for a parameter.
        return super().may_list(values) and self.own.replace(" ", "").isalnum()

    def bind_expression(self, bindvalue: Any) -> Any:
        # The driver takes a single % in a name as a parameter.
        return sa.cast(sa.cast(bindvalue, sa.Text), ServerType(self.own.replace("%", "%%")))

    def in_order(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        return sa.cast(column, sa.Text).collate("C")  # json, for example, has no order


class NativeType(ListedType):
    """A column whose values are exact in Python. `base` is the catalogue's name of its type."""

    cache_ok = True

    def __init__(self, declared: str, base: str) -> None:
        super().__init__(declared)
        self.base = base
        self.kinds = (_NATIVE[base],)

    @property
    def element(self) -> str:
        return self.base

    def spells(self, value: Any) -> bool:
        if not self.may_hold(value) or self.base not in _FIXED_SIZE:
            return self.may_hold(value)
        sizes = type_parts(self.declared)[1]
        if self.base == "bpchar":
            return len(value) == sizes[0]
        return bool(value.is_nan() or -value.as_tuple().exponent == sum(sizes[1:]))

    def spells_like(self, other: ServerType) -> bool:
        return self.base not in _FIXED_SIZE or type_parts(self.declared)[:2] == type_parts(other.declared)[:2]


class IntegerType(ListedType):
    """Integers."""

    cache_ok = True
    kinds = (int,)
    element = "bigint"

    def array(self, values: Sequence[Any]) -> Any:
        return f"{{{','.join(map(str, values))}}}"

    def may_list(self, values: Sequence[Any]) -> bool:
        return has_integers_only((*values,))


def unnested(
    types: Sequence[Any], keys: Sequence[Key], texts: Mapping[str, Sequence[str]] | None = None
) -> sa.TextClause:
    """A subquery that selects these keys of columns of these types, each with its `texts`. A parameter for each column
    has all of its values."""
    listed = {f"part_{place}": parts for place, parts in enumerate(zip(*keys, strict=True))}
    values = {name: type_.array(parts) for type_, (name, parts) in zip(types, listed.items(), strict=True)}
    values |= {name: [*some] for name, some in (texts or {}).items()}
    arrays = [f"{type_.element}[]" for type_ in types] + ["text[]"] * len(texts or {})
    casts = ", ".join(f"CAST(:{name} AS {array})" for name, array in zip(values, arrays, strict=True))
    names = ", ".join(f'"{name}"' for name in values)
    parameters = (own_parameter(name, value) for name, value in values.items())
    return sa.text(f"SELECT * FROM unnest({casts}) AS t ({names})").bindparams(*parameters)  # noqa: S608 - no value


def size_expression(column: sa.ColumnElement[Any]) -> sa.ColumnElement[int] | None:
    """How many bytes a value of this column has when it is read; None where it is never large. The server reads a large
    value only if it must become text for that."""
    if isinstance(column.type, TextType):
        text = sa.func.octet_length(sa.cast(column, sa.Text))
        stored = sa.func.pg_column_size(column)
        return sa.func.coalesce(sa.case((stored > _STORED_SMALL, text), else_=stored), 0)
    declared = getattr(column.type, "declared", None)
    if isinstance(column.type, sa.String) or (declared and type_parts(declared)[0] in _SIZED):
        return sa.func.coalesce(sa.func.octet_length(column), 0)
    return None


def relation(source: str, copy: str) -> Relation:
    """How the source's declared type compares with its copy's. Ignores collations."""
    (name, sizes, _), (copy_name, copy_sizes, _) = type_parts(source), type_parts(copy)
    if (name, sizes) == (copy_name, copy_sizes):
        return "same"
    if name in _INTEGERS and copy_name in _INTEGERS:
        wider = _INTEGERS.index(name) > _INTEGERS.index(copy_name)
    elif name in _TEXTS and copy_name in _TEXTS:
        wider = _size(sizes) >= _size(copy_sizes)
    elif name == copy_name == "numeric":
        wider = all(size >= copy_size for size, copy_size in zip(digits(sizes), digits(copy_sizes), strict=True))
    elif name == copy_name and name.startswith("time"):
        wider = _size(sizes, 6) >= _size(copy_sizes, 6)
    elif name == copy_name == "character":
        wider = _size(sizes) >= _size(copy_sizes)
    else:
        wider = (copy_name, name) == ("real", "double precision")
    return "wider" if wider else "other"


def _size(sizes: tuple[float, ...], default: float = float("inf")) -> float:
    return sizes[0] if sizes else default


def is_spelled_once(base: str, own: str, collation: str | None) -> bool:
    """As `Column.spelled_once`, of a built-in type. Only of texts does a collation decide."""
    if collation is not None and NOT_DETERMINISTIC in collation:
        return False
    return base in _SPELLED_ONCE or (base in _FIXED_SIZE and bool(type_parts(own)[1]))


def names_objects(base: str) -> bool:
    """Whether the values of a built-in type, or of its arrays, name tables, roles and the like of their own database.
    Another database may lack these, and has them in another order."""
    return base.removeprefix("_") in _NAMING


@cache  # so that a table read twice has equal columns
def type_of(base: str, own: str, is_known: bool, collation: str | None) -> ServerType:
    """The type of a column. `base` is the catalogue's name of it, `own` this session's spelling. A copy declares a type
    as text, unless every database knows it and its values (`is_known`)."""
    declared = own if is_known else "text"
    spelled = f"{declared} COLLATE {collation}" if collation else declared
    if not (is_known and base in _NATIVE):
        return TextType(spelled, own)
    return IntegerType(spelled) if declared in _INTEGERS else NativeType(spelled, base)
