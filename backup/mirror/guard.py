"""Stops a run whose deletes or updates look like a mistake in the source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from backup.core.errors import BadRequest, ConfigError, GuardTripped
from backup.core.suggestions import quantity
from backup.stores import Store

_HINT = (
    "Check that this is the right database, and that the records were deleted, or the filter was changed, on purpose: "
    "a dry run (--dry-run) names the records. "
    'If so, run once with {"allowMassDelete": true} or --allow-mass-delete.'
)
_STANDS = "Nothing was deleted. Inserts and updates that the run made before stay."
_SMALL = 3  # a side of so few records may lose all of them
_MOST = 50.0  # percent: a larger part of any other side is never deleted, even if it is only a few records


def nothing_lately() -> int:
    """Returns 0: no deletes in the last seven days."""
    return 0


@dataclass(frozen=True)
class Guard:
    """The limits of a service. None switches a limit off.

    A percentage is a part of the records on the side that would lose some. The percentages apply only to more than
    `delete_guard_floor` changes, so that small tables may change freely. But more than half of a side is never deleted,
    unless `max_delete_percent` is higher. `deleted_lately` returns how many records the runs of the last seven days
    have deleted from that side. `canary` is the key of a record that the source must always have, as text.
    """

    max_delete_percent: float = 10.0
    max_delete_percent_per_week: float = 25.0
    delete_guard_floor: int = 20
    max_deletes: int | None = None
    max_update_percent: float | None = None
    canary: str | None = None
    deleted_lately: Callable[[], int] = nothing_lately

    def check_deletes(
        self, deletes: int, records_to_match: int, records_before: int, label: str, *, allowed: bool, dry_run: bool
    ) -> None:
        """Raises GuardTripped when the deletes are too many, or when the side named `label` has no record at all.

        One side would lose `deletes` of its `records_before`, to match the other side. That other side is `label` and
        has `records_to_match`. With `allowed` the run passes every limit. Changes nothing.
        """
        if allowed or deletes == 0:
            return
        stands = "A dry run changes nothing." if dry_run else _STANDS
        figures = f"{deletes} of {quantity(records_before, 'record')} would be deleted"
        to_match = f"{figures} to match the {label}, {_percent(deletes, records_before)}"
        if records_to_match == 0:
            raise GuardTripped(f"The {label} holds no records: {figures}. Nothing was deleted.", hint=_HINT)
        if self._beyond(self.max_delete_percent, deletes, records_before):
            raise GuardTripped(f"{to_match}; MaxDeletePercent is {self.max_delete_percent:g}. {stands}", hint=_HINT)
        if records_before > _SMALL and deletes * 100 > max(_MOST, self.max_delete_percent) * records_before:
            raise GuardTripped(f"{to_match}. That is more than half of them. {stands}", hint=_HINT)
        if self.max_deletes is not None and deletes > self.max_deletes:
            raise GuardTripped(
                f"{figures} to match the {label}; MaxDeletes is {self.max_deletes}. {stands}", hint=_HINT
            )
        lately = self.deleted_lately()
        if lately and self._beyond(self.max_delete_percent_per_week, deletes + lately, records_before + lately):
            raise GuardTripped(
                f"{figures} to match the {label}, after {lately} in the last seven days: "
                f"{_percent(deletes + lately, records_before + lately)} of what was there; MaxDeletePercentPerWeek is "
                f"{self.max_delete_percent_per_week:g}. {stands}",
                hint=_HINT,
            )

    def check_updates(self, updates: int, records: int, label: str) -> None:
        """Raises GuardTripped when so many updates of the backup's `records` are too many. Changes nothing."""
        if self._beyond(self.max_update_percent, updates, records):
            raise GuardTripped(
                f"{updates} of {quantity(records, 'record')} would be updated to match the {label}, "
                f"{_percent(updates, records)}; MaxUpdatePercent is {self.max_update_percent:g}. Nothing was changed.",
                hint=_HINT,
            )

    def check_canary(self, source: Store) -> None:
        """Raises GuardTripped if the source lacks the canary, ConfigError if that is not a key. Changes nothing."""
        if self.canary is None:
            return
        try:
            key = source.keys.from_text(self.canary)
        except BadRequest as error:
            message = f"The setting CanaryKey of the source cannot be used: {error} Nothing was changed."
            raise ConfigError(message, hint=error.hint) from None
        if not source.matching([key]):
            raise GuardTripped(
                f"The {source.place.label} has no record {self.canary!r}, which CanaryKey says it must have. "
                "Nothing was changed.",
                hint="Check that this is the right database. If the record was deleted on purpose, set another one.",
            )

    def _beyond(self, percent: float | None, changes: int, records: int) -> bool:
        return percent is not None and changes > self.delete_guard_floor and changes * 100 > percent * records


def _percent(part: int, whole: int) -> str:
    return f"{part * 100 / whole:.1f} %" if whole else "all"
