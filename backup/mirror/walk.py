"""Walks through the key space of a run, a chunk at a time or, where the servers can tell, all that is left at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple, TypeVar

from backup.core import spans
from backup.core.errors import TransientStoreError
from backup.core.model import WHOLE, Chunk
from backup.core.workers import Workers
from backup.mirror.checkpoint import Checkpoint
from backup.mirror.chunk import Settling
from backup.mirror.differing_parts import RECORDS_AS_ONE, RECORDS_AT_ONCE, DifferingParts
from backup.mirror.settled import Settled, Spread
from backup.mirror.steps import Steps
from backup.stores import Store

Part = TypeVar("Part", Chunk, DifferingParts)

_CHUNKS_KEPT_FREE = 1.5  # so much time of the longest chunk so far must be left for one more
_AS_DEAR_AS = 2  # fingerprints of blocks, as one of all
SECONDS_FOR_THE_REST = 60.0
"""So many seconds must be left for one statement about all records: docs/decisions/whole-table.md."""


class Walk:
    """The walk of a sync. `at` is how far it has come.

    `settled_chunks` gives what is settled next, and `past` moves `at` behind it. Call `past` for each before you ask
    for the next: how the changes are spread so far decides how the next chunk is compared.
    """

    def __init__(
        self, source: Store, settling: Settling, workers: Workers, steps: Steps, service: str, at: Checkpoint
    ) -> None:
        self._source, self._settling, self._workers, self._steps = source, settling, workers, steps
        self._service, self._spread, self.at = service, Spread(), at

    def past(self, settled: Settled) -> Checkpoint:
        """Moves `at` behind a chunk that was settled, and returns it."""
        self._spread = self._spread.after(settled)
        self.at = self.at.past(
            settled.chunk,
            settled.counts,
            settled.source_records,
            settled.backup_records,
            settled.proof,
            must_return=bool(settled.deletes or settled.waiting),
            unread_keys=settled.unread_keys,
        )
        return self.at

    def settled_chunks(self) -> Iterator[Settled]:
        """Settles the chunks that are left, in their order, and yields them; all of them as one where the last sync was
        quick. Else the first chunk goes alone: it shows how long a statement takes, and whether much has changed.

        All at once means: a quiet source is asked for one fingerprint of all, or of parts as large as a statement may
        be about, unless the first chunk has changed. If one differs, or the source is not quiet, blocks of neighbouring
        keys say what differs, as many as memory has room for; also where that fingerprint would take several
        statements, as many blocks can be asked for as one. What is left then goes chunk by chunk, as long as the time
        is enough for one more.
        """
        settling, chunks = self._settling, self._chunks()
        quiet, changed = settling.expects_nothing, False  # the first chunk
        rest = self._rest(lambda rest: quiet and settling.may_look_at_once(rest.records))
        if rest is None and (quiet or settling.learns_from_first) and (first := next(chunks, None)) is not None:
            settled = self._settle(first)
            yield settled
            quiet = quiet and settled.by == "fingerprints"
            changed = settled.by == "stamps"
            changed_few = changed and not Spread().after(settled).many
            if settled.by == "fingerprints" or changed_few:
                rest = self._rest(lambda rest: has_large_parts(settling, rest, quiet=quiet, changed=changed))
        if rest is not None:
            yield from settled_in_large_parts(settling, rest, self._steps.seconds_left, quiet=quiet, changed=changed)
            if self.at.complete:
                return
            chunks = self._chunks()
            if not changed and settling.learns_from_first:  # how much of the rest differs, its first chunk shows
                yield from map(self._settle, islice(chunks, 1))
        yield from self._workers.in_order(self._settle, chunks)

    def _chunks(self) -> Iterator[tuple[Chunk, Spread]]:
        """The chunks that are left, each with the spread of the changes at the moment when a worker is free for it. By
        then at most as many earlier chunks are unsettled as there are workers."""
        for chunk in in_time(self.at, self._source.chunks, self._steps.seconds_left):
            yield chunk, self._spread

    def _settle(self, chunk_and_spread: tuple[Chunk, Spread]) -> Settled:
        with spans.span("backup.chunk", service=self._service) as span:
            settled = self._settling.settle(*chunk_and_spread)
            span.tell(by=settled.by, source_records=settled.source_records, **vars(settled.counts))
        return settled

    def _rest(self, fits: Callable[[Rest], bool]) -> Rest | None:
        """What the walk has still to pass, if it is one part, `fits`, and the time is enough for a long statement."""
        if len(self.at.parts_left) != 1 or self._steps.seconds_left() <= SECONDS_FOR_THE_REST:
            return None
        records = (self._steps.records or self._steps.quiet_records) - self.at.source_records
        rest = Rest(self.at.parts_left[0], records)
        return rest if fits(rest) else None


class Rest(NamedTuple):
    """What a walk has still to pass, and about how many records that are."""

    part: Chunk
    records: int

    def behind(self, settled: Settled) -> Rest:
        """What is left behind its first chunk, which was settled."""
        return Rest(Chunk(settled.chunk.upto, self.part.upto), self.records - settled.source_records)


def chunks_of(source: Store, backup: Store, part: Chunk = WHOLE) -> Iterator[Chunk]:
    """Yields the source's chunks, cut further where the backup has more records, so that the stamps fit into memory."""
    for chunk in source.chunks(part):
        yield from backup.chunks(chunk)


def in_time(
    at: Checkpoint, chunks: Callable[[Chunk], Iterator[Chunk]], seconds_left: Callable[[], float]
) -> Iterator[Chunk]:
    """Yields the chunks that the walk has still to pass, as long as the time is enough for one more.

    It yields at least one chunk, so that every call gets further. It expects a chunk to take 1.5 times as long as the
    longest so far.
    """
    longest, started, first = 0.0, time.perf_counter(), True
    for part in at.parts_left:
        for chunk in chunks(part):
            if not first and seconds_left() <= longest * _CHUNKS_KEPT_FREE:
                return
            yield chunk
            first = False
            # The next chunk is fetched when a worker is free. So the time since the last one is about that of a chunk.
            longest, started = max(longest, time.perf_counter() - started), time.perf_counter()


def has_large_parts(settling: Settling, rest: Rest, *, quiet: bool, changed: bool) -> bool:
    """Whether `settled_in_large_parts` can begin."""
    looks = quiet and settling.may_look_in_parts(rest.records)
    return looks or _has_blocks(settling, rest, changed=changed)


def settled_in_large_parts(
    settling: Settling, rest: Rest, seconds_left: Callable[[], float], *, quiet: bool, changed: bool
) -> Iterator[Settled]:
    """Yields the rest, settled: by the fingerprints of large parts if it is `quiet` and they are equal; from the first
    that differs on by its blocks, as many at once as memory has room for. Ends early where neither can say what
    differs, where most does, and where the time is short.

    `changed`: so is the chunk before it. Else little has changed in the rest, probably.
    """
    looks = quiet and not settling.asks_in_parts(rest.records)
    for settled in _skipped_parts(settling, rest) if looks else ():
        yield settled
        if settled.chunk.upto == rest.part.upto or seconds_left() <= SECONDS_FOR_THE_REST:
            return
        rest = rest.behind(settled)
    if not _has_blocks(settling, rest, changed=changed):
        return
    after, parts = rest.part.after, settling.differing_blocks(*rest, expects_few=not (looks or changed))
    while (differing := _next(parts)) is not None:
        yield settling.settle_blocks(Chunk(after, differing.upto), differing)
        after = differing.upto
        if seconds_left() <= SECONDS_FOR_THE_REST:
            return


def _has_blocks(settling: Settling, rest: Rest, *, changed: bool) -> bool:
    """Whether blocks may say what differs in the rest, as `settled_in_large_parts` asks for them."""
    # After a chunk that has changed, fingerprints of blocks are among the statements that were measured.
    at_once = min(rest.records, RECORDS_AT_ONCE) if changed else min(rest.records, RECORDS_AS_ONE) * _AS_DEAR_AS
    # The last block may reach beyond an end.
    return settling.has_blocks and rest.part.upto is None and settling.may_look_at_once(at_once)


def _skipped_parts(settling: Settling, rest: Rest) -> Iterator[Settled]:
    """Yields the first parts of the rest, settled, up to one that differs or for which a server takes too long."""
    parts = settling.parts_at_once(*rest)
    while (part := _next(parts)) is not None and (skipped := _skipped(settling, part)) is not None:
        yield skipped


def _next(parts: Iterator[Part]) -> Part | None:
    """The next of these; None also if a server did not answer in time, as in `_skipped`."""
    try:
        return next(parts, None)
    except TransientStoreError as error:
        if error.unanswered:
            raise
        return None


def _skipped(settling: Settling, part: Chunk) -> Settled | None:
    """The part, settled, if its fingerprints are equal. None also if a server did not answer in time: a part that is
    too large for one statement is no reason to fail."""
    try:
        return settling.skip(part)
    except TransientStoreError as error:
        if error.unanswered:
            raise
        return None
