"""How a store's values are read and written as others: its keys and stamps, and the copies that a backup keeps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from backup.core.model import Key, Record, StampRow, Stamps


@dataclass(frozen=True)
class CopyNote:
    """What a backup may note of a copy: which run made it, and when."""

    sync_id: str
    at: datetime


class Keys(Protocol):
    """A store's keys and stamps. For any number of threads; asks the server for nothing but the table's shape."""

    def of(self, record: Record) -> Key:
        """The key of a record that a store of the same kind has read."""

    def stamps(self, rows: Iterable[StampRow]) -> Stamps:
        """The stamps that these rows of the store lay flat."""

    def may_hold(self, key: Key) -> bool:
        """Whether a key, or the bound of a chunk, is of the types that they have here now; one from the bin or a
        checkpoint may be from before they changed."""

    def from_text(self, text: str) -> Key:
        """The key that a person wrote: the plain value, or a JSON list of the key's parts, as the server spells it.

        Asks the server how. Raises BadRequest when it is none of this store's.
        """

    def to_json(self, key: Key) -> list[Any]:
        """The key as JSON values that `from_text` understands."""


class Copies(Protocol):
    """What a backup makes of its source's records, and the way back. For any number of threads."""

    def of(self, records: Sequence[Record], note: CopyNote) -> Sequence[Record]:
        """The source's records as this backup keeps them: with what its kind of store notes of a copy."""

    def original(self, record: Record) -> Record:
        """A copy as its source would have it: without what `of` adds."""

    def as_it_was(self, record: Record) -> Record:
        """The record of an image, completed so that writing it leaves nothing of a later state."""

    def content(self, record: Record) -> Mapping[str, str]:
        """The record's own values by their name in the source, without the server's and the app's marks.

        Texts that are the same for the two sides of a service exactly if the values are. `Catalog.match` must have
        been asked.
        """

    @property
    def filled(self) -> frozenset[str]:
        """Names, as `content` has them, of what the server fills in by itself, whatever is written."""
