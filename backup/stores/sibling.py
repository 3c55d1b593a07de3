"""What a table or container of the app's own is, beside a store's: its shape, and what is done with its entries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

FieldType = Literal["name", "place", "text", "json", "integer", "decimal", "time", "flag"]


@dataclass(frozen=True)
class Shape:
    """A table or container of the app's own: a table `name` on SQL, a `container` on Cosmos.

    Fields are named as SQL columns; documents use them in camelCase. `key` is the SQL primary key and, in Cosmos, also
    the document's `id`; `partition` is the Cosmos partition key. `indexes` are the fields of each SQL index; Cosmos
    indexes every property. Where `parts_with` names fields, an entry that is larger than a document may be is kept in
    several there; each of its parts has these fields too, so that whoever looks for keys by them finds it.
    """

    name: str
    container: str
    key: str
    partition: str
    fields: Mapping[str, FieldType]
    indexes: tuple[tuple[str, ...], ...] = ()
    parts_with: tuple[str, ...] = ()


Entry = Mapping[str, Any]
"""One row or document of a sibling, by the field names of its shape; times are aware UTC."""


OneOf = Mapping[str, Sequence[Any]]
"""What an entry must be like: for each of these fields one of the values, of which None may be one."""


class Sibling(Protocol):
    """A table or container beside a store's, in the same database, for the app's own entries."""

    def create(self) -> None:
        """Makes it, or the fields it lacks, where missing."""

    def put(self, entries: Sequence[Entry]) -> None:
        """Inserts the entries, or replaces those of the same key."""

    def add(self, entries: Sequence[Entry], transaction: Any = None) -> None:
        """Inserts those entries whose key is not there yet; as part of the store's `transaction` if one is given.

        Their texts are plain ASCII.
        """

    def change(
        self, key: str, only_if: OneOf, fields: Entry, transaction: Any = None, seconds: float | None = None
    ) -> bool:
        """Gives the entry of this key these fields, if it is as `only_if` says; returns whether it was.

        One statement, or as if it were. As part of the store's `transaction` if one is given; with `seconds`, it is
        tried no longer than that.
        """

    def holds(self, key: str, only_if: OneOf, transaction: Any = None) -> bool:
        """Whether the entry of this key is as `only_if` says. In the store's `transaction` it stays so until its end,
        where the server has locks for that."""

    def find(
        self,
        where: Mapping[str, Any],
        *,
        order_by: str,
        limit: int,
        descending: bool = False,
        above: Any = None,
        below: Any = None,
        fields: Sequence[str] = (),
        transaction: Any = None,
        max_bytes: int | None = None,
    ) -> list[dict[str, Any]]:
        """Up to `limit` entries with all of `where`, in the order of one field; only `fields` of them if any are named.
        On SQL no more than up to the one with which they have more than `max_bytes`.

        A list in `where` means any of its values. `above` and `below` bound the ordering field, themselves left out.
        It is part of the store's `transaction` if one is given.
        """

    def count(self, where: Mapping[str, Any], by: str, above: Any, below: Any) -> int:
        """How many entries have all of `where`, and between the bounds (themselves left out) the field `by`."""

    def delete(self, keys: Sequence[str], partition: str | None = None) -> None:
        """Deletes the entries of these keys; those that are gone already are no error. `partition` is the value of the
        shape's partition in all of them, where that is not their key."""
