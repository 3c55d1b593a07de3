"""How a store's keys and stamps are read and written as values, and how a backup copies its source's records."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from backup.core.model import Key, Record, StampRow, Stamps


@dataclass(frozen=True)
class CopyNote:
    """What a backup may note on a copy: which run made it, and when."""

    sync_id: str
    at: datetime


class Keys(Protocol):
    """A store's keys and stamps. For any number of threads. Only `from_text` asks the server for more than the table's
    shape."""

    def of(self, record: Record) -> Key:
        """The key of a record that a store of the same kind has read."""

    def stamps(self, rows: Iterable[StampRow]) -> Stamps:
        """The stamps in these flat rows of the store."""

    def may_hold(self, key: Key) -> bool:
        """Whether a key, or the bound of a chunk, has the types of this store's key. A key from the bin or a checkpoint
        may be older than the last change of these types."""

    def from_text(self, text: str) -> Key:
        """The key that a person wrote, as the server spells it. The text is the plain value, or a JSON list of the
        key's parts.

        Asks the server for its spelling. Raises BadRequest for a text that cannot be a key of this store.
        """

    def to_json(self, key: Key) -> list[Any]:
        """The key as JSON values that `from_text` understands."""

    def in_order(self, keys: Collection[Key]) -> list[Key]:
        """The keys of one chunk, sorted like the store's chunks as far as that can be said without the server: by the
        values themselves, which a collation may order otherwise."""


class Copies(Protocol):
    """Turns a source's records into copies of a backup, and back. For any number of threads."""

    def of(self, records: Sequence[Record], note: CopyNote) -> Sequence[Record]:
        """The source's records as this backup keeps them: with the notes that its kind of store makes on a copy."""

    def original(self, record: Record) -> Record:
        """A copy as its source would have it: without what `of` adds."""

    def as_it_was(self, record: Record) -> Record:
        """The record of an image, completed: writing it leaves no value of a later state."""

    def content(self, record: Record) -> Mapping[str, str]:
        """The record's own values by their names in the source, without the server's and the app's marks.

        The values are texts. Those of the two sides are equal exactly if the values are equal. Call `Catalog.match`
        first.
        """

    @property
    def masked(self) -> frozenset[str]:
        """The names of values that a source shows masked, and that no write changes; spelled as in `content`. Empty for
        every other store."""

    @property
    def filled(self) -> frozenset[str]:
        """The names of values that the server fills in by itself, whatever is written; spelled as in `content`."""
