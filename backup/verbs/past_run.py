"""What one past run did to the backup's records, as the recycle bin says; a restore of that run needs it. Changes
nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from backup.core.model import Action, Key, Run
from backup.recycle_bin.bin import RecycleBin
from backup.recycle_bin.entries import Kept
from backup.stores import Store


class PastRun:
    """The records that a run changed, or that it `only` inserted, updated or deleted; each as it was before the run."""

    def __init__(self, run: Run, only: Action | None, backup: Store, recycled: RecycleBin) -> None:
        self.run, self._only = run, only
        self._backup, self._recycled = backup, recycled

    def changed_keys(self) -> Iterator[Sequence[Key]]:
        """The keys of the records that the run may have changed so, some at a time, in no order. `before` decides."""
        for keys in self._of(self._only):
            yield keys
        if self._only is Action.DELETED:
            # A record that a run updates first and deletes later has one image, that of the update.
            for keys in self._of(Action.UPDATED):
                existing_keys = self._backup.matching(keys)
                yield [key for key in keys if key not in existing_keys]

    def before(self, keys: Sequence[Key]) -> Mapping[Key, Kept]:
        """The images before the run, without their records, of those of these keys that the run changed so."""
        images: dict[Key, list[Kept]] = {key: [] for key in keys}
        for kept in self._recycled.of_keys(keys, records=False):  # oldest first
            if kept.key in images:
                images[kept.key].append(kept)
        existing_keys = self._backup.matching(keys) if self._only in (Action.UPDATED, Action.DELETED) else set[Key]()
        before: dict[Key, Kept] = {}
        for key, history in images.items():
            index = next((n for n, kept in enumerate(history) if kept.sync_id == self.run.sync_id), None)
            if index is None:
                continue
            later = history[index + 1] if index + 1 < len(history) else None
            stayed = key in existing_keys if later is None else later.action is not Action.INSERTED
            if self._only in (None, _action_of(history[index], stayed=stayed)):
                before[key] = history[index]
        return before

    def _of(self, action: Action | None) -> Iterator[Sequence[Key]]:
        for entries in self._recycled.of_run(self.run.sync_id, action, records=False):
            yield [kept.key for kept in entries if kept.side == "backup"]


def _action_of(kept: Kept, *, stayed: bool) -> Action:
    """What the run as a whole did to the record; `stayed` says whether the record existed after the run."""
    if kept.action is Action.INSERTED:
        return Action.INSERTED
    return Action.UPDATED if stayed else Action.DELETED
