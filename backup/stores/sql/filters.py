"""The filter of a service over a table's columns: the values as the columns have them, and the conditions."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import sqlalchemy as sa

from backup.core.conditions import Condition, Range, Value, converted
from backup.core.errors import ConfigError
from backup.core.suggestions import did_you_mean
from backup.stores.asked_keys import value_of
from backup.stores.sql.engines.column import Column, has_one_of, named_column
from backup.stores.values import Rules

_FLAGS = ("bit", "bool", "boolean")
_COMPARISONS: Mapping[str, Callable[[Any, Any], Any]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


def filter_values(columns: Sequence[Column], rules: Rules, label: str, *, plain: bool) -> Mapping[str, Any]:
    """The values that the filter's columns must have, as values of their types. Leaves out columns that do not exist.

    Raises ConfigError for a required column that does not exist, and for a value that a column cannot have.
    """
    for name, setting in rules.required.items():
        if named_column(columns, name) is None:
            raise ConfigError(
                f"The {label} has no column {name}, which the setting {setting} names."
                f"{did_you_mean(name, (column.name for column in columns))} Nothing was changed.",
                hint="Name a column of the table; case does not count.",
            )
    values = {}
    for name, condition in rules.where.items():
        if (column := named_column(columns, name)) is None:
            continue
        try:
            values[name] = converted(condition, partial(_value, column, plain=plain))
        except (ValueError, ArithmeticError):
            raise ConfigError(
                f"The column {name} of the {label} has the type {column.type.declared}, and cannot have the value in "
                "the filter of the service. Nothing was changed.",
                hint=f"Correct the setting {rules.required.get(name, 'Where')}.",
            ) from None
    return values


def _value(column: Column, value: Value, *, plain: bool) -> Any:
    if plain and isinstance(value, bool):
        return int(value)  # SQLite's driver has no type for true and false; its columns hold 0 and 1
    if isinstance(value, bool) and column.type.declared.lower() in _FLAGS:
        return value
    return value_of(column.type.declared, value, plain=plain)


def fulfils(column: sa.ColumnElement[Any], condition: Condition) -> sa.ColumnElement[bool]:
    """The condition on a column, whose values `filter_values` has made."""
    if isinstance(condition, Range):
        limits = ((_COMPARISONS[sign], sa.literal(value, column.type)) for sign, value in condition.limits)
        return sa.and_(*(compares(column, limit) for compares, limit in limits))
    if isinstance(condition, tuple):
        return has_one_of(column, condition)  # not a chain of OR: SQLite takes a thousand at most
    return column == condition
