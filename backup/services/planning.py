"""What a sync of one service would do, found out without writing."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from backup.mirror.planned_changes import PlannedChanges, count_changes
from backup.runs import upgrade
from backup.runs.columns_to_fill import columns_to_fill
from backup.runs.history import History, is_synced
from backup.runs.opening import Opening
from backup.services.places import Places
from backup.stores import Drift, IndexPlan, OnNewColumn, Store
from backup.verbs.watermarks import NO_HINT


class Planning:
    """What a sync would do. Each call opens the stores again. For any thread."""

    def __init__(self, service: str, places: Places, on_new_column: OnNewColumn, selection: str | None = None) -> None:
        """`service` and `places` are those that the backup has now: of a table that is to be renamed, the old ones.
        `selection` is the mark of the filter and the columns."""
        self._name, self._places, self._on_new_column, self._selection = service, places, on_new_column, selection

    def changes(self) -> tuple[PlannedChanges, Drift, Collection[str]]:
        """Returns what a sync would do to records and to columns, and the columns that it would fill though they are
        not new: those that were left out for a while. To fill columns it updates every record that both sides have.

        Writes nothing. Cost: as a sync without its writes. Raises the errors of the stores, and NotInitialized for a
        backup that has no table yet.
        """
        with self._places.stores() as (source, backup):
            relational = backup.relational
            if relational is None:
                drift = backup.catalog.match(source)
            else:
                drift = relational.drift(source, self._on_new_column)
            opening = upgrade.read(backup, self._name)
            planned = count_changes(
                source, backup, by_fingerprints=self._may_trust_fingerprints(source, backup, opening)
            )
            unfilled = columns_to_fill(History(backup), self._name, opening, drift.shared) if opening else set[str]()
            if drift.added or drift.widened or unfilled:
                planned = replace(planned, updates=planned.backup_records - planned.deletes)
            return planned, drift, unfilled - {*drift.added, *drift.widened}

    def _may_trust_fingerprints(self, source: Store, backup: Store, opening: Opening | None) -> bool:
        """Whether equal fingerprints mean that a sync has nothing to do. Where they are not enough alone, the last sync
        must have had the same rules: another filter may find as many documents of the same seconds."""
        if source.traits.fingerprint_is_enough or opening is None:
            return source.traits.fingerprint_is_enough
        last = opening.first(is_synced, lambda: History(backup).last_synced(self._name))
        return last is not None and (last.masks, last.selection) == (source.traits.masks, self._selection)

    def check_key(self) -> None:
        """Raises SchemaMismatch if several rows of the source share a key that the file names, and the errors of the
        stores. Reads all keys, and changes nothing."""
        with self._places.stores() as (source, _):
            next(iter(source.chunks()))  # a walk checks the keys before its first chunk

    def obstacle(self) -> str | None:
        """Returns why a sync cannot ask the source what was written lately; None if it can. For services that want it:
        their settings name a column, or how often everything is compared. Reads the catalogue and the newest value.
        Raises the errors of the stores."""
        with self._places.stores() as (source, _):
            if source.incremental is None:
                return NO_HINT
            source.incremental.watermark()
            return source.incremental.obstacle

    def index_plan(self) -> IndexPlan:
        """Returns how a sync would complete the backup's indexes. Reads the catalogue of both sides. Raises the errors
        of the stores."""
        with self._places.stores() as (source, backup):
            relational = backup.relational
            follows = relational is not None and backup.traits.follows_indexes
            return relational.index_plan(source) if relational is not None and follows else IndexPlan()
