"""A look at all records of two quiet sides: they are equal, or a run goes on from what it has shown. Reads only."""

from __future__ import annotations

from dataclasses import dataclass, replace

from backup.core.errors import TransientStoreError
from backup.core.model import WHOLE
from backup.core.run_values import Proof
from backup.mirror.differing_parts import STAMPS_AT_MOST, DifferingParts, asks_in_parts, differing_blocks
from backup.mirror.pair import StorePair


@dataclass(frozen=True)
class Looked:
    """What a look at all records has shown.

    - `equal`: the proof of both sides, if they are equal; else None.
    - `parts`: the first blocks that differ. None: they were not asked for, or cannot be said.
    - `unanswered`: the error where nobody answered. The run ends by it: another question would wait as long.
    """

    equal: Proof | None = None
    parts: DifferingParts | None = None
    unanswered: TransientStoreError | None = None


def look_at_all(pair: StorePair, records: int) -> Looked:
    """Asks both sides at the same time about all of about so many records: by one fingerprint or, where that would take
    as many statements, by blocks. Raises what the stores raise."""
    if not asks_in_parts(pair, records):
        return Looked(pair.proven(WHOLE))
    equal = Proof()
    for parts in differing_blocks(pair, WHOLE, records, STAMPS_AT_MOST, expects_few=True, expects_none=True):
        equal += parts.equal
        if parts.numbers:
            return Looked(None, replace(parts, equal=equal))
        if parts.upto is None:
            return Looked(equal)
    return Looked()
