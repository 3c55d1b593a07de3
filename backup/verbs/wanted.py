"""The whole records that a restore writes: images from the recycle bin, and copies from the backup."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from backup.core.model import Chunk, Key, Record
from backup.recycle_bin.entries import KeptImage
from backup.runs.session import Session


def wanted_records(
    session: Session,
    keys: frozenset[Key],
    images: Mapping[Key, KeptImage],
    filled: Mapping[Key, KeptImage],
    chunk: Chunk,
) -> Iterator[list[Record]]:
    """Yields the records of these keys as the place should have them, some at a time.

    A key in `images` has the record of its image. Any other has its copy. A copy in `filled` gets the values that its
    image has.
    """
    for entries in session.recycled.with_records(images[key] for key in keys if key in images):
        yield [kept.record for kept in entries if kept.record is not None]
        del entries  # else memory holds them beside the next
    for records in session.backup.read(frozenset(key for key in keys if key not in images), chunk):
        filled_here = {key: filled[key] for record in records if (key := session.backup.keys.of(record)) in filled}
        whole = {kept.entry_id: kept for page in session.recycled.with_records(filled_here.values()) for kept in page}
        image_of = {key: whole.get(kept.entry_id) for key, kept in filled_here.items()}
        yield [_with_image(record, image_of.get(session.backup.keys.of(record))) for record in records]
        del records, whole, image_of


def _with_image(record: Record, image: KeptImage | None) -> Record:
    """The record with the values of its image; columns that are newer than the image keep what filled them. An undo may
    have emptied columns, so the image's values count."""
    if image is None or image.record is None:
        return record
    return {**record, **{name: value for name, value in image.record.items() if value is not None}}
