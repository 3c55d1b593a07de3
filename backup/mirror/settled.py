"""What became of one chunk of a sync, and what the chunks so far say of the next."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from backup.core.model import Chunk
from backup.core.run_values import Counts, Proof

NONE = Counts()
FEW_OF = 10
"""Few of the records have changed if they are less than one in so many: docs/decisions/buckets.md."""
_STREAK = 2  # chunks in a row, from the same page


@dataclass(frozen=True)
class Settled:
    """A settled chunk.

    - `source_records`, `backup_records`: how many records each side had there.
    - `deletes`: how many keys only the backup has.
    - `waiting`: how many records a constraint refused; they are tried again later.
    - `proof`: None in a dry run, and where deletes or waiting records come first.
    - `unread_keys`: whether the source has keys there that could not be read.
    - `by`: what settled the chunk: equal fingerprints, equal numbers, a copy of all its records, what the servers wrote
      over its copies, or stamps.
    """

    chunk: Chunk
    counts: Counts
    source_records: int
    backup_records: int
    deletes: int = 0
    waiting: int = 0
    proof: Proof | None = None
    unread_keys: bool = False
    by: Literal["fingerprints", "numbers", "copy", "relay", "stamps"] = "stamps"

    def joined(self, piece: Settled) -> Settled:
        """The chunk as settled so far, with one more settled piece of it."""
        return Settled(
            self.chunk,
            self.counts + piece.counts,
            self.source_records + piece.source_records,
            self.backup_records + piece.backup_records,
            self.deletes + piece.deletes,
            self.waiting + piece.waiting,
            self.proof + piece.proof if self.proof is not None and piece.proof is not None else None,
            self.unread_keys or piece.unread_keys,
        )


@dataclass(frozen=True)
class Spread:
    """How changes are spread over the chunks so far. It decides how to compare the next chunk.

    `in_a_row` is how many chunks in a row, up to the last, had few changes each. `many` says whether the last chunk
    that stamps settled had many changes, `most` whether most of its records had. `copied` says whether the last chunk
    was copied whole.
    """

    in_a_row: int = 0
    many: bool = False
    most: bool = False
    copied: bool = False

    def after(self, settled: Settled) -> Spread:
        """Returns the spread after a further settled chunk. Call it for the chunks in their order."""
        if settled.by == "fingerprints":
            return replace(self, in_a_row=0, copied=False)
        if settled.by == "copy":
            return replace(self, copied=True)
        changed = settled.counts.processed + settled.deletes
        many = changed * FEW_OF >= settled.counts.seen
        return Spread(self.in_a_row + 1 if changed and not many else 0, many, changed * 2 > settled.counts.seen)

    @property
    def is_all_over(self) -> bool:
        """Whether the next chunk has probably changed too."""
        return self.in_a_row >= _STREAK
