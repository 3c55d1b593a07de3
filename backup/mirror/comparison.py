"""Compares source and backup and names what differs. Writes nothing."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import blake2b
from typing import Any

from backup.core.errors import StoreError
from backup.core.model import Chunk, Counts, Key, Proof, Stamps, Version, unread_in
from backup.core.workers import Workers
from backup.mirror import proof
from backup.mirror.checkpoint import Checkpoint
from backup.mirror.diff import only_touched
from backup.mirror.pair import Sides
from backup.mirror.proof import DifferenceKind
from backup.mirror.set_aside import Refusal, read_apart
from backup.mirror.tally import CHANGES_NAMED
from backup.mirror.walk import chunks_of, in_time
from backup.mirror.writing import forget, no_end
from backup.stores import Store, stamps_in

_RECORDS_AT_ONCE = 500


@dataclass(frozen=True)
class Depth:
    """How much is compared beside the stamps of everything: `sample` random records whole, or all (`full`)."""

    full: bool = False
    sample: int = 0


@dataclass(frozen=True)
class Difference:
    """A record that differs, how, and for CONTENT in which columns or properties."""

    key: Key
    kind: DifferenceKind
    names: tuple[str, ...] = ()


@dataclass
class Report:
    """What a verify found: totals, counts of differences by kind, the first thousand, records compared whole."""

    proof: Proof = field(default_factory=Proof)
    counts: Counter[DifferenceKind] = field(default_factory=Counter)
    differences: list[Difference] = field(default_factory=list)
    compared: int = 0

    def with_keys(self, key_to_json: Callable[[Key], list[Any]]) -> Report:
        """This report with the keys as values that JSON has."""
        return replace(self, differences=[replace(one, key=tuple(key_to_json(one.key))) for one in self.differences])

    def add(self, found: Mapping[Key, DifferenceKind], names: Mapping[Key, tuple[str, ...]]) -> None:
        """Counts the differences, and names them while there are fewer than a thousand."""
        self.counts.update(found.values())
        named = sorted(found.items(), key=str)[: CHANGES_NAMED - len(self.differences)]
        self.differences += [Difference(key, kind, names.get(key, ())) for key, kind in named]


def _raise(refused: Refusal) -> None:
    raise refused.error


def verify(
    source: Store,
    backup: Store,
    depth: Depth,
    report: Report,
    start: Checkpoint | None = None,
    seconds_left: Callable[[], float] = no_end,
    save: Callable[[Checkpoint], None] = forget,
    refuse: Callable[[Refusal], None] = _raise,
) -> Checkpoint | None:
    """Compares the two stores, which `drift` has matched, and puts what it finds into `report`.

    Reads key and version of every record of both sides. A difference is looked at again before it is reported: one that
    is gone by then, or whose record is being written in the source, is in flight and no difference. Holds the stamps of
    a chunk and a few hundred records at a time. Returns None when that is done, or, when time was up, the checkpoint
    from which another call may go on; each call draws a sample of its own from what it has walked. `refuse` is told of
    records that cannot be read. Raises what the stores raise; `report` then holds what was found until there.
    """
    at, drawn = start or Checkpoint(), _Sample(depth.sample)
    report.proof = at.proof
    for chunk in in_time(at, partial(chunks_of, source, backup), seconds_left):
        ours, theirs = stamps_in(source, chunk), stamps_in(backup, chunk)
        unread = unread_in(ours) | unread_in(theirs)
        for key, mark in sorted(unread.items(), key=str):
            refuse(Refusal([key], StoreError(mark.reason)))
        ours, theirs = proof.without(ours, unread), proof.without(theirs, unread)
        found = proof.differences(ours, theirs)
        wrong = proof.lasting(source, backup, chunk, ours, found)
        for key in _same_content(source, backup, chunk, wrong, ours, theirs):
            del wrong[key], found[key]
        report.proof += proof.of_part(ours, theirs, len(wrong) + len(unread), len(found) - len(wrong))
        report.add(wrong, {})
        same = proof.without(ours, found)
        if depth.full:
            _compare_records(source, backup, chunk, same, report, refuse)
        else:
            drawn.offer(chunk, same)
        at = replace(at.past(chunk, Counts(), len(ours), len(theirs), None, again=False), proof=report.proof)
        save(at)
    for chunk, stamps in drawn.by_chunk():
        _compare_records(source, backup, chunk, stamps, report, refuse)
    return None if at.complete else replace(at, proof=report.proof)


def _same_content(
    source: Store, backup: Store, chunk: Chunk, wrong: Mapping[Key, DifferenceKind], ours: Stamps, theirs: Stamps
) -> set[Key]:
    """Those of the records that differ by their etag alone, as after a restore, and are the same value for value."""
    stale = (key for key, kind in wrong.items() if kind is DifferenceKind.STALE)
    touched = frozenset(key for key in stale if key in theirs and only_touched(ours[key], theirs[key]))
    with Workers(1) as workers:
        return Sides(source, backup, workers).same_content(touched, chunk)


def _compare_records(
    source: Store, backup: Store, chunk: Chunk, seen: Stamps, report: Report, refuse: Callable[[Refusal], None]
) -> None:
    """Compares the whole records of these stamps, which were equal on both sides."""
    unread: set[Key] = set()

    def aside(refused: Refusal) -> None:
        unread.update(refused.keys)
        refuse(refused)

    ours, theirs = _digests(source, seen, chunk, aside), _digests(backup, seen, chunk, aside)
    keys = seen.keys() - unread
    suspects = sorted((key for key in keys if ours.get(key) != theirs.get(key)), key=str)
    report.compared += len(keys)
    for start in range(0, len(suspects), _RECORDS_AT_ONCE):
        part = frozenset(suspects[start : start + _RECORDS_AT_ONCE])
        mine, copies = _contents(source, part, chunk), _contents(backup, part, chunk)
        again = stamps_in(source, chunk)
        names = {
            key: _unlike(mine[key], copies[key])
            for key in part
            if key in mine and key in copies and mine[key] != copies[key] and again.get(key) == seen[key]
        }
        report.add(dict.fromkeys(names, DifferenceKind.CONTENT), names)
        report.proof += Proof(differing=len(names), in_flight=len(part) - len(names))


def _digests(store: Store, keys: Collection[Key], chunk: Chunk, refuse: Callable[[Refusal], None]) -> dict[Key, bytes]:
    found: dict[Key, bytes] = {}
    for records in read_apart(keys, store.keys.of, lambda some: store.read(some, chunk), refuse):
        found |= {store.keys.of(record): _digest(store.copies.content(record)) for record in records}
        del records  # or it would be held beside the next
    return found


def _digest(content: Mapping[str, str]) -> bytes:
    return blake2b(repr(sorted(content.items())).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _contents(store: Store, keys: frozenset[Key], chunk: Chunk) -> dict[Key, Mapping[str, str]]:
    found: dict[Key, Mapping[str, str]] = {}
    for records in store.read(keys, chunk):
        found |= {store.keys.of(record): store.copies.content(record) for record in records}
        del records
    return found


def _unlike(one: Mapping[str, str], other: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name)))


class _Sample:
    """A fair sample of all the stamps it is offered, of bounded size (reservoir sampling)."""

    def __init__(self, size: int) -> None:
        self._size, self._offered, self._random = size, 0, random.SystemRandom()
        self._drawn: list[tuple[Chunk, Key, Version]] = []

    def offer(self, chunk: Chunk, stamps: Stamps) -> None:
        for key, version in stamps.items() if self._size else ():
            self._offered += 1
            if len(self._drawn) < self._size:
                self._drawn.append((chunk, key, version))
            elif (place := self._random.randrange(self._offered)) < self._size:
                self._drawn[place] = (chunk, key, version)

    def by_chunk(self) -> Iterator[tuple[Chunk, Stamps]]:
        found: dict[Chunk, Stamps] = {}
        for chunk, key, version in self._drawn:
            found.setdefault(chunk, {})[key] = version
        yield from found.items()
