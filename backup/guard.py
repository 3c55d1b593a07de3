"""What stands between a mistake in the source and the records it would cost."""

from __future__ import annotations

from dataclasses import dataclass

from backup.errors import GuardTripped
from backup.stores import Store

_HINT = (
    "Check that it is the right database and that the records were meant to go. If they were, run once with "
    '{"allowMassDelete": true} or --allow-mass-delete.'
)


@dataclass(frozen=True)
class Guard:
    """A service's limits; None switches one off.

    Percents are of the records the backup holds. They count only for more than `delete_guard_floor` records, so that
    small tables breathe. `allowed` lets one run pass all of them but the canary.
    """

    max_delete_percent: float = 10.0
    delete_guard_floor: int = 20
    max_deletes: int | None = None
    max_update_percent: float | None = None
    canary: str | None = None

    def check_deletes(self, deletes: int, wanted: int, held: int, label: str, *, allowed: bool) -> None:
        """Raises GuardTripped when so many deletes are too many, and whenever the `label` side has no record at all.

        `wanted` records are on that side, `held` on the one that would lose `deletes`.
        """
        if allowed or deletes == 0:
            return
        figures = f"{deletes} of {held} records would be deleted"
        if wanted == 0:
            raise GuardTripped(f"The {label} holds no records: {figures}. Nothing was deleted.", hint=_HINT)
        if self._beyond(self.max_delete_percent, deletes, held):
            raise GuardTripped(
                f"{figures} to match the {label}, {_percent(deletes, held)}; MaxDeletePercent is "
                f"{self.max_delete_percent:g}. Nothing was deleted; what was inserted and updated stands.",
                hint=_HINT,
            )
        if self.max_deletes is not None and deletes > self.max_deletes:
            raise GuardTripped(
                f"{figures} to match the {label}; MaxDeletes is {self.max_deletes}. Nothing was deleted; what was "
                "inserted and updated stands.",
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
        """Raises GuardTripped when there is a canary and the source has it not."""
        if self.canary is not None and not source.matching([source.key_from(self.canary)]):
            raise GuardTripped(
                f"The {source.label} has no record {self.canary!r}, which CanaryKey says it must have. "
                "Nothing was changed.",
                hint="Check that it is the right database. If the record was meant to go, set another CanaryKey.",
            )

    def _beyond(self, percent: float | None, changes: int, held: int) -> bool:
        return percent is not None and changes > self.delete_guard_floor and changes * 100 > percent * held


def _percent(part: int, whole: int) -> str:
    return f"{part * 100 / whole:.1f} %" if whole else "all"
