"""What one past run did to the backup's records, as the recycle bin says; a restore of that run needs it. Changes
nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from backup.core.errors import BadRequest
from backup.core.model import Action, Key
from backup.core.run_values import Run, Verb
from backup.recycle_bin.bin import RecycleBin
from backup.recycle_bin.entries import KeptImage
from backup.recycle_bin.run_pages import Position, page_of_run
from backup.stores import Store

_LOOKED_AT_MOST = 1_000  # entries for a page of changes


class NetChange(NamedTuple):
    """What a run as a whole did to a record: its image before the run, and the next later image; None without one."""

    action: Action
    kept: KeptImage
    later: KeptImage | None


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

    def before(self, keys: Sequence[Key]) -> Mapping[Key, KeptImage]:
        """The images before the run, without their records, of those of these keys that the run changed so."""
        images = self._images(keys, with_later=self._only is not None)
        existing_keys = self._backup.matching(keys) if self._only in (Action.UPDATED, Action.DELETED) else set[Key]()
        return {
            key: kept
            for key, (kept, later) in images.items()
            if self._only in (None, _action_of(kept, stayed=_stayed(key, later, existing_keys)))
        }

    def changes(self, keys: Sequence[Key]) -> Mapping[Key, NetChange]:
        """What the run as a whole did to those of these keys that it changed so, in the order of `keys`.

        Cost: reads the entries of these keys, and looks up those that no later run changed.
        """
        images = self._images(keys)
        last_changed = [
            key for key, (kept, later) in images.items() if later is None and kept.action is not Action.INSERTED
        ]
        existing_keys = self._backup.matching(last_changed) if last_changed else set[Key]()
        changes = {
            key: NetChange(_action_of(kept, stayed=_stayed(key, later, existing_keys)), kept, later)
            for key, (kept, later) in images.items()
        }
        return {key: change for key, change in changes.items() if self._only in (None, change.action)}

    def change_of(self, key: Key) -> NetChange | None:
        """What the run did to the record of this key, in the backup or else in the place that a restore wrote to; None
        if the bin has no image of it."""
        change = self.changes([key]).get(key)
        if change is not None:
            return change
        in_place = self._recycled.of_key_in_source(self.run.sync_id, key)
        return None if in_place is None else NetChange(in_place.action, in_place, None)

    def page(self, limit: int, cursor: str | None = None) -> tuple[list[NetChange], str | None]:
        """Returns up to `limit` of the run's changes, and the cursor of the next page; None at the end.

        A page may have fewer changes and still have a cursor: one call looks at 1,000 keys at most. Raises BadRequest
        for a cursor that is not from a page of this run.
        """
        section, position = self._place_of(cursor)
        changes: list[NetChange] = []
        looked_at = 0
        while True:
            kept, position = page_of_run(
                self._backup,
                self.run.service,
                self.run.sync_id,
                self._sections[section],
                position,
                limit - len(changes),
            )
            looked_at += len(kept)
            changes += self._changed_so(kept)
            if position is None:
                section += 1
                if section == len(self._sections) or self._has_no_more(self._sections[section - 1]):
                    return changes, None
            if len(changes) >= limit or looked_at >= _LOOKED_AT_MOST:
                return changes, f"{section}.{position or ''}"

    @property
    def _sections(self) -> Sequence[Action | None]:
        """The actions of entries that may stand for such a change. A record that a run updates first and deletes later
        has one image, that of the update."""
        if self._only is Action.DELETED:
            return Action.DELETED, Action.UPDATED
        return (Action.UPDATED, Action.DELETED) if self._only is Action.UPDATED else (self._only,)

    def _place_of(self, cursor: str | None) -> tuple[int, Position | None]:
        if cursor is None:
            return 0, None
        number, _, text = cursor.partition(".")
        if number not in map(str, range(len(self._sections))):
            raise BadRequest("The cursor is not from a page of these changes.", hint="Begin without a cursor.")
        return int(number), Position.from_text(text, self.run.sync_id) if text else None

    def _has_no_more(self, action: Action | None) -> bool:
        """Whether the entries of this action are all changes of it that the run counted."""
        name = "deleted" if action is Action.DELETED else "updated"
        counted = getattr(self._recycled.counted(self.run.sync_id), name)
        return self.run.verb is Verb.RESTORE or bool(counted >= getattr(self.run.counts, name))

    def _changed_so(self, kept: Sequence[KeptImage]) -> list[NetChange]:
        """The changes that these entries stand for. Of a restore's place the app does not know what came later."""
        in_backup = self.changes([entry.key for entry in kept if entry.side == "backup"])
        changes = [
            in_backup.get(entry.key) if entry.side == "backup" else NetChange(entry.action, entry, None)
            for entry in kept
        ]
        return [change for change in changes if change is not None and self._only in (None, change.action)]

    def _images(self, keys: Sequence[Key], *, with_later: bool = True) -> dict[Key, tuple[KeptImage, KeptImage | None]]:
        """Of each of these keys that the run changed: its image before the run, and the next later image, if any and
        wanted."""
        missing, own, later = set(keys), dict[Key, KeptImage](), dict[Key, KeptImage]()
        runs_at_most = None if with_later else 1
        for kept in self._recycled.of_keys_since(self.run.sync_id, keys, runs_at_most):  # oldest first
            if kept.key not in missing:
                continue
            if kept.key in own:
                later[kept.key] = kept
                missing.discard(kept.key)
            elif kept.sync_id == self.run.sync_id:
                own[kept.key] = kept
            if not missing:
                break
        return {key: (own[key], later.get(key)) for key in keys if key in own}

    def _of(self, action: Action | None) -> Iterator[Sequence[Key]]:
        for entries in self._recycled.of_run(self.run.sync_id, action, records=False):
            yield [kept.key for kept in entries if kept.side == "backup"]


def _stayed(key: Key, later: KeptImage | None, existing_keys: Collection[Key]) -> bool:
    """Whether the record existed after the run: the next later image says so, or else whether it exists now."""
    return key in existing_keys if later is None else later.had_record


def _action_of(kept: KeptImage, *, stayed: bool) -> Action:
    """What the run as a whole did to the record; `stayed` says whether the record existed after the run."""
    if kept.action is Action.INSERTED:
        return Action.INSERTED
    return Action.UPDATED if stayed else Action.DELETED
