"""What a run tells the recycle bin of every change it makes, as part of the same transaction where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backup import entries
from backup.models import Action, Image, Key, Now, Run
from backup.stores import Sibling

KeptBefore = tuple[bool, bool]
"""Whether a run has inserted keys together, and whether it has deleted any, in the calls before this one."""


class Keeper:
    """Keeps one entry for each record that a run changes, its first image, however often a change is tried.

    Keys inserted together are one entry. An entry of its own for one of them must not come to it, when an insert is
    tried again or its record changes again; so those are looked up, once there are keys together. And they are no more
    put together once the run has deleted something, for a key may then be there already. Several threads may use it.
    """

    def __init__(
        self, table: Sibling, service: str, run: Run, now: Now, side: entries.Held, before: KeptBefore = (False, False)
    ) -> None:
        self._table, self._run, self._now, self._side = table, run.sync_id, now, side
        self._mine = {"ServiceName": service, "SyncId": run.sync_id, "Side": side}
        self._any_together, self._any_deleted = before

    def __call__(self, images: Sequence[Image], transaction: Any, inserted: Sequence[Key] = ()) -> None:
        """As `Keep` says."""
        if any(image.action is Action.DELETED for image in images):
            self._any_deleted = True
        together: list[dict[str, Any]] = []
        if not self._any_deleted:
            together, inserted = entries.together(self._run, self._side, inserted)
        alone = [*images, *(Image(key, Action.INSERTED) for key in inserted)]
        if self._any_together and alone:
            alone = self._new(alone, transaction)
        if together:
            self._any_together = True  # even if this transaction fails: it may have been committed
        same = {**self._mine, "RecycledAt": self._now()}
        singles = (entries.of_one(self._run, self._side, image) for image in alone)
        self._table.add([same | entry for entry in (*together, *singles)], transaction)

    def _new(self, images: Sequence[Image], transaction: Any) -> list[Image]:
        """Those whose keys are in no entry of several."""
        _, asked = entries.found_by([image.key for image in images])
        known = {
            kept.key
            for page in entries.pages_of_hashes(self._table, sorted(asked), self._mine, transaction)
            for entry in page
            for kept in entries.kept_of(entry, asked)
        }
        return [image for image in images if image.key not in known]
