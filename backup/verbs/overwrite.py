"""Records put into a place that others write to, or taken out of it. What is newer there stays, what is replaced is
kept, and what was written is looked up afterwards. Never changes the backup but for its bin."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from backup.core.errors import RecordRefused, StoreError
from backup.core.model import Action, Image, Key, Record, Version
from backup.runs.runner import Session
from backup.stores import Keep, Store, Written

LEFT_ALONE = "Newer"
"""What a record is named that is newer than its copy and so was not overwritten."""

NOT_DONE = "NotWritten"
"""What a record is named that was written or deleted without an error, and yet is as it was."""

_NAMED_AT_MOST = 10
_LONG = 1_000

Content = Mapping[str, str]


@dataclass
class _Batch:
    """What is found out about the records of one batch while it is written: what they were `before`; those that are
    the `same` as wanted, and of these the `untouched` ones, which were so when they were met."""

    before: dict[Key, Content] = field(default_factory=dict)
    same: set[Key] = field(default_factory=set)
    untouched: set[Key] = field(default_factory=set)


class Overwriting:
    """What one restore does to its place, a batch at a time; counts it, and collects what did not come to be."""

    def __init__(
        self,
        session: Session,
        place: Store,
        is_newer: Callable[[Version, Version | None], bool],
        *,
        overwrite_newer: bool,
    ) -> None:
        """`is_newer` says of a record's version in the place, and that of its copy, whether it was written after the
        backup copied it."""
        self._session, self._place, self._backup = session, place, session.backup
        self._is_newer, self._overwrite_newer = is_newer, overwrite_newer
        self._keep = _from_outside(
            session.recycled.recorder(session.run, session.steps.now, "source"),
            place.relational is not None and place.relational.shares_transactions(session.backup),
        )
        self._not_done: list[Key] = []
        self._changed: list[Key] = []

    def write(
        self,
        records: Sequence[Record],
        seen: Mapping[Key, Version],
        copies: Mapping[Key, Version],
        *,
        replace: bool = False,
    ) -> None:
        """Writes records of the backup, which have all the same columns; `seen` are the versions of those that were met
        in the place, `copies` those in the backup. What is there otherwise by now is asked about again, under its lock.

        Counts what came to be. Raises ConstraintRefused, and nothing is written, when a constraint forbids it.
        """
        if not records:
            return
        self._session.steps.check_lock()
        wanted = {self._backup.keys.of(record): record for record in records}
        batch = _Batch()

        def accept(image: Image) -> bool:
            content = _brief(self._place.copies.content(image.record or {}))
            if not self._unlike(wanted[image.key], content, but=self._place.copies.filled):
                batch.same.add(image.key)
                if image.stamp is not None and image.stamp == seen.get(image.key):
                    batch.untouched.add(image.key)
                return False
            batch.before[image.key] = content
            return self._overwrite_newer or self._may_change(image, seen, copies)

        originals = [self._backup.copies.original(record) for record in records]
        try:
            relational = self._place.relational if replace else None
            write = self._place.write if relational is None else relational.exchange
            written = write(originals, self._keep, accept=accept)
        except RecordRefused as error:  # the others are written by now, which this finds out
            self.write([one for key, one in wanted.items() if key not in error.refused], seen, copies)
            raise
        # Equal already: it was so when it was met, or it is what an earlier try of this very batch has written.
        same = written.left & batch.same
        skipped = same & batch.untouched
        before, made = seen.keys() | batch.before.keys(), same - skipped
        came = Written(written.inserted | (made - before), written.updated | (made & before))
        lost = self._look_up(wanted, came, batch)
        inserted, updated = came.inserted - lost, came.updated - lost
        self._leave(written.left - same)
        self._session.tally.add(inserted=len(inserted), updated=len(updated), skipped=len(skipped))

    def delete(self, seen: Mapping[Key, Version]) -> None:
        """Deletes records that only the place has; one that is not as it was met is left alone.

        Counts what is gone. Raises ConstraintRefused, and nothing is deleted, when other rows refer to one of them.
        """
        self._session.steps.check_lock()

        def accept(image: Image) -> bool:
            return image.stamp is not None and (self._overwrite_newer or image.stamp == seen[image.key])

        try:
            written = self._place.delete([*seen], self._keep, accept=accept)
        except RecordRefused as error:
            others = [key for key in seen if key not in error.refused]
            self._session.tally.add(deleted=len(others) - len(self._there(others)))
            raise
        there = self._there([*written.deleted])
        self._leave(written.left)
        self._report(there, self._not_done)
        self._session.tally.add(deleted=len(written.deleted - there))

    def finish(self) -> None:
        """Notes what is not as it was written. Raises StoreError when something was not written or deleted at all."""
        label = self._place.place.label
        if self._changed:
            self._session.note(
                f"{len(self._changed)} records of the {label} are not as they were written: a trigger, a column that "
                f"fills itself, or another program has changed them: {self._named(self._changed)}."
            )
        if self._not_done:
            raise StoreError(
                f"The {label} took {len(self._not_done)} changes without an error and without effect: "
                f"{self._named(self._not_done)}. Everything else was done.",
                hint="Look for a trigger, a rule or a policy of the table, or for another program that writes to it.",
            )

    def _there(self, keys: Sequence[Key]) -> set[Key]:
        """Those of these keys that have a record, whatever it is."""
        return {image.key for images in self._place.images(keys, Action.DELETED) for image in images}

    def _may_change(self, image: Image, seen: Mapping[Key, Version], copies: Mapping[Key, Version]) -> bool:
        """Whether the record is still what it was when it was compared, or by its version no newer than its copy."""
        if image.stamp is None or image.key not in seen:
            return False
        return image.stamp == seen[image.key] or not self._is_newer(image.stamp, copies.get(image.key))

    def _leave(self, keys: Collection[Key]) -> None:
        self._session.tally.name(keys, LEFT_ALONE)
        self._session.tally.add(skipped=len(keys))

    def _look_up(self, wanted: Mapping[Key, Record], written: Written, batch: _Batch) -> frozenset[Key]:
        """The keys of what was written and is not there; notes what is there otherwise."""
        keys = written.inserted | written.updated
        now = {
            image.key: _brief(self._place.copies.content(image.record or {}))
            for images in self._place.images([*keys], Action.UPDATED)
            for image in images
        }
        lost = {key for key in keys if key not in now or now[key] == batch.before.get(key)}
        other = {key for key in keys - lost if self._unlike(wanted[key], now[key])}
        self._report(lost, self._not_done)
        self._changed += sorted(other, key=str)
        return frozenset(lost)

    def _unlike(self, wanted: Record, found: Content, but: Collection[str] = ()) -> bool:
        """Whether the place has another value of what is wanted than that; of columns that are not said it may be
        anything. A document says all that it has."""
        own = _brief(self._backup.copies.content(wanted))
        if not self._place.traits.has_columns:
            return own != found
        return any(name in found and found[name] != value and name not in but for name, value in own.items())

    def _report(self, keys: Collection[Key], where: list[Key]) -> None:
        self._session.tally.name(keys, NOT_DONE)
        where += sorted(keys, key=str)

    def _named(self, keys: Sequence[Key]) -> str:
        shown = ", ".join("/".join(map(str, self._backup.keys.to_json(key))) for key in keys[:_NAMED_AT_MOST])
        return shown + (" …" if len(keys) > _NAMED_AT_MOST else "")


def _brief(content: Content) -> Content:
    """The same, with a hash for each long value: what is compared later is held until then."""
    return {
        name: text if len(text) < _LONG else blake2b(text.encode("utf-8", "surrogatepass")).hexdigest()
        for name, text in content.items()
    }


def _from_outside(keep: Keep, shared: bool) -> Keep:
    """What keeps images in the bin of another database before the place's transaction is committed. Of what is
    inserted there is no image."""

    def kept(images: Sequence[Image], transaction: Any, inserted: Sequence[Key] = ()) -> None:  # noqa: ARG001
        keep(images, transaction if shared else None)

    return kept
