"""A table or container of the app's own beside a store's: its shape, and how its entries are written and read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple, Protocol

from backup.core.model import Key

FieldType = Literal["name", "place", "text", "json", "integer", "decimal", "time", "flag"]


@dataclass(frozen=True, eq=False)
class Shape:
    """A table or container of the app's own: a table `name` on SQL, a `container` on Cosmos. Equal to itself alone: it
    is made once.

    Fields are named as SQL columns; documents spell them in camelCase. `key` is the SQL primary key and, in Cosmos DB,
    also the document's `id`; `partition` is its partition key. `indexes` are the fields of each SQL index; Cosmos DB
    indexes every property. `parts_with`: if it names fields, an entry with long texts is kept in several rows or
    documents. Each part has these fields, so that a search by them also meets the parts. Keys of entries then do not
    contain `part`, and no text begins with `parts:`.
    """

    name: str
    container: str
    key: str
    partition: str
    fields: Mapping[str, FieldType]
    indexes: tuple[tuple[str, ...], ...] = ()
    parts_with: tuple[str, ...] = ()


class LongText:
    """A text in pieces, which are made again for everybody who reads it. Its length may be an estimate."""

    def __init__(self, pieces: Callable[[], Iterator[str]], length: int) -> None:
        self._pieces, self._length = pieces, length

    def __iter__(self) -> Iterator[str]:
        return self._pieces()

    def __len__(self) -> int:
        return self._length

    def __bool__(self) -> bool:
        return True


Entry = Mapping[str, Any]
"""A row or document of a sibling, by the field names of its shape. Times are aware UTC.

A field of type `text` may be a `LongText`. SQL keeps it in parts, if the shape has `parts_with`, and gives it back so.
"""


OneOf = Mapping[str, Sequence[Any]]
"""A condition for an entry: each of these fields must have one of its values. None may be one of the values."""


@dataclass(frozen=True)
class Look:
    """A question of `Sibling.look`: at most `limit` entries that have all the values of `where`, in the order of the
    field `order_by`, which lies above `above` if that is given. A list in `where` means any of its values."""

    where: Mapping[str, Any]
    order_by: str
    limit: int
    descending: bool = False
    above: Any = None


class Seen(NamedTuple):
    """What each look has seen, in their order; and the time of the server's clock then, None where it did not say."""

    entries: Sequence[Sequence[Entry]]
    at: datetime | None = None


class Groups(NamedTuple):
    """How entries form groups: by the fields `by` and `then_by`.

    The newest entry of a group has the highest `order` of those whose field `but[0]` is not `but[1]`. `highest`: the
    fields whose highest value among the group's recent entries is wanted, also of those that `but` leaves out; recent
    are those with the highest few numbers in `order`. `counted`: a field and a value; the number of entries that have
    it, of the whole group, is wanted.
    """

    by: str
    then_by: str
    order: str
    but: tuple[str, str]
    highest: tuple[str, ...]
    counted: tuple[str, str]


class Group(NamedTuple):
    """A group of entries: the values of its two fields, the highest values, and how many entries are counted.

    `entry` is its newest entry; None if all recent ones are left out. `at` is the server's time; None where it has no
    clock.
    """

    by: str
    then_by: str | None
    highest: Mapping[str, Any]
    counted: int
    entry: Mapping[str, Any] | None
    at: datetime | None


class EntriesToMake(NamedTuple):
    """How a server makes an entry of the bin of each row that changes: an entry as `recycle_bin.entries.of_one` makes.

    - `table`: the bin.
    - `id_start`: how the id begins where the key is one integer; behind it stand the `ordered_digits` of the key.
    - `digest_start`: how the id begins where the key is another one; behind it stands the `digest_of` `digested` and
      the key's text.
    - `fields`: the values of the fields that all of them share.
    """

    table: Sibling
    id_start: str
    digest_start: str
    digested: str
    fields: Mapping[str, Any]


class ImagesToWrite(NamedTuple):
    """Entries of the bin, each with the image of a record, which is to be written as it was then.

    - `table`: the bin.
    - `where`: the fields that all of them have.
    - `above`, `upto`: between which ids they lie; the first is excluded.
    - `number`: how many of them a server may be able to read, where somebody has counted them and it should.
    - `others`: how many of them no server can read.
    """

    table: Sibling
    where: Mapping[str, str]
    above: str
    upto: str
    number: int | None = None
    others: int = 0


class ImagesOfKeys(NamedTuple):
    """Entries of the bin, each with the image of a record. `table` is the bin, `entry_ids` the id of each key's
    entry."""

    table: Sibling
    entry_ids: Mapping[Key, str]


class Sibling(Protocol):
    """A table or container for the app's own entries, beside a store's, in the same database.

    With a `transaction`, which is the store's, a method works as part of it.
    """

    def create(self) -> None:
        """Makes the table or container, or the fields that it lacks."""

    def put(self, entries: Sequence[Entry], *, new: bool = False) -> None:
        """Inserts the entries, or replaces existing ones of the same key. `new`: there are none, unless an earlier try
        has made them."""

    def add(self, entries: Sequence[Entry], transaction: Any = None) -> None:
        """Inserts the entries whose key does not exist yet. Only names among their texts have letters beyond ASCII."""

    def change(
        self, key: str, only_if: OneOf, fields: Entry, transaction: Any = None, seconds: float | None = None
    ) -> bool:
        """Sets these fields in the entry of this key if it fulfils `only_if`. Returns whether it did.

        Atomic: nobody changes the entry in between. With `seconds`, it is tried no longer than that.
        """

    def holds(self, key: str, only_if: OneOf, transaction: Any = None) -> bool:
        """Whether the entry of this key fulfils `only_if`. In a `transaction`, nobody changes the entry until its end,
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
        """At most `limit` entries that have all the values of `where`, in the order of the field `order_by`.

        A list in `where` means any of its values. The field `order_by` lies between `above` and `below`, which are
        excluded. The entries have only `fields`, or all if that is empty. With `max_bytes`, SQL stops after the entry
        that makes them exceed it.
        """

    def look(self, looks: Sequence[Look]) -> Seen:
        """What several looks see; on SQL in one statement, so at one moment."""

    def count(self, where: Mapping[str, Any], by: str, above: Any, below: Any) -> int:
        """How many entries have all the values of `where`, and a field `by` between the bounds, which are excluded."""

    def delete(self, keys: Sequence[str], partition: str | None = None) -> None:
        """Deletes the entries of these keys. It is not an error if an entry is gone already.

        `partition` is the value that the shape's partition has in all of them, where it is not their key.
        """
