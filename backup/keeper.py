"""What a run tells the recycle bin of every change it makes, as part of the same transaction where there is one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from backup import entries
from backup.models import Action, Image, Key, Now
from backup.stores import Sibling

KeptBefore = tuple[bool, bool]
"""Whether a run has inserted keys together, and whether it has deleted any, in the calls before this one."""


class Keeper:
    """Keeps one entry for each record that a run changes, its first image, however often a change is tried.

    Keys inserted together are one entry. An entry of its own for one of them must not come to it, when an insert is
    tried again or its record changes again; so those are looked up, once there are keys together. And they are no more
    put together once the run has deleted something, for a key may then be there already. A record whose key is spelled
    anew may have its entry under the old spelling: that is looked up, too. Several threads may use it.
    """

    def __init__(
        self,
        table: Sibling,
        mine: Mapping[str, str],
        now: Now,
        old_key: Callable[[Image], Key],
        before: KeptBefore = (False, False),
    ) -> None:
        """`mine` are ServiceName, SyncId and Side of the entries; `old_key` tells how an image spells its key."""
        self._table, self._mine, self._now, self._old_key = table, mine, now, old_key
        self._any_together, self._any_deleted = before

    def __call__(self, images: Sequence[Image], transaction: Any, inserted: Sequence[Key] = ()) -> None:
        """As `Keep` says."""
        if any(image.action is Action.DELETED for image in images):
            self._any_deleted = True
        together: list[dict[str, Any]] = []
        if not self._any_deleted:
            together, inserted = entries.together(self._mine["SyncId"], self._mine["Side"], inserted)
        alone = self._first([*images, *(Image(key, Action.INSERTED) for key in inserted)], transaction)
        if together:
            self._any_together = True  # even if this transaction fails: it may have been committed
        same = {**self._mine, "RecycledAt": self._now()}
        singles = (entries.of_one(self._mine["SyncId"], self._mine["Side"], image) for image in alone)
        self._table.add([same | entry for entry in (*together, *singles)], transaction)

    def _first(self, images: list[Image], transaction: Any) -> list[Image]:
        """Those of whose record the run has no entry that an entry of its own would not meet."""
        old = {image.key: key for image in images if (key := self._old_key(image)) != image.key}
        hashes, asked = entries.found_by(old.values())
        if self._any_together:
            _, asked = entries.found_by([*old.values(), *(image.key for image in images)])
        sought = sorted({*hashes, *asked})
        known = {
            kept.key
            for page in entries.pages_of_hashes(self._table, sought, self._mine, transaction)
            for entry in page
            for kept in entries.kept_of(entry, asked)
        }
        return [image for image in images if known.isdisjoint((image.key, old.get(image.key, image.key)))]
