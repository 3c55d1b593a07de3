"""What stands between a mistake in the source and the records it would cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from backup.core.errors import BadRequest, ConfigError, GuardTripped
from backup.stores import Store

_HINT = (
    "Check that it is the right database and that the records were meant to go. If they were, run once with "
    '{"allowMassDelete": true} or --allow-mass-delete.'
)


_STANDS = "Nothing was deleted; what was inserted and updated stands."
_SMALL = 3  # records of a side of which all may go without a word
_MOST = 50.0  # percent of any other side that never go without one, however few records these are


def nothing_lately() -> int:
    """No deletes."""
    return 0


@dataclass(frozen=True)
class Guard:
    """A service's limits; None switches one off.

    Percents are of the records that the side holds which would lose some. They count only for more than
    `delete_guard_floor` records, so that small tables breathe; but more than half of a side is never deleted, unless
    `max_delete_percent` says more. `deleted_lately` are the records that runs of the last seven days have deleted from
    that side already. `allowed` lets one run pass all limits but the canary.
    """

    max_delete_percent: float = 10.0
    max_delete_percent_per_week: float = 25.0
    delete_guard_floor: int = 20
    max_deletes: int | None = None
    max_update_percent: float | None = None
    canary: str | None = None
    deleted_lately: Callable[[], int] = nothing_lately

    def check_deletes(self, deletes: int, wanted: int, held: int, label: str, *, allowed: bool) -> None:
        """Raises GuardTripped when so many deletes are too many, and whenever the `label` side has no record at all.

        `wanted` records are on that side, `held` on the one that would lose `deletes`.
        """
        if allowed or deletes == 0:
            return
        figures = f"{deletes} of {held} records would be deleted"
        to_match = f"{figures} to match the {label}, {_percent(deletes, held)}"
        if wanted == 0:
            raise GuardTripped(f"The {label} holds no records: {figures}. Nothing was deleted.", hint=_HINT)
        if self._beyond(self.max_delete_percent, deletes, held):
            raise GuardTripped(f"{to_match}; MaxDeletePercent is {self.max_delete_percent:g}. {_STANDS}", hint=_HINT)
        if held > _SMALL and deletes * 100 > max(_MOST, self.max_delete_percent) * held:
            raise GuardTripped(f"{to_match}: more than half, however few they are. {_STANDS}", hint=_HINT)
        if self.max_deletes is not None and deletes > self.max_deletes:
            raise GuardTripped(
                f"{figures} to match the {label}; MaxDeletes is {self.max_deletes}. {_STANDS}", hint=_HINT
            )
        lately = self.deleted_lately()
        if lately and self._beyond(self.max_delete_percent_per_week, deletes + lately, held + lately):
            raise GuardTripped(
                f"{figures} to match the {label}, after {lately} in the last seven days: "
                f"{_percent(deletes + lately, held + lately)} of what was there; MaxDeletePercentPerWeek is "
                f"{self.max_delete_percent_per_week:g}. {_STANDS}",
                hint=_HINT,
            )

    def check_updates(self, updates: int, held: int, label: str) -> None:
        """Raises GuardTripped when so many updates are too many."""
        if self._beyond(self.max_update_percent, updates, held):
            raise GuardTripped(
                f"{updates} of {held} records would be updated to match the {label}, {_percent(updates, held)}; "
                f"MaxUpdatePercent is {self.max_update_percent:g}. Nothing was changed.",
                hint=_HINT,
            )

    def check_canary(self, source: Store) -> None:
        """Raises GuardTripped when there is a canary and the source has it not, ConfigError for one that is no key."""
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
                hint="Check that it is the right database. If the record was meant to go, set another CanaryKey.",
            )

    def _beyond(self, percent: float | None, changes: int, held: int) -> bool:
        return percent is not None and changes > self.delete_guard_floor and changes * 100 > percent * held


def _percent(part: int, whole: int) -> str:
    return f"{part * 100 / whole:.1f} %" if whole else "all"
