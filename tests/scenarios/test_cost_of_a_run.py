"""What a run costs beside its work, counted in calls of the backup: three to know the state, two entries, one look."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from backup.core.model import Trigger
from backup.dev import sample
from backup.mirror.comparison import Depth
from backup.services.service import SyncService
from backup.stores.cosmos.access import CosmosAccess
from backup.stores.sql.access import SqlAccess
from tests.scenarios.places import Place
from tests.scenarios.test_places import service, sides_on, synced


@contextmanager
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Counts the calls of history and recycle bin by what they are for, in words that hold for each engine."""
    counts: Counter[str] = Counter()

    def counted(once: Callable[..., AbstractContextManager[Any]]) -> Callable[..., AbstractContextManager[Any]]:
        def call(access: Any, operation: str, **how: Any) -> AbstractContextManager[Any]:
            words = operation.replace("sync-history", "SyncHistory").replace("recycle-bin", "RecycleBin")
            if words.endswith(("SyncHistory", "RecycleBin")):
                counts[words] += 1
            return once(access, operation, **how)

        return call

    with monkeypatch.context() as patches:
        patches.setattr(SqlAccess, "once", counted(SqlAccess.once))
        patches.setattr(CosmosAccess, "once", counted(CosmosAccess.once))
        yield counts


@pytest.fixture(params=["sqlite", "postgresql", "cosmos"])
def quiet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SyncService]:
    """Orders of which the backup has everything."""
    with sides_on(request.param, request, tmp_path) as place:
        orders = Place(place.order, place.order)
        sample.put(orders.registry, "order", [sample.order(n) for n in (1, 2, 3)])
        orders.initialize()
        order = service(orders.settings, "order")
        synced(order)
        yield order


def test_a_quiet_sync_reads_history_four_times_and_writes_it_twice(
    quiet: SyncService, monkeypatch: pytest.MonkeyPatch
) -> None:
    with counting(monkeypatch) as asked:
        assert quiet.sync(Trigger.CLI).run.counts.skipped == 3
    assert asked == {"read SyncHistory": 4, "write SyncHistory": 2}


def test_a_verify_reads_history_three_times_and_writes_it_once(
    quiet: SyncService, monkeypatch: pytest.MonkeyPatch
) -> None:
    with counting(monkeypatch) as asked:
        assert quiet.verify(Depth()).run.verified
    assert asked == {"read SyncHistory": 3, "write SyncHistory": 1}


def test_a_look_for_an_unfinished_sync_reads_history_once(quiet: SyncService, monkeypatch: pytest.MonkeyPatch) -> None:
    with counting(monkeypatch) as asked:
        assert quiet.resume(Trigger.TIMER) is None
    assert asked == {"read SyncHistory": 1}
