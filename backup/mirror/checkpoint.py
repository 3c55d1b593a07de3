"""Where a run stands in the key space, so that another process can resume it from there. No I/O."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, field, replace

from backup.core.log import event
from backup.core.model import Chunk, Key
from backup.core.run_values import Counts, Proof, Total
from backup.stores.exact_json import key_from_text, key_to_text

_RANGES_AT_MOST = 500
_NAMES_IN_TEXT = {"source_records": "wanted", "backup_records": "held"}  # earlier releases wrote these names


@dataclass(frozen=True)
class Checkpoint:
    """How far a walk through the key space has come.

    The walk goes from `begin` to the end of the key space. Then it is `wrapped` and goes from the start to `begin`.
    `after` is the last key that it has passed. What it has passed is settled, except for deletes and for records that
    wait for them.

    - `deleting`: the parts that have such deletes or records. The walk met the first `deleting_first` of them before it
      wrapped.
    - `counts`: what the walk has counted so far.
    - `source_records`, `backup_records`: how many records each side had in what the walk has passed.
    - `proof`: what is proven so far.
    - `unread_keys`: whether the source has keys there that could not be read.
    """

    begin: Key | None = None
    after: Key | None = None
    wrapped: bool = False
    complete: bool = False
    counts: Counts = field(default_factory=Counts)
    source_records: int = 0
    backup_records: int = 0
    proof: Proof = field(default_factory=Proof)
    deleting: tuple[Chunk, ...] = ()
    deleting_first: int = 0
    unread_keys: bool = False

    @property
    def parts_left(self) -> list[Chunk]:
        """The parts of the key space that the walk has still to pass, in order."""
        if self.complete:
            return []
        head = [] if self.begin is None else [Chunk(self.after if self.wrapped else None, self.begin)]
        return head if self.wrapped else [Chunk(self.after), *head]

    def past(
        self,
        chunk: Chunk,
        counts: Counts,
        source_records: int,
        backup_records: int,
        proof: Proof | None,
        *,
        must_return: bool,
        unread_keys: bool = False,
    ) -> Checkpoint:
        """Returns the checkpoint behind `chunk`, which must be the next part of `parts_left`.

        The two numbers say how many records each side has in the chunk. `must_return` says that the run has to come
        back to the chunk, for its deletes or for records that wait. A `proof` of None means that it is proven then.
        """
        ends_the_space = chunk.upto is None
        before_wrap, after_wrap = self.deleting[: self.deleting_first], self.deleting[self.deleting_first :]
        if must_return and self.wrapped:
            after_wrap = (*after_wrap, chunk)
        elif must_return:
            before_wrap = (*before_wrap, chunk)
        if len(before_wrap) + len(after_wrap) > _RANGES_AT_MOST:
            before_wrap, after_wrap = _merged(before_wrap), _merged(after_wrap)
        return Checkpoint(
            begin=self.begin,
            after=chunk.upto,
            wrapped=self.wrapped or ends_the_space,
            complete=(ends_the_space and self.begin is None) or (self.wrapped and chunk.upto == self.begin),
            counts=self.counts + counts,
            source_records=self.source_records + source_records,
            backup_records=self.backup_records + backup_records,
            proof=self.proof if proof is None else self.proof + proof,
            deleting=(*before_wrap, *after_wrap),
            deleting_first=len(before_wrap),
            unread_keys=self.unread_keys or unread_keys,
        )

    def proven(self, part: Chunk, proof: Proof) -> Checkpoint:
        """Returns the checkpoint after the deletes of `part` were made and the part was proven."""
        first = self.deleting_first - (part in self.deleting[: self.deleting_first])
        deleting = tuple(chunk for chunk in self.deleting if chunk != part)
        return replace(self, proof=self.proof + proof, deleting=deleting, deleting_first=first)

    def begun_anew(self) -> Checkpoint:
        """Returns the checkpoint of a new walk through the whole key space, which begins where this one stands."""
        here = None if self.complete else self.after
        return Checkpoint(begin=here, after=here)

    def to_text(self) -> str:
        """Returns the checkpoint as JSON, for `from_text`."""
        values = asdict(replace(self, deleting=()))
        for name, name_in_text in _NAMES_IN_TEXT.items():
            values[name_in_text] = values.pop(name)
        values |= {
            "begin": _key_text(self.begin),
            "after": _key_text(self.after),
            "deleting": [[_key_text(chunk.after), _key_text(chunk.upto)] for chunk in self.deleting],
        }
        return json.dumps(values, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str | None) -> Checkpoint:
        """Returns the checkpoint that `to_text` wrote.

        A text that is not a checkpoint gives the start of a walk and a line in the log.
        """
        try:
            return cls._read(text or "")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
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
            **{name: values[name_in_text] for name, name_in_text in _NAMES_IN_TEXT.items()},
            proof=Proof(Total(*proof["source"]), Total(*proof["backup"]), proof["differing"], proof["in_flight"]),
            deleting=tuple(Chunk(_key(after), _key(upto)) for after, upto in values["deleting"]),
            deleting_first=values["deleting_first"],
            unread_keys=values.get("unread_keys", False),
        )


def _merged(ranges: tuple[Chunk, ...]) -> tuple[Chunk, ...]:
    """Joins each two neighbours into one range, with the keys between them. The ranges are in the order of keys."""
    pairs = [ranges[start : start + 2] for start in range(0, len(ranges), 2)]
    return tuple(Chunk(pair[0].after, pair[-1].upto) for pair in pairs)


def _key_text(key: Key | None) -> str | None:
    return None if key is None else key_to_text(key)


def _key(text: str | None) -> Key | None:
    return None if text is None else key_from_text(text)
