"""Entries that are larger than a document may be, kept in several: taken apart and put together again. No I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from backup.core.errors import StoreError
from backup.stores.cosmos.documents import size_of

PARTS_FIELD = "_parts"
"""The property of an entry that names its parts; what it lacks is in them."""
PART_FIELD = "_part"
"""The property of a part that has its piece of the text."""

_MOST_BYTES = 1_900_000  # a document may have 2 MiB
_LONG = 10_000
_PIECE = 900_000  # characters, each of which may need an escape


def taken_apart(
    document: Mapping[str, Any], shared: Mapping[str, Any]
) -> tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]:
    """The entry without its long texts, and the parts that have them; as it is, and none, where it is small enough.

    Texts are ASCII. Parts have the properties `shared`, and ids made of the entry's own and a digest of the text, so
    that two images of one record never mix: which of them counts the entry says, which is written last.
    """
    if 2 * sum(len(value) for value in document.values() if isinstance(value, str)) < _MOST_BYTES:
        return document, ()
    if size_of(document) <= _MOST_BYTES:
        return document, ()
    long = {name: value for name, value in document.items() if isinstance(value, str) and len(value) > _LONG}
    text = json.dumps(long)
    digest = sha256(text.encode()).hexdigest()[:32]
    pieces = [text[start : start + _PIECE] for start in range(0, len(text), _PIECE)]
    rest = {name: value for name, value in document.items() if name not in long}
    names = _names(document["id"], digest, len(pieces))
    parts = [{**shared, "id": name, PART_FIELD: piece} for name, piece in zip(names, pieces, strict=True)]
    return {**rest, PARTS_FIELD: {"digest": digest, "number": len(pieces)}}, parts


def part_ids(document: Mapping[str, Any]) -> Sequence[str]:
    """The ids of the entry's parts in their order."""
    parts = document.get(PARTS_FIELD)
    return _names(document["id"], parts["digest"], parts["number"]) if parts else ()


def put_together(document: Mapping[str, Any], pieces: Sequence[str]) -> Mapping[str, Any]:
    """The entry with the texts of its parts. Raises StoreError if they are not what was taken apart."""
    if not pieces:
        return document
    text = "".join(pieces)
    if sha256(text.encode()).hexdigest()[:32] != document[PARTS_FIELD]["digest"]:
        raise StoreError(f"The parts of the entry {document['id']} are not what was written.")
    return {**document, **json.loads(text)}


def _names(entry: str, digest: str, number: int) -> list[str]:
    return [f"{entry}-{digest}-{n}" for n in range(number)]
