"""Turns a source's documents into the copies that a backup keeps, with the app's note, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backup.core.errors import StoreError
from backup.core.model import Record
from backup.stores.codecs import CopyNote
from backup.stores.cosmos.documents import MARK, content_text, own
from backup.stores.cosmos.entry_documents import utc_text


class CosmosCopies:
    """The codec of copies, the same for every container. `masked`: the properties that have a mask, in a source."""

    filled: frozenset[str] = frozenset()

    def __init__(self, masked: frozenset[str] = frozenset()) -> None:
        self.masked = masked

    def of(self, records: Sequence[Record], note: CopyNote) -> list[Record]:
        """Copies with a note under `_backup`: the source's etag and ts, the time and the run of the copy.

        Raises StoreError for a document that has a property `_backup` already.
        """
        return [_copy(record, note) for record in records]

    def original(self, record: Record) -> Record:
        return {name: value for name, value in own(record).items() if name != MARK}

    def as_it_was(self, record: Record) -> Record:
        return record

    def content(self, record: Record) -> Mapping[str, str]:
        return {name: content_text(value) for name, value in self.original(record).items()}


def _copy(record: Record, note: CopyNote) -> dict[str, Any]:
    if MARK in record:
        raise StoreError(
            f"A document of the source (id {record['id']}) has a property {MARK}, which its copy cannot keep.",
            hint="Rename the property in the source: the backup keeps its own notes under that name.",
        )
    mark = {
        "etag": record.get("_etag"),
        "ts": record.get("_ts"),
        "syncedAt": utc_text(note.at),
        "syncId": note.sync_id,
    }
    return {**own(record), MARK: mark}
