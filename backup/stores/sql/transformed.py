"""The transform of a table's rows: checked against the table, then applied to the rows that are read from it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, time
from decimal import Decimal
from math import isfinite
from typing import Any
from uuid import UUID

from backup.core.errors import ConfigError
from backup.core.model import Key
from backup.core.suggestions import did_you_mean
from backup.core.transforms import (
    Constant,
    Drop,
    FromJson,
    OwnFunction,
    Rename,
    Step,
    Transform,
    TransformFailed,
    number_of,
)
from backup.stores.sql.engines.column import Column, ServerType, named_column
from backup.stores.sql.masked import SOURCE_STAMP, is_text
from backup.stores.sql.rows import Rows
from backup.stores.values import LeftOut

_PLAIN = (str, int, float, Decimal, bytes, UUID)


class TransformedColumns:
    """The transform of one service over its source's table.

    `columns`: those of the copy. `declared`: which of them the file declares. `touched`: the names, in the source and
    in the copy, whose values the transform may change; a restore into the source leaves these alone.
    """

    def __init__(self, transform: Transform, columns: Sequence[Column], key_names: Sequence[str], label: str) -> None:
        """Raises ConfigError for a step about a column that is not there, or of the key, and for a new column without a
        type."""
        self._key_names, self._label, self._types = tuple(key_names), label, transform.types
        self._now = list(columns)
        self.declared: set[str] = set()
        self.touched: set[str] = set()
        self._transform = replace(transform, steps=tuple(map(self._resolved, transform.steps)))
        if unused := sorted(name for name in transform.types if name not in self.declared):
            raise self._error(f"types declares {unused[0]}, which no step of the transform gives.")
        names = [column.name.lower() for column in self._now]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise self._error(f"The transform gives the column {twice[0]} twice.")
        if SOURCE_STAMP.lower() in names:
            raise self._error(f"A transformed copy needs the column {SOURCE_STAMP} for itself, and there is another.")
        self.columns = tuple(self._now)
        self._names = tuple(column.name for column in self.columns)
        self._by_name = {column.name: column for column in self.columns}

    @property
    def may_leave_out(self) -> bool:
        """As `Transform.may_leave_out`."""
        return self._transform.may_leave_out

    @property
    def never_fails(self) -> bool:
        """Whether each record becomes one of the copy, whatever is in it."""
        return not any(isinstance(step, OwnFunction | FromJson) for step in self._transform.steps)

    def applied(self, records: Rows) -> tuple[Rows, LeftOut]:
        """The records of the copy, and which of these records do not belong to it or could not be transformed."""
        has_stamp = SOURCE_STAMP in records.names
        rows, keys, failed = list[tuple[Any, ...]](), set[Key](), dict[Key, str]()
        for record in records:
            stamp = (record.pop(SOURCE_STAMP),) if has_stamp else ()  # type: ignore[attr-defined]
            key = tuple(record[name] for name in self._key_names)
            try:
                copy = self._transform.applied(record)
                if copy is None:
                    keys.add(key)
                else:
                    rows.append((*self._row(copy, key, record), *stamp))
            except TransformFailed as error:
                failed[key] = str(error)
        names = (*self._names, SOURCE_STAMP) if has_stamp else self._names
        return Rows(names, rows, large=records.large), LeftOut(frozenset(keys), failed)

    def _row(self, copy: Mapping[str, Any], key: Key, record: Mapping[str, Any]) -> tuple[Any, ...]:
        if unknown := sorted(copy.keys() - self._by_name.keys()):
            raise TransformFailed(
                f"The transform gave {unknown[0]}, and the copy has no such column; types declares it."
            )
        if tuple(copy.get(name) for name in self._key_names) != key:
            raise TransformFailed("The transform changed the key.")
        return tuple(self._stored(name, copy.get(name), record.get(name)) for name in self._names)

    def _stored(self, name: str, value: Any, original: Any) -> Any:
        """The value as the column takes it. `original` is what the source has in the column of this name."""
        if value is None or name not in self.touched:
            return value
        if isinstance(value, Mapping | list | tuple):
            try:
                return json.dumps(value, ensure_ascii=False, default=number_of)
            except (TypeError, ValueError):
                raise TransformFailed(f"The transform gave {name} a value that JSON cannot hold.") from None
        if isinstance(value, datetime):
            return value.isoformat(sep=" ")
        if isinstance(value, date | time):
            return value.isoformat()
        if not isinstance(value, _PLAIN):
            raise TransformFailed(f"The transform gave {name} a value of the type {type(value).__name__}.")
        if isinstance(value, float | Decimal) and value is not original and not isfinite(value):
            # SQLite keeps NULL of such a value, and elsewhere it equals nothing: no verify would find it again.
            raise TransformFailed(f"The transform gave {name} the value {value}, which is not a number.")
        if name in self.declared and not isinstance(value, str | bytes) and is_text(self._by_name[name].type.declared):
            return str(value).lower() if isinstance(value, bool) else str(value)
        return value

    # --- the steps over these columns ---------------------------------------------------------------------------------

    def _resolved(self, step: Step) -> Step:
        """The step with the names as the columns are spelled; afterwards the columns are those that the step gives."""
        match step:
            case Rename():
                names = {self._column(old).name: new for old, new in step.names.items()}
                self._now = [self._renamed(column, names.get(column.name)) for column in self._now]
                return Rename(names)
            case Constant():
                return Constant({self._given(name): value for name, value in step.values.items()})
            case FromJson():
                parts = {
                    name: replace(part, column=self._column(part.column, may_be_key=True).name)
                    for name, part in step.values.items()
                }
                return FromJson({self._given(name): part for name, part in parts.items()})
            case Drop():
                names_to_drop = tuple(self._column(name).name for name in step.names)
                self._now = [column for column in self._now if column.name not in names_to_drop]
                self.touched.update(names_to_drop)
                return Drop(names_to_drop)
            case OwnFunction():
                self.touched.update(column.name for column in self._now if column.name not in self._key_names)
                for name in self._types:
                    self._given(name)
                return step

    def _renamed(self, column: Column, name: str | None) -> Column:
        if name is None:
            return column
        self.touched.update((column.name, name))
        return self._typed(replace(column, name=name, nullable=True, identity=False, computed=False, defaulted=False))

    def _given(self, name: str) -> str:
        """The name of a column to which a step gives a value, as it is spelled. Adds the column if it is new."""
        column = named_column(self._now, name)
        if column is None:
            if name not in self._types:
                raise self._error(
                    f"The transform gives a column {name}, whose type is not known.",
                    f'Declare it: types = {{ {name} = "…" }}, in the words of the backup\'s server.',
                )
            column = Column(name, ServerType(self._types[name]), nullable=True)
            self._now.append(column)
        self._refuse_key(column)
        plain = replace(column, nullable=True, identity=False, computed=False, defaulted=False)
        self._now = [self._typed(plain) if other is column else other for other in self._now]
        self.touched.add(column.name)
        return column.name

    def _typed(self, column: Column) -> Column:
        """The column with the type that the file declares, if it declares one."""
        if column.name not in self._types:
            return column
        self.declared.add(column.name)
        return replace(column, type=ServerType(self._types[column.name]), collation=None)

    def _column(self, name: str, *, may_be_key: bool = False) -> Column:
        column = named_column(self._now, name)
        if column is None:
            near = did_you_mean(name, [column.name for column in self._now])
            raise self._error(f"The {self._label} has no column {name} for its transform.{near}")
        if not may_be_key:
            self._refuse_key(column)
        return column

    def _refuse_key(self, column: Column) -> None:
        if column.name in self._key_names:
            raise self._error(f"The transform cannot change {column.name}: it is part of the key.")

    def _error(self, message: str, hint: str = "Correct the transform in backup.toml.") -> ConfigError:
        return ConfigError(f"{message} Nothing was read or written.", hint=hint)
