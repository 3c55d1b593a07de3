"""Verifies a backup: compares it with its source and names what differs. Writes nothing."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import blake2b
from typing import Any

from backup.core.errors import StoreError
from backup.core.model import Chunk, Key, Stamps, Unread, Version, unread_in
from backup.core.run_values import Counts, Proof, Run, Verb
from backup.core.workers import Workers
from backup.mirror import proof
from backup.mirror.checkpoint import Checkpoint
from backup.mirror.diff import only_touched
from backup.mirror.pair import StorePair
from backup.mirror.proof import DifferenceKind
from backup.mirror.set_aside import Refusal, read_bisecting
from backup.mirror.steps import forget, no_end
from backup.mirror.tally import CHANGES_NAMED
from backup.mirror.walk import chunks_of, in_time
from backup.stores import Store, stamps_in
from backup.stores.values import LeftOut

COMPARED_WHOLE = "Every record was compared whole."
"""The note of a verify that compared all contents."""


def has_compared_whole(run: Run) -> bool:
    """Whether the run has compared all contents, and not versions alone."""
    return run.verb is Verb.DRILL or COMPARED_WHOLE in run.notes


_RECORDS_AT_ONCE = 500  # whole, of both sides, in memory


@dataclass(frozen=True)
class Depth:
    """How many whole records a verify compares, besides all stamps: a random `sample` of so many, or all (`full`)."""

    full: bool = False
    sample: int = 0


@dataclass(frozen=True)
class Difference:
    """A record that differs, and how. For CONTENT, `names` are the columns or properties that differ."""

    key: Key
    kind: DifferenceKind
    names: tuple[str, ...] = ()


@dataclass
class Report:
    """The result of a verify.

    `counts` are the differences by kind, `differences` the first thousand of them. `compared` is how many whole records
    were compared.
    """

    proof: Proof = field(default_factory=Proof)
    counts: Counter[DifferenceKind] = field(default_factory=Counter)
    differences: list[Difference] = field(default_factory=list)
    compared: int = 0

    def with_keys(self, key_to_json: Callable[[Key], list[Any]]) -> Report:
        """Returns the report with its keys as JSON values."""
        differences = [replace(difference, key=tuple(key_to_json(difference.key))) for difference in self.differences]
        return replace(self, differences=differences)

    def add(self, kinds: Mapping[Key, DifferenceKind], names: Mapping[Key, tuple[str, ...]]) -> None:
        """Counts the differences by their `kinds`, and names them as long as fewer than a thousand are named."""
        self.counts.update(kinds.values())
        named = sorted(kinds.items(), key=str)[: CHANGES_NAMED - len(self.differences)]
        self.differences += [Difference(key, kind, names.get(key, ())) for key, kind in named]


def _raise(refusal: Refusal) -> None:
    raise refusal.error


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
    """Compares two stores, which `drift` has matched, and puts the differences into `report`.

    Reads the key and version of every record on both sides. It looks at a difference a second time before it reports
    it. If the difference is gone by then, or the source is writing the record, the record is in flight and no
    difference. Holds the stamps of a chunk and a few hundred records in memory.

    Returns None when everything is compared. Returns the checkpoint for the next call when the time was up. Each call
    draws its own sample from what it has walked. Calls `refuse` for records that cannot be read. Raises what the stores
    raise; `report` then has the differences up to there.
    """
    at, sample = start or Checkpoint(), _Sample(depth.sample)
    report.proof = at.proof
    for chunk in in_time(at, partial(chunks_of, source, backup), seconds_left):
        source_stamps, backup_stamps = stamps_in(source, chunk), stamps_in(backup, chunk)
        unread = unread_in(source_stamps) | unread_in(backup_stamps)
        for key, mark in sorted(unread.items(), key=str):
            refuse(Refusal([key], StoreError(mark.reason)))
        source_stamps, backup_stamps = proof.without(source_stamps, unread), proof.without(backup_stamps, unread)
        differing = proof.differences(source_stamps, backup_stamps)
        stamps_before, left_out = source_stamps, LeftOut()
        if source.transforming is not None and differing:
            left_out = source.transforming.left_out([*(differing.keys() & source_stamps.keys())])
            for key, reason in sorted(left_out.failed.items(), key=str):
                refuse(Refusal([key], StoreError(reason)))
            unread |= {key: Unread(reason) for key, reason in left_out.failed.items()}
            stamps_before, backup_stamps = proof.without(stamps_before, unread), proof.without(backup_stamps, unread)
            source_stamps = proof.without(stamps_before, left_out.keys)
            differing = proof.differences(source_stamps, backup_stamps)
        wrong = proof.lasting(source, backup, chunk, stamps_before, differing)
        wrong |= dict.fromkeys(wrong.keys() & left_out.keys, DifferenceKind.EXTRA)
        for key in _same_content(source, backup, chunk, wrong, source_stamps, backup_stamps):
            del wrong[key], differing[key]
        in_flight = len(differing) - len(wrong)
        report.proof += proof.of_part(source_stamps, backup_stamps, len(wrong) + len(unread), in_flight)
        report.add(wrong, {})
        equal = proof.without(source_stamps, differing)
        if depth.full:
            _compare_records(source, backup, chunk, equal, report, refuse)
        else:
            sample.offer(chunk, equal)
        at = at.past(chunk, Counts(), len(source_stamps), len(backup_stamps), None, must_return=False)
        at = replace(at, proof=report.proof)
        save(at)
    for chunk, stamps in sample.by_chunk():
        _compare_records(source, backup, chunk, stamps, report, refuse)
    return None if at.complete else replace(at, proof=report.proof)


def _same_content(
    source: Store,
    backup: Store,
    chunk: Chunk,
    wrong: Mapping[Key, DifferenceKind],
    source_stamps: Stamps,
    backup_stamps: Stamps,
) -> set[Key]:
    """The keys of `wrong` whose records differ by their etag alone, as after a restore, and have equal values."""
    stale = (key for key, kind in wrong.items() if kind is DifferenceKind.STALE)
    touched = frozenset(
        key for key in stale if key in backup_stamps and only_touched(source_stamps[key], backup_stamps[key])
    )
    with Workers(1) as workers:
        return StorePair(source, backup, workers).same_content(touched, chunk)


def _compare_records(
    source: Store, backup: Store, chunk: Chunk, equal: Stamps, report: Report, refuse: Callable[[Refusal], None]
) -> None:
    """Compares the whole records of these stamps, which are equal on both sides."""
    unread: set[Key] = set()

    def leave_out(refusal: Refusal) -> None:
        unread.update(refusal.keys)
        refuse(refusal)

    in_source, in_backup = _digests(source, equal, chunk, leave_out), _digests(backup, equal, chunk, leave_out)
    keys = equal.keys() - unread
    suspects = sorted((key for key in keys if in_source.get(key) != in_backup.get(key)), key=str)
    report.compared += len(keys)
    for start in range(0, len(suspects), _RECORDS_AT_ONCE):
        part = frozenset(suspects[start : start + _RECORDS_AT_ONCE])
        originals, copies = _contents(source, part, chunk), _contents(backup, part, chunk)
        stamps_now = stamps_in(source, chunk)
        names = {
            key: _differing_names(originals[key], copies[key])
            for key in part
            if key in originals
            and key in copies
            and originals[key] != copies[key]
            and stamps_now.get(key) == equal[key]
        }
        report.add(dict.fromkeys(names, DifferenceKind.CONTENT), names)
        # A function that was changed, and not its version, may leave out what it gave before.
        left_out = () if source.transforming is None else source.transforming.left_out([*part]).keys
        extra = [key for key in left_out if key in copies and stamps_now.get(key) == equal[key]]
        report.add(dict.fromkeys(extra, DifferenceKind.EXTRA), {})
        wrong = len(names) + len(extra)
        report.proof += Proof(differing=wrong, in_flight=len(part) - wrong)


def _digests(store: Store, keys: Collection[Key], chunk: Chunk, refuse: Callable[[Refusal], None]) -> dict[Key, bytes]:
    digests: dict[Key, bytes] = {}
    for records in read_bisecting(keys, store.keys.of, lambda part: store.read(part, chunk), refuse):
        digests |= {store.keys.of(record): _digest(store.copies.content(record)) for record in records}
        del records  # else it stays in memory beside the next batch
    return digests


def _digest(content: Mapping[str, str]) -> bytes:
    return blake2b(repr(sorted(content.items())).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _contents(store: Store, keys: frozenset[Key], chunk: Chunk) -> dict[Key, Mapping[str, str]]:
    contents: dict[Key, Mapping[str, str]] = {}
    for records in store.read(keys, chunk):
        contents |= {store.keys.of(record): store.copies.content(record) for record in records}
        del records
    return contents


def _differing_names(original: Mapping[str, str], copy: Mapping[str, str]) -> tuple[str, ...]:
    names = original.keys() | copy.keys()
    return tuple(sorted(name for name in names if original.get(name) != copy.get(name)))


class _Sample:
    """Draws a random sample of bounded size from all the stamps that it is offered (reservoir sampling)."""

    def __init__(self, size: int) -> None:
        self._size, self._offered, self._random = size, 0, random.SystemRandom()
        self._drawn: list[tuple[Chunk, Key, Version]] = []

    def offer(self, chunk: Chunk, stamps: Stamps) -> None:
        for key, version in stamps.items() if self._size else ():
            self._offered += 1
            if len(self._drawn) < self._size:
                self._drawn.append((chunk, key, version))
            elif (position := self._random.randrange(self._offered)) < self._size:
                self._drawn[position] = (chunk, key, version)

    def by_chunk(self) -> Iterator[tuple[Chunk, Stamps]]:
        stamps_of: dict[Chunk, Stamps] = {}
        for chunk, key, version in self._drawn:
            stamps_of.setdefault(chunk, {})[key] = version
        yield from stamps_of.items()
