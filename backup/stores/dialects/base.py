"""What a dialect answers, and the column type that carries every value untouched."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.types import UserDefinedType

from backup.errors import BackupError


class ServerType(UserDefinedType[Any]):
    """A column type known by the server's own name for it. Values pass as the driver gives them, with no conversion.

    `declared` is the text for CREATE TABLE, taken from the server's catalogue (never from a request).
    """

    cache_ok = True

    def __init__(self, declared: str) -> None:
        self.declared = declared

    def get_col_spec(self, **_: Any) -> str:
        return self.declared


@dataclass(frozen=True)
class Column:
    """A column as the server's catalogue describes it.

    `type.declared` is how a backup declares it, which for a column that cannot be written (rowversion) is the plain type of
    the same values. `key_position` counts the primary key's columns from 1. `collation` is set for text. Identity and computed columns refuse ordinary writes in this table.
    """

    name: str
    type: ServerType
    nullable: bool
    key_position: int | None = None
    collation: str | None = None
    identity: bool = False
    computed: bool = False

    def holds(self, source: Column) -> bool:
        """Whether every value of the source's column fits here unchanged: same type, same or larger size."""
        mine, theirs = _size(self.type.declared), _size(source.type.declared)
        if mine == theirs:
            return True
        return (
            mine[0] == theirs[0]
            and len(mine[1]) == len(theirs[1])
            and all(a >= b for a, b in zip(mine[1], theirs[1], strict=True))
        )


def _size(declared: str) -> tuple[str, tuple[float, ...]]:
    plain = re.split(r"\s+collate\s+", declared.lower())[0].strip()
    match = re.fullmatch(r"([^(]*)\(([\d\s,]+|max)\)(.*)", plain)
    if match is None:
        return plain, ()
    sizes = tuple(float("inf") if part.strip() == "max" else float(part) for part in match[2].split(","))
    if match[1].strip() in ("decimal", "numeric") and len(sizes) == 2:
        sizes = (sizes[0] - sizes[1], sizes[1])  # digits before and behind the point must both fit
    return match[1].strip() + match[3], sizes


@dataclass(frozen=True)
class Failure:
    """What a driver's error means, in words that are safe to show."""

    kind: str = field(metadata={"one of": "transient, database_missing, missing, unavailable, refused"})
    text: str


class Dialect(Protocol):
    """One SQL server product and the database a connection string names on it."""

    kind: str
    product: str
    default_schema: str | None
    max_parameters: int

    @property
    def location(self) -> str:
        """Server and database, for messages and to tell whether two sides are the same. Without secrets."""

    @property
    def engine(self) -> sa.Engine:
        """The pool; connects when first used. SQLite: the file must exist."""

    def ensure_database(self) -> None:
        """Creates the database when it is missing."""

    def ensure_schema(self, cx: sa.Connection, schema: str) -> None:
        """Creates the schema when it is missing."""

    def columns(self, cx: sa.Connection, schema: str | None, table: str) -> list[Column]:
        """The table's columns in order; empty when there is no such table."""

    def failure(self, error: Exception) -> Failure:
        """What an error raised by the driver means."""

    def before_insert(self, cx: sa.Connection, table: sa.Table, identity: bool) -> None:
        """Lets explicit values into an identity column where the server wants to be asked."""


def driver_text(error: BaseException) -> str:
    """The driver's message without the values it may quote: first line only, cut before quoted data."""
    text = str(error.args[-1] if error.args else error).strip()
    text = text.splitlines()[0] if text else type(error).__name__
    return re.split(r"Truncated value:|The duplicate key value is|DETAIL:", text)[0].strip().rstrip(".,(") + "."


def missing_driver(name: str, hint: str) -> BackupError:
    """The error for a driver that is not installed."""
    from backup.errors import ConfigError

    return ConfigError(f"The driver {name} cannot be loaded.", hint=hint)
