"""What a run tells the recycle bin of every change it makes, as part of the same transaction where there is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any, NamedTuple

from backup.core.model import Action, Image, Key, Now
from backup.recycle_bin import entries
from backup.stores import Sibling, Store
from backup.stores.exact_json import key_hash


class KeptBefore(NamedTuple):
    """What a run has told the bin in the calls before this one: whether it has inserted keys together, deleted any."""

    together: bool
    deleted: bool


class Recorder:
    """Keeps one entry for each record that a run changes, its first image, however often a change is tried.

    Keys inserted together are one entry. An entry of its own for one of them must not come to it, when an insert is
    tried again or its record changes again; so those are looked up, once there are keys together. And they are no more
    put together once the run has deleted something, for a key may then be there already. A record whose key is spelled
    anew may have its entry under an old spelling: that is looked up, too, and in a run that goes on with what other
    calls have done, the server is asked about every spelling that they kept. Several threads may use it.
    """

    def __init__(
        self,
        table: Sibling,
        mine: Mapping[str, str],
        now: Now,
        respelled: Store | None,
        before: KeptBefore | None = None,
    ) -> None:
        """`mine` are ServiceName, SyncId, Side and Place of the entries; `respelled` is the store if it may take two
        spellings for one key."""
        self._table, self._mine, self._now, self._store = table, mine, now, respelled
        self._asks = before is not None and respelled is not None
        self._lock = Lock()  # for what follows, which one thread learns and all have to know
        self._any_together, self._any_deleted = before or (False, False)
        self._elsewhere: set[Key] = set()  # keys whose records have their entries under another spelling

    def __call__(self, images: Sequence[Image], transaction: Any, inserted: Sequence[Key] = ()) -> None:
        """As `Keep` says."""
        with self._lock:
            self._any_deleted |= any(image.action is Action.DELETED for image in images)
            any_together, any_deleted = self._any_together, self._any_deleted
        together: list[dict[str, Any]] = []
        if not any_deleted:
            together, inserted = entries.together(self._mine["SyncId"], self._mine["Side"], inserted)
        whole = [*images, *(Image(key, Action.INSERTED) for key in inserted)]
        if isinstance(images, list):
            images.clear()
        alone = self._first(whole, transaction, any_together=any_together)
        del whole
        if together:
            with self._lock:
                self._any_together = True  # even if this transaction fails: it may have been committed
        same = {**self._mine, "RecycledAt": self._now()}
        made = [same | entry for entry in together]
        alone.reverse()
        while alone:  # so that none is held beside its text
            made.append(same | entries.of_one(self._mine["SyncId"], self._mine["Side"], alone.pop()))
        self._table.add(made, transaction)

    def _first(self, images: Sequence[Image], transaction: Any, *, any_together: bool) -> list[Image]:
        """Those of whose record the run has no entry that an entry of its own would not meet."""
        spelled = {image.key: self._spelled(image) for image in images}
        respelled = [old for key, old in spelled.items() if old != key]
        hashes, asked = entries.found_by(respelled)
        if any_together:
            _, asked = entries.found_by([*respelled, *spelled])
        if self._asks:
            more, _ = entries.found_by(key for key in spelled if any(isinstance(part, str) for part in key))
            hashes += more
        sought = sorted({*hashes, *asked})
        known = {
            kept.key
            for page in entries.pages_of_hashes(self._table, sought, self._mine, transaction, records=False)
            for entry in page
            for kept in entries.kept_of(entry, asked)
        }
        met = {
            key
            for key, old in spelled.items()
            if key not in known and (old in known or self._is_one_of(key, old, known, transaction))
        }
        with self._lock:
            self._elsewhere |= met
            known |= self._elsewhere
        return [image for image in images if image.key not in known]

    def _spelled(self, image: Image) -> Key:
        return image.key if image.record is None or self._store is None else self._store.keys.of(image.record)

    def _is_one_of(self, key: Key, old: Key, known: set[Key], transaction: Any) -> bool:
        """Whether the record's entry is one of a known key that the server takes for this one."""
        relational = None if self._store is None else self._store.relational
        if relational is None or not self._asks:
            return False
        alike = [other for other in known if key_hash(other) == key_hash(key)]
        return any(relational.spelled(other, transaction) in (key, old) for other in alike)
