"""Splits entries that are too large for one document into several documents, and joins them again. No I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from backup.core.errors import StoreError
from backup.stores.cosmos.documents import size_of

PARTS_FIELD = "_parts"
"""The property of an entry that says which parts hold its long texts."""
PART_FIELD = "_part"
"""The property of a part that holds its piece of the text."""

_MAX_BYTES = 1_900_000  # a document may have 2 MiB
_LONG = 10_000  # characters
_PIECE = 900_000  # characters, each of which may need an escape


def split_entry(
    document: Mapping[str, Any], shared: Mapping[str, Any]
) -> tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]:
    """The entry without its long texts, and the parts that hold them. A small entry comes back whole, with no parts.

    Texts are ASCII. Each part has the properties `shared`. Its id is made of the entry's id and a digest of the text,
    so parts of two images of one record never mix. Write the entry last: it says which parts count.
    """
    if 2 * sum(len(value) for value in document.values() if isinstance(value, str)) < _MAX_BYTES:
        return document, ()
    if size_of(document) <= _MAX_BYTES:
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
    """The ids of the entry's parts, in order; empty if it has none."""
    parts = document.get(PARTS_FIELD)
    return _names(document["id"], parts["digest"], parts["number"]) if parts else ()


def join_entry(document: Mapping[str, Any], pieces: Sequence[str]) -> Mapping[str, Any]:
    """The entry with the texts of its parts. Raises StoreError if their digest is not the entry's."""
    if not pieces:
        return document
    text = "".join(pieces)
    if sha256(text.encode()).hexdigest()[:32] != document[PARTS_FIELD]["digest"]:
        raise StoreError(
            f"The parts of the entry {document['id']} are not what was written.",
            hint="Another program changed them: this entry cannot be used, all others can. Nothing was changed.",
        )
    return {**document, **json.loads(text)}


def _names(entry: str, digest: str, number: int) -> list[str]:
    return [f"{entry}-{digest}-{n}" for n in range(number)]
