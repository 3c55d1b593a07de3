"""Where a run stands in the key space, so that another process can go on from there. No I/O."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, field, replace

from backup.core.log import event
from backup.core.model import Chunk, Counts, Key, Proof, Total
from backup.stores.exact_json import key_from_text, key_to_text

_RANGES_AT_MOST = 500


@dataclass(frozen=True)
class Checkpoint:
    """How far a walk through the key space has come: from `begin` to the end, then (`wrapped`) from start to `begin`.

    Everything between `begin` and `after` is settled but for its deletes: `deleting` are the parts that hold keys to
    delete, or records to be written after that, the first `deleting_first` of them those before the walk wrapped.
    `counts` are what this walk counted there, `wanted` and `held` how many records the source and the backup had there,
    `proof` what was proven. `unread_keys` says that the source has keys there which could not be read.
    """

    begin: Key | None = None
    after: Key | None = None
    wrapped: bool = False
    complete: bool = False
    counts: Counts = field(default_factory=Counts)
    wanted: int = 0
    held: int = 0
    proof: Proof = field(default_factory=Proof)
    deleting: tuple[Chunk, ...] = ()
    deleting_first: int = 0
    unread_keys: bool = False

    @property
    def left(self) -> list[Chunk]:
        """The parts of the key space that are still to be walked, in order."""
        if self.complete:
            return []
        head = [] if self.begin is None else [Chunk(self.after if self.wrapped else None, self.begin)]
        return head if self.wrapped else [Chunk(self.after), *head]

    def past(
        self,
        chunk: Chunk,
        counts: Counts,
        wanted: int,
        held: int,
        proof: Proof | None,
        *,
        again: bool,
        unread_keys: bool = False,
    ) -> Checkpoint:
        """This one after the chunk, which is the next of what is left; without a proof it will be proven later."""
        ends_the_space = chunk.upto is None
        first, then = self.deleting[: self.deleting_first], self.deleting[self.deleting_first :]
        if again:
            first, then = (first, (*then, chunk)) if self.wrapped else ((*first, chunk), then)
        if len(first) + len(then) > _RANGES_AT_MOST:
            first, then = _merged(first), _merged(then)
        return Checkpoint(
            begin=self.begin,
            after=chunk.upto,
            wrapped=self.wrapped or ends_the_space,
            complete=(ends_the_space and self.begin is None) or (self.wrapped and chunk.upto == self.begin),
            counts=self.counts + counts,
            wanted=self.wanted + wanted,
            held=self.held + held,
            proof=self.proof if proof is None else self.proof + proof,
            deleting=(*first, *then),
            deleting_first=len(first),
            unread_keys=self.unread_keys or unread_keys,
        )

    def proven(self, part: Chunk, proof: Proof) -> Checkpoint:
        """This one once a part of `deleting` has lost its deletes and was proven."""
        first = self.deleting_first - (part in self.deleting[: self.deleting_first])
        left = tuple(one for one in self.deleting if one != part)
        return replace(self, proof=self.proof + proof, deleting=left, deleting_first=first)

    def begun_anew(self) -> Checkpoint:
        """A walk through the whole key space that begins where this one stands, and knows nothing yet."""
        here = None if self.complete else self.after
        return Checkpoint(begin=here, after=here)

    def to_text(self) -> str:
        """As JSON."""
        values = {
            **asdict(replace(self, deleting=())),
            "begin": _key_text(self.begin),
            "after": _key_text(self.after),
            "deleting": [[_key_text(chunk.after), _key_text(chunk.upto)] for chunk in self.deleting],
        }
        return json.dumps(values, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str | None) -> Checkpoint:
        """The checkpoint that `to_text` was asked of; the start of a walk for a text that is none, and a line in the
        log."""
        try:
            return cls._read(text or "")
        except (ValueError, TypeError, KeyError) as error:
            event("checkpoint.not_read", level=logging.WARNING, error=type(error).__name__)
            return cls()

    @classmethod
    def _read(cls, text: str) -> Checkpoint:
        values = json.loads(text)
        proof = values["proof"]
        return cls(
            begin=_key(values["begin"]),
            after=_key(values["after"]),
            wrapped=values["wrapped"],
            complete=values["complete"],
            counts=Counts(**values["counts"]),
            wanted=values["wanted"],
            held=values["held"],
            proof=Proof(Total(*proof["source"]), Total(*proof["backup"]), proof["differing"], proof["in_flight"]),
            deleting=tuple(Chunk(_key(after), _key(upto)) for after, upto in values["deleting"]),
            deleting_first=values["deleting_first"],
            unread_keys=values.get("unread_keys", False),
        )


def _merged(ranges: tuple[Chunk, ...]) -> tuple[Chunk, ...]:
    """Ranges in the order of their keys, two neighbours made one, with what lies between them."""
    pairs = [ranges[start : start + 2] for start in range(0, len(ranges), 2)]
    return tuple(Chunk(pair[0].after, pair[-1].upto) for pair in pairs)


def _key_text(key: Key | None) -> str | None:
    return None if key is None else key_to_text(key)


def _key(text: str | None) -> Key | None:
    return None if text is None else key_from_text(text)
