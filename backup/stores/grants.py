"""What is granted to whom: values of the engines' modules `rights`. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple
from uuid import UUID

from backup.core.model import SideName

WRITES = ("INSERT", "UPDATE", "DELETE")

_NAMED_AT_MOST = 5


@dataclass(frozen=True)
class Grantee:
    """The app's user or role in a database.

    An identity may be named by its `object_id` or its `client_id`, so that no other identity of the same name is meant.
    `has_password`: it logs in with a password, and the server has a login of this name already.
    """

    name: str
    object_id: UUID | None = None
    client_id: UUID | None = None
    has_password: bool = False


@dataclass(frozen=True)
class Needed:
    """What the app works with in one database: `tables`, as schema and name; without any, every table of the schemas.

    `restores`: it may write to a source. `unmasks`: it may see columns that the server masks. `grows`: of a set, whose
    syncs make the copies of tables that are new in the source.
    """

    role: SideName
    schemas: tuple[str, ...]
    tables: tuple[tuple[str, str], ...] = ()
    restores: bool = False
    unmasks: bool = False
    grows: bool = False


class Statement(NamedTuple):
    """A statement without its semicolon, why it is needed, and the database in which to run it if it is another one."""

    sql: str
    why: str = ""
    database: str | None = None

    @property
    def text(self) -> str:
        """The statement as a person runs it."""
        return f"{self.sql};" + (f"  -- {self.why}" if self.why else "")


RightKind = Literal["missing", "later", "excess"]
"""Missing: a run needs it now. Later: only what the source may yet get needs it. Excess: the app does not need it."""


class RightSeen(NamedTuple):
    """A right that the app's login lacks, or has beyond its need; on a table, or on what `of` says."""

    kind: RightKind
    right: str
    of: str


def grouped(seen: Sequence[RightSeen], kind: RightKind) -> str:
    """The rights of one kind in a sentence: `INSERT, UPDATE on shop.orders and 3 more`; empty without any."""
    by_place: dict[str, list[str]] = {}
    for right in seen:
        if right.kind == kind:
            by_place.setdefault(right.of, []).append(right.right)
    texts = [f"{', '.join(rights)} on {place}" for place, rights in by_place.items()]
    rest = f" and {len(texts) - _NAMED_AT_MOST} more" if len(texts) > _NAMED_AT_MOST else ""
    return "; ".join(texts[:_NAMED_AT_MOST]) + rest
