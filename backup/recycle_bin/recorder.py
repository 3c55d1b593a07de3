"""Keeps an image of every change of a run in the recycle bin, in the transaction of the change if there is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any, NamedTuple

from backup.core.model import Action, Image, Key, Now
from backup.recycle_bin import entries
from backup.recycle_bin.entry_pages import pages_of_hashes
from backup.stores import EntriesToMake, Sibling, Store
from backup.stores.key_hash import key_hash


class KeptBefore(NamedTuple):
    """What earlier calls of a run have kept: entries of keys inserted together, entries of deletes."""

    together: bool
    deleted: bool


class Recorder:
    """Keeps one entry for each record that a run changes: its first image. A second try of a change adds no entry.

    - Many inserted keys may be in one entry. A key in such an entry must not get its own entry when its insert is
      tried again or its record changes again. So the recorder looks keys up as soon as the run has such entries.
    - After the first delete of a run it makes no such entries: a deleted key may come back, and has an entry already.
    - A respelled key may have its entry under an old spelling, so the recorder looks up the old spelling too. In a
      resumed run it also asks the server about every spelling that earlier calls kept.

    Several threads may use it at once.
    """

    def __init__(
        self,
        table: Sibling,
        fields: Mapping[str, str],
        now: Now,
        folding_store: Store | None,
        before: KeptBefore | None = None,
    ) -> None:
        """`fields` are ServiceName, SyncId, Side and Place of all entries.

        `folding_store` is the store if it may take two spellings for the same key, else None. `before` is None unless
        the run is resumed.
        """
        self._table, self._fields, self._now, self._store = table, fields, now, folding_store
        self._asks_server = before is not None and folding_store is not None
        self._lock = Lock()  # guards the three below, which all threads share
        self._any_together, self._any_deleted = before or (False, False)
        self._respelled: set[Key] = set()  # keys whose entries have another spelling

    def __call__(self, images: Sequence[Image], transaction: Any, inserted: Sequence[Key] = ()) -> None:
        """Keeps the images and the inserted keys, as `Keep` says. Empties `images` if it is a list, to save memory."""
        with self._lock:
            self._any_deleted |= any(image.action is Action.DELETED for image in images)
            any_together, any_deleted = self._any_together, self._any_deleted
        together: list[dict[str, Any]] = []
        if not any_deleted:
            together, inserted = entries.together(self._fields["SyncId"], self._fields["Side"], inserted)
        all_images = [*images, *(Image(key, Action.INSERTED) for key in inserted)]
        if isinstance(images, list):
            images.clear()
        new = self._without_entry(all_images, transaction, any_together=any_together)
        del all_images
        if together:
            with self._lock:
                self._any_together = True  # also if this transaction fails: it may be committed all the same
        common = {**self._fields, "RecycledAt": self._now()}
        rows = [common | entry for entry in together]
        new.reverse()
        while new:  # lets go of each image as soon as its text is made
            rows.append(common | entries.of_one(self._fields["SyncId"], self._fields["Side"], new.pop()))
        self._table.add(rows, transaction)

    def entries_to_make(self, keys: Sequence[Key] | None, action: Action, transaction: Any) -> EntriesToMake | None:
        """As `KeepByServer`. Such a key has one spelling, so only entries of many keys have to be looked up."""
        if self._fields["Side"] != "backup":
            return None
        with self._lock:
            self._any_deleted |= action is Action.DELETED
            any_together = self._any_together
        if any_together and (keys is None or self._has_any_together(keys, transaction)):
            return None
        fields = {**self._fields, "Action": action.value, "RecycledAt": self._now()}
        return entries.to_make(self._table, self._fields["SyncId"], fields)

    def _has_any_together(self, keys: Sequence[Key], transaction: Any) -> bool:
        """Whether one of these keys is in an entry of many keys of the run."""
        return not self._in_entries([], entries.blocks_of(keys), transaction).isdisjoint(keys)

    def _in_entries(self, hashes: Sequence[str], keys_by_block: Mapping[str, set[Key]], transaction: Any) -> set[Key]:
        """The keys that have an entry of the run: under these values of KeyHash, or in a block of many keys."""
        all_hashes = sorted({*hashes, *keys_by_block})
        return {
            kept.key
            for page in pages_of_hashes(self._table, all_hashes, self._fields, transaction, records=False)
            for entry in page
            for kept in entries.kept_of(entry, keys_by_block)
        }

    def _without_entry(self, images: Sequence[Image], transaction: Any, *, any_together: bool) -> list[Image]:
        """The images whose record still needs its own entry in this run.

        An entry with the id that the image would get may exist too. That does no harm: to add it again does nothing.
        """
        old_spelling = {image.key: self._old_spelling(image) for image in images}
        respelled = [old for key, old in old_spelling.items() if old != key]
        hashes, keys_by_block = entries.hashes_of(respelled)
        if any_together:
            keys_by_block = entries.blocks_of([*respelled, *old_spelling])
        if self._asks_server:
            text_keys = (key for key in old_spelling if any(isinstance(part, str) for part in key))
            hashes += entries.hashes_of(text_keys)[0]
        with_entry = self._in_entries(hashes, keys_by_block, transaction)
        under_other_spelling = {
            key
            for key, old in old_spelling.items()
            if key not in with_entry
            and (old in with_entry or self._has_entry_for_server(key, old, with_entry, transaction))
        }
        with self._lock:
            self._respelled |= under_other_spelling
            with_entry |= self._respelled
        return [image for image in images if image.key not in with_entry]

    def _old_spelling(self, image: Image) -> Key:
        return image.key if image.record is None or self._store is None else self._store.keys.of(image.record)

    def _has_entry_for_server(self, key: Key, old: Key, with_entry: set[Key], transaction: Any) -> bool:
        """Whether a key with an entry is another spelling of this key for the server."""
        relational = None if self._store is None else self._store.relational
        if relational is None or not self._asks_server:
            return False
        candidates = [candidate for candidate in with_entry if key_hash(candidate) == key_hash(key)]
        return any(relational.spelled(candidate, transaction) in (key, old) for candidate in candidates)
