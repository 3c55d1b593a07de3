"""Reads again what was written and deleted: a trigger, a rule or a policy answers as a table does. Never writes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from hashlib import blake2b

from backup.core.errors import StoreError
from backup.core.key_ranges import KeyRange
from backup.core.model import WHOLE, Action, Image, Key, Record
from backup.core.suggestions import quantity
from backup.runs.session import Session, losses_of
from backup.stores import Store

NOT_DONE = "NotWritten"
"""How a run names a record that is as it was, although the server took the write or the delete without an error."""

Content = Mapping[str, str]
"""A record's values as texts that can be compared; a hash instead of each long one."""

_NAMED_AT_MOST = 10
_LONG = 1_000  # characters: of a longer value memory holds a hash


class Effects:
    """What became of the writes and deletes of one run in one place. Remembers those that had another effect or none,
    for `finish`."""

    def __init__(self, session: Session, into: Store, *, is_shared: bool = True) -> None:
        """`into` is the store of the place. `is_shared`: others may write there too, and its columns may fill
        themselves; so a record with other values than the wanted ones is noted. Else it counts as not written."""
        self._session, self._into, self._backup = session, into, session.backup
        self._is_shared = is_shared
        self._not_done: list[Key] = []
        self._changed: list[Key] = []
        self._lost_before = losses_of(into)

    def content(self, image: Image) -> Content:
        """The content of a record of the place."""
        return _brief(self._into.copies.content(image.record or {}))

    def unlike(self, wanted: Record, content: Content, but: Collection[str] = ()) -> bool:
        """Whether the place's content has another value than the wanted record has. Those in `but` may have any value,
        and so may the columns of a table that the record lacks. A document must have the same fields."""
        wanted_content = _brief(self._backup.copies.content(wanted))
        if not self._into.traits.has_columns:
            names = (wanted_content.keys() | content.keys()) - {*but}
            return any(wanted_content.get(name) != content.get(name) for name in names)
        return any(
            name in content and content[name] != value and name not in but for name, value in wanted_content.items()
        )

    def existing(self, keys: Sequence[Key]) -> set[Key]:
        """Those of these keys that have a record, whether or not it belongs to the service."""
        return {image.key for images in self._into.images(keys, Action.DELETED) for image in images}

    def look_for_deleted(self, keys: Collection[Key]) -> set[Key]:
        """Returns those of these deleted keys that still have a record."""
        existing_keys = self.existing([*keys])
        self._report(existing_keys)
        return existing_keys

    def look_in(self, ranges: Sequence[KeyRange]) -> list[Key]:
        """As `look_for_deleted`, of the keys in these ranges, which a `Relational` has deleted."""
        relational = self._into.relational
        existing_keys = None if relational is None else relational.keys_in(ranges)
        self._report(existing_keys or ())
        return existing_keys or []

    def look_for_written(self, wanted: Mapping[Key, Record], before: Mapping[Key, Content]) -> frozenset[Key]:
        """Returns the keys of the wanted records that were not written: they are missing, or still as they were before.
        Remembers those that have other values than the wanted ones."""
        now = {
            image.key: self.content(image)
            for images in self._into.images([*wanted], Action.UPDATED)
            for image in images
        }
        without_effect = {key for key in wanted if key not in now or now[key] == before.get(key)}
        masked = self._into.copies.masked
        changed = {key for key in wanted.keys() - without_effect if self.unlike(wanted[key], now[key], but=masked)}
        changed = self._still_unlike(changed, wanted)
        if self._is_shared:
            self._changed += sorted(changed, key=str)
        else:
            without_effect |= changed
        self._report(without_effect)
        return frozenset(without_effect)

    def _still_unlike(self, keys: Collection[Key], wanted: Mapping[Key, Record]) -> set[Key]:
        """Those of these keys whose record itself has other values than the wanted one, but for what a source masks. In
        a backup, and in the scratch place of a drill, an image is masked where the record may have clear values, and
        that of a record which is masked already is masked twice."""
        if not keys:
            return set()
        records = (record for batch in self._into.read(frozenset(keys), WHOLE) for record in batch)
        now = {self._into.keys.of(record): _brief(self._into.copies.content(record)) for record in records}
        masked = self._into.copies.masked
        return {key for key in keys if key in now and self.unlike(wanted[key], now[key], but=masked)}

    def finish(self) -> None:
        """Notes which records are not as they were written, and whether the server may have lost some since. Raises
        StoreError when writes or deletes had no effect."""
        label, run = self._into.place.label, self._session.run
        if losses_of(self._into) != self._lost_before and self._session.tally.counts.processed and not run.dry_run:
            self._session.note(
                f"Connections to the {label} were lost on the way. If another server answers since then, it may lack "
                f"the last writes. The same {run.verb} once more writes what is missing."
            )
        if self._changed:
            unlike = quantity(
                len(self._changed),
                f"record of the {label} is not as it was",
                f"records of the {label} are not as they were",
            )
            self._session.note(
                f"{unlike} written. A trigger, a column that fills itself, or another program has changed what was "
                f"written: {self._named(self._changed)}."
            )
        if self._not_done:
            accepted = quantity(
                len(self._not_done), "change without an error, but it had", "changes without an error, but they had"
            )
            raise StoreError(
                f"The {label} accepted {accepted} no effect"
                f"{'' if self._is_shared else ' or another one'}: {self._named(self._not_done)}. Everything else was "
                "done.",
                hint="Look for a trigger, a rule or a policy of the table, or for another program that writes to it.",
            )

    def _report(self, keys: Collection[Key]) -> None:
        self._session.tally.name(keys, NOT_DONE)
        self._not_done += sorted(keys, key=str)

    def _named(self, keys: Sequence[Key]) -> str:
        shown = ", ".join("/".join(map(str, self._backup.keys.to_json(key))) for key in keys[:_NAMED_AT_MOST])
        return shown + (" …" if len(keys) > _NAMED_AT_MOST else "")


def _brief(content: Content) -> Content:
    return {
        name: text if len(text) < _LONG else blake2b(text.encode("utf-8", "surrogatepass")).hexdigest()
        for name, text in content.items()
    }
