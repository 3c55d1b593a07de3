"""Restores parts of the key space of which the place has nothing, and many single records: the servers copy them, and
their contents are compared. Never changes the backup but for its bin."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence, Set
from functools import partial

from backup.core import spans
from backup.core.errors import ConstraintRefused
from backup.core.model import Chunk, Key, Record, Stamps, unread_in
from backup.mirror import relays
from backup.mirror.proof import are_equal
from backup.recycle_bin.entries import KeptImage
from backup.runs.session import Session
from backup.stores import ImagesOfKeys, NotRelayed, Relational, RelayedPart, Store
from backup.verbs.overwrite import Overwriting
from backup.verbs.pieces import FEWEST_AT_ONCE, LEFT_OUT_AT_MOST

FEWEST_BACK = relays.FEWEST
"""Missing or changed records of a chunk: for fewer, to read and to send them costs as much."""

_NOT_RELAYED = "The servers refused to restore parts of the table by themselves, so the app restored them in batches."


class Relaying:
    """The records of one restore that go from server to server, into a place of the same product: those whose copies
    are as they should be, and those of which images in the bin have what is wanted."""

    def __init__(self, session: Session, into: Store, overwriting: Overwriting) -> None:
        """`into` is the store of the place, which exists."""
        self._session, self._backup, self._into, self._overwriting = session, session.backup, into, overwriting
        place, is_whole = into.relational, not into.copies.masked
        self._may_relay = is_whole and not session.run.dry_run and place is not None and place.may_relay(self._backup)
        self.restored = 0
        """How many records of the backup lie in the parts that were relayed so far."""

        self.equal = 0
        """How many records lie in the parts that were equal already."""

    @property
    def keys_at_once(self) -> int:
        """How many keys to look at together, if images may have what is wanted."""
        place = self._into.relational
        may_relay = place is not None and place.may_relay_images(self._backup)
        return max(FEWEST_AT_ONCE, min(self._into.traits.batch_size, LEFT_OUT_AT_MOST)) if may_relay else FEWEST_AT_ONCE

    def rest_of(self, chunk: Chunk, but: Sequence[Key]) -> Chunk | None:
        """Restores what the servers can tell or restore at once of a chunk without the keys in `but`, which they may
        leave out. Returns the part to restore in another way; None if nothing is left.

        A chunk that is equal already counts as skipped. Of one of which the place has no record, the servers pass the
        records on, and their content is read again. It counts the records that are there afterwards, and remembers the
        others, as `Overwriting.write` does. Cost: fingerprints on both sides, and the relay. Raises what the stores and
        the lock raise; parts that were relayed stay.
        """
        backup, place = self._backup.relational, self._into.relational
        if backup is None or place is None:
            return chunk
        there = place.fingerprint(chunk, but)
        if there is not None and there.records and are_equal(backup.fingerprint(chunk, but), there):
            self.equal += there.records
            self._session.tally.add(skipped=there.records)
            return None
        is_empty = there is not None and not there.records
        return self._copy(chunk, but, backup, place) if self._may_relay and is_empty else chunk

    def _copy(self, chunk: Chunk, but: Sequence[Key], backup: Relational, place: Relational) -> Chunk | None:
        of_backup = backup.content_fingerprint(chunk, but)
        if of_backup is None or not of_backup.records:  # records that cannot be read have no fingerprint
            return chunk
        rest = self._relay(chunk, but)
        if rest == chunk:
            return chunk
        if rest is not None:
            chunk = Chunk(chunk.after, rest.after)
            of_backup = backup.content_fingerprint(chunk, but)
        inserted = of_backup.records if of_backup is not None else 0
        self.restored += inserted
        if not are_equal(of_backup, place.content_fingerprint(chunk, but)):
            inserted = sum(self._look_at(records, {*but}) for records in self._backup.read(None, chunk))
        self._session.tally.add(inserted=inserted)
        return rest

    def _look_at(self, records: Sequence[Record], but: Set[Key]) -> int:
        key_of = self._backup.keys.of
        return self._overwriting.look_at(
            [record for record in records if key_of(record) not in but] if but else records
        )

    def insert(self, keys: Sequence[Key], images: Mapping[Key, KeptImage], but: Container[Key]) -> Sequence[Key]:
        """Inserts the records of these keys, which the place lacks, and counts them: as their `images` say, else as the
        backup has them. Returns the keys that are to be restored in another way: those in `but`, and all of a kind of
        which there are few."""
        relational, rest = self._into.relational, [key for key in keys if key in but]
        for of_kind, in_bin in _by_kind(keys, images, but):
            if not self._may_relay or relational is None or len(of_kind) < FEWEST_BACK:
                rest += of_kind
                continue
            in_order = self._backup.keys.in_order(of_kind)
            relay = partial(relational.relay_new, self._backup, in_order, self._images_of(in_order, in_bin))
            rest += self._passed_on(relay)
        return rest

    def overwrite(
        self, keys: Sequence[Key], place_stamps: Stamps, images: Mapping[Key, KeptImage], but: Container[Key]
    ) -> Sequence[Key]:
        """As `insert`, over the place's records of these keys, unless they have other stamps by then."""
        relational, keep = self._into.relational, self._overwriting.keep
        rest = [key for key in keys if key in but]
        for of_kind, in_bin in _by_kind(keys, images, but):
            there = self._backup.keys.in_order([key for key in of_kind if key in place_stamps])
            stamps = {key: place_stamps[key] for key in there}
            if not self._may_relay or relational is None or len(stamps) < FEWEST_BACK or unread_in(stamps):
                rest += of_kind
                continue
            rest += [key for key in of_kind if key not in stamps]
            relay = partial(relational.relay_over, self._backup, stamps, keep, self._images_of(there, in_bin))
            rest += self._passed_on(relay)
        return rest

    def _images_of(self, keys: Sequence[Key], images: Mapping[Key, KeptImage] | None) -> ImagesOfKeys | None:
        return None if images is None else self._session.recycled.images_of({key: images[key] for key in keys})

    def _passed_on(self, relay: Callable[[], Iterator[RelayedPart]]) -> Sequence[Key]:
        """Counts what the servers write of some keys. Returns the keys that they have not written."""
        session = self._session
        session.steps.check_lock()
        with spans.span("backup.relay", service=session.run.service) as span:
            records = 0
            try:
                for part in relay():
                    session.tally.add(inserted=part.inserted, updated=part.updated, skipped=part.skipped)
                    records += part.inserted + part.updated
                    session.steps.check_lock()
            except NotRelayed as refused:
                if refused.error is not None and not isinstance(refused.error, ConstraintRefused):
                    session.tally.note(f"The first refusal: {refused.error}", once=_NOT_RELAYED)
                rest: Sequence[Key] = refused.rest
                return rest
            finally:
                span.tell(records=records)
        return ()

    def _relay(self, chunk: Chunk, but: Sequence[Key]) -> Chunk | None:
        """Has the servers copy the chunk without these keys. Returns the part that they have not copied."""
        session, relational = self._session, self._into.relational
        assert relational is not None  # noqa: S101 - for mypy; `rest_of` has asked
        session.steps.check_lock()
        with spans.span("backup.relay", service=session.run.service) as span:
            records = 0
            try:
                for part in relational.relay(self._backup, chunk, None, None, but):
                    records += part.inserted
                    session.steps.check_lock()
            except NotRelayed as refused:
                if refused.error is None:  # nor will the servers do it with the next chunk
                    self._may_relay = False
                else:
                    session.tally.note(f"The first refusal: {refused.error}", once=_NOT_RELAYED)
                rest: Chunk = refused.rest
                return rest
            finally:
                span.tell(records=records)
        return None


def _by_kind(
    keys: Sequence[Key], images: Mapping[Key, KeptImage], but: Container[Key]
) -> Iterator[tuple[Sequence[Key], Mapping[Key, KeptImage] | None]]:
    """Those of these keys that have images, with the images; and those that have none, but for those in `but`."""
    yield [key for key in keys if key in images], images
    yield [key for key in keys if key not in images and key not in but], None
