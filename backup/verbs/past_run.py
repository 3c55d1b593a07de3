"""What one past run did to the backup's records, by the recycle bin: for a restore of just that. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from backup.core.model import Action, Key, Run
from backup.recycle_bin.bin import RecycleBin
from backup.recycle_bin.entries import Kept
from backup.stores import Store


class PastRun:
    """The records that a run inserted, updated and deleted, or only one of these; each as it was before the run."""

    def __init__(self, run: Run, only: Action | None, backup: Store, recycled: RecycleBin) -> None:
        self.run, self._only = run, only
        self._backup, self._recycled = backup, recycled

    def changed_keys(self) -> Iterator[Sequence[Key]]:
        """The keys of records that `before` may be asked about, some at a time, in no order that says anything."""
        for keys in self._of(self._only):
            yield keys
        if self._only is Action.DELETED:
            # A record that a run updates first and deletes later has one image, that of the update.
            for keys in self._of(Action.UPDATED):
                there = self._backup.matching(keys)
                yield [key for key in keys if key not in there]

    def before(self, keys: Sequence[Key]) -> Mapping[Key, Kept]:
        """What those of these keys were before the run to which it did what is asked for, without their records."""
        images: dict[Key, list[Kept]] = {key: [] for key in keys}
        for kept in self._recycled.of_keys(keys, records=False):  # oldest first
            if kept.key in images:
                images[kept.key].append(kept)
        there = self._backup.matching(keys) if self._only in (Action.UPDATED, Action.DELETED) else set[Key]()
        found: dict[Key, Kept] = {}
        for key, all_kept in images.items():
            place = next((n for n, kept in enumerate(all_kept) if kept.sync_id == self.run.sync_id), None)
            if place is None:
                continue
            later = all_kept[place + 1] if place + 1 < len(all_kept) else None
            stayed = key in there if later is None else later.action is not Action.INSERTED
            if self._only in (None, _done_to(all_kept[place], stayed=stayed)):
                found[key] = all_kept[place]
        return found

    def _of(self, action: Action | None) -> Iterator[Sequence[Key]]:
        for some in self._recycled.of_run(self.run.sync_id, action, records=False):
            yield [kept.key for kept in some if kept.side == "backup"]


def _done_to(kept: Kept, *, stayed: bool) -> Action:
    """What the run did to the record in all, if it was there after the run or not."""
    if kept.action is Action.INSERTED:
        return Action.INSERTED
    return Action.UPDATED if stayed else Action.DELETED
