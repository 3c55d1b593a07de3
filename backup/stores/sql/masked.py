"""The masks of a table's columns: checked against the table, then put over the rows that are read from it."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

from backup.core.errors import ConfigError
from backup.core.masks import HMAC_CHARACTERS, NO_MASKS, Mask, Masking
from backup.core.model import Record
from backup.core.suggestions import did_you_mean
from backup.core.transforms import MARK_DIGITS, Transform
from backup.stores.sql.engines.column import Column, named_column, type_parts
from backup.stores.sql.engines.prepared import Row
from backup.stores.values import Rules

SOURCE_STAMP = "SourceStamp"
"""The column of a masked copy that says of which record, and by which masks, it was made."""

_TEXTS, _TIMES = ("char", "clob", "text"), ("date", "timestamp")
_FILLED_UP = ("char", "nchar", "character")
_FRACTION = re.compile(r"\.0+")


class MaskedColumns:
    """The masks of one service over one table."""

    def __init__(
        self, masking: Masking, columns: Sequence[Column], kind: str, transform: Transform | None = None
    ) -> None:
        """`kind` is the dialect's. Masks of other columns are ignored. The columns of a copy have the names that its
        `transform` gives them."""
        self._masking, self._kind, self._transform = masking, kind, transform
        copied = ((name, name if transform is None else transform.named(name)) for name in masking.masks)
        masks = ((name, named_column(columns, copied_name)) for name, copied_name in copied)
        self._masks = {column.name: (name, column) for name, column in masks if column is not None}

    @classmethod
    def checked(
        cls, rules: Rules, columns: Sequence[Column], key_names: Sequence[str], label: str, kind: str
    ) -> MaskedColumns:
        """The masks of a source. Raises ConfigError for a mask of a column that is not there or that it cannot have."""
        masking = rules.masking or NO_MASKS
        masked = cls(masking, columns, kind)
        spelled = {name for name, _ in masked._masks.values()}
        for name, mask in masking.masks.items():
            if name not in spelled:
                near = did_you_mean(name, [column.name for column in columns])
                raise ConfigError(
                    f"The {label} has no column {name} that is copied, for the mask of this name, or a second mask for "
                    f"it.{near} Nothing was read or written.",
                    hint="Name each column once; case does not count. One that is left out needs no mask.",
                )
            alike = [column.name for column in columns if column.name.lower() == name.lower()]
            if len(alike) > 1 and name not in alike:
                raise ConfigError(
                    f"The mask of {name} may stand for several columns of the {label}: {', '.join(alike)}. Nothing was "
                    "read or written.",
                    hint="Spell the column as the table does.",
                )
            column = next(column for spelled_name, column in masked._masks.values() if spelled_name == name)
            compared = rules.compared | {*map(str.lower, key_names)}
            if reason := _reason_against(mask, column, compared):
                others = "Choose another mask for it, `null` for example, or leave the column out."
                raise ConfigError(
                    f"The column {column.name} of the {label} ({column.type.declared}) cannot have the mask "
                    f"{mask.kind}: it {reason}. Nothing was read or written.",
                    hint="Remove the mask: no mask hides such a column." if column.name.lower() in compared else others,
                )
        if any(column.name.lower() == SOURCE_STAMP.lower() for column in columns):
            raise ConfigError(
                f"The {label} has a column {SOURCE_STAMP}, which a masked copy needs for itself. Nothing was "
                "read or written.",
                hint="Leave this column out of the copy, or rename it in the source.",
            )
        return masked

    @property
    def names(self) -> Collection[str]:
        """The names of the masked columns, as the table spells them."""
        return self._masks.keys()

    def has(self, column: Column) -> bool:
        """Whether the column is masked."""
        return column.name in self._masks

    def made(self, stamp: Any) -> bool:
        """Whether these masks made the copy that has this SourceStamp, with whatever transform."""
        digits = stamp.hex() if isinstance(stamp, bytes) else stamp
        mark = self._masking.mark
        return isinstance(digits, str) and digits[-len(mark) :][:MARK_DIGITS] == mark[:MARK_DIGITS]

    def rows(self, names: Sequence[str], rows: list[Row]) -> list[Row]:
        """The rows, whose values have these names, with masked values."""
        places = [(place, name) for place, name in enumerate(names) if name in self._masks]
        if not places:
            return rows
        columns = [list(column) for column in zip(*rows, strict=True)]
        for place, name in places if rows else ():
            columns[place] = [self._masked(name, value) for value in columns[place]]
        return list(zip(*columns, strict=True))

    def image(self, record: Record, key_names: Collection[str]) -> Record:
        """A copy that these masks have not made, as the bin may keep it. Nobody knows where a function has put the
        values, so of such a copy the bin keeps the key alone."""
        if self._transform is not None and self._transform.may_leave_out:
            return {name: value if name in key_names else None for name, value in record.items()}
        return {name: self._masked(name, value) if name in self._masks else value for name, value in record.items()}

    def _masked(self, name: str, value: Any) -> Any:
        spelled, column = self._masks[name]
        masked = self._masking.masked(spelled, value)
        if not isinstance(masked, str):
            return masked
        base, sizes, _ = type_parts(column.type.declared)
        if sizes and len(masked) > sizes[0] and _is_of(_TEXTS, base):  # an address whose domain is long
            masked = self._masking.hmac(value)
        if self._kind == "sqlite":
            return masked
        if base in _FILLED_UP:
            return masked.ljust(int(sizes[0]))
        # PostgreSQL prints no fraction of a full second.
        return _FRACTION.sub("", masked) if self._kind == "postgresql" and _is_of(_TIMES, base) else masked


def is_text(declared: str) -> bool:
    """Whether a column that is declared so holds text."""
    return _is_of(_TEXTS, type_parts(declared)[0])


def _reason_against(mask: Mask, column: Column, compared: Collection[str]) -> str:
    base, sizes, _ = type_parts(column.type.declared)
    if column.name.lower() in compared:
        return "is part of the key, the version or the filter"
    if mask.kind == "null":
        return ""
    if mask.kind == "year":
        return "" if _is_of((*_TIMES, *_TEXTS), base) else "holds no dates"
    if not _is_of(_TEXTS, base):
        return "holds no text"
    needed = len(mask.text) if mask.kind == "text" else HMAC_CHARACTERS
    size = sizes[0] if sizes else 1 if base in _FILLED_UP else needed
    return f"is too short for {needed} characters" if size < needed else ""


def _is_of(parts: Sequence[str], base: str) -> bool:
    return any(part in base for part in parts) and not base.endswith(("[]", "range"))
