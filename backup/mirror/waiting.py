"""Names the records that were not written because they wait for deletes, which a guard has stopped. Reads only."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

from backup.core.errors import BackupError
from backup.core.model import Chunk, Key
from backup.core.suggestions import quantity
from backup.mirror.compared import compare_piece
from backup.mirror.pair import StorePair
from backup.mirror.tally import Tally

_NAMED = 10


def what_waits(pair: StorePair, parts: Sequence[Chunk], known: Collection[Key], tally: Tally) -> str:
    """A sentence about the records that wait: how many, and the first keys; empty if none waits.

    All of them are `known`, or they are in these `parts`, which are compared once more then. Raises no error of a
    store: then the sentence names none.
    """
    number, first = len(known), pair.backup.keys.in_order(known)[:_NAMED]
    try:
        for piece in (piece for part in parts if not known for piece in pair.backup.chunks(part)):
            keys = compare_piece(pair, piece, narrow=True).changes.write - tally.aside
            number += len(keys)
            first += pair.backup.keys.in_order(keys)[: _NAMED - len(first)]
    except BackupError:
        return " Records may wait for the deletes; which ones could not be read."
    if not number:
        return ""
    named = ", ".join(json.dumps(tally.key_to_json(key), ensure_ascii=False) for key in first)
    return (
        f" Not written: {quantity(number, 'record')} waiting for the deletes, {named}"
        f"{', …' if number > len(first) else ''}. The backup refuses them, or others of their batch, as long as it has "
        "the records to be deleted."
    )
