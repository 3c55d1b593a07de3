"""Each limit of the guard at its bound: what is just allowed, and what is one record too many."""

import pytest

from backup.core.errors import GuardTripped
from backup.mirror.guard import Guard

TEN_A_DAY = Guard(max_delete_percent=10, max_delete_percent_per_week=100, delete_guard_floor=5)
TEN_A_WEEK = Guard(100, 10, 5, deleted_lately=lambda: 40)


@pytest.mark.parametrize(
    ("guard", "deletes", "records", "is_said"),
    [
        (TEN_A_DAY, 5, 20, "MaxDeletePercent is 10"),  # the floor
        (TEN_A_DAY, 10, 100, "MaxDeletePercent is 10"),
        (Guard(), 5, 10, "more than half"),
        (Guard(), 2, 4, "more than half"),
        (Guard(), 20, 60, "MaxDeletePercent is 10"),  # its own floor
        (Guard(100, 100, 0, max_deletes=7), 7, 1_000, "MaxDeletes is 7"),
        (TEN_A_WEEK, 60, 960, "MaxDeletePercentPerWeek is 10"),
    ],
)
def test_a_limit_allows_its_number_of_deletes_and_refuses_one_more(
    guard: Guard, deletes: int, records: int, is_said: str
) -> None:
    guard.check_deletes(deletes, 1, records, "source", allowed=False, dry_run=False)
    with pytest.raises(GuardTripped, match=is_said):
        guard.check_deletes(deletes + 1, 1, records, "source", allowed=False, dry_run=False)
    guard.check_deletes(deletes + 1, 1, records, "source", allowed=True, dry_run=False)


def test_a_side_of_three_records_may_lose_all_and_a_week_without_deletes_has_no_limit_of_its_own() -> None:
    Guard().check_deletes(3, 1, 3, "source", allowed=False, dry_run=False)
    Guard(100, 10, 5).check_deletes(50, 1, 100, "source", allowed=False, dry_run=False)


def test_a_source_without_records_may_delete_nothing_but_on_demand() -> None:
    TEN_A_DAY.check_deletes(0, 0, 9, "source", allowed=False, dry_run=False)
    with pytest.raises(GuardTripped, match="holds no records"):
        TEN_A_DAY.check_deletes(1, 0, 9, "source", allowed=False, dry_run=False)


def test_the_limit_of_updates_is_a_percentage_above_the_floor() -> None:
    guard = Guard(max_update_percent=10, delete_guard_floor=5)
    guard.check_updates(5, 20, "source")
    guard.check_updates(10, 100, "source")
    Guard().check_updates(100, 100, "source")
    for updates, records in ((6, 20), (11, 100)):
        with pytest.raises(GuardTripped):
            guard.check_updates(updates, records, "source")
