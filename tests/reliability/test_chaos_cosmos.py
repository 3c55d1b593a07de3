"""Orders synced through an account that throttles half of all requests, breaks connections and loses answers."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from backup.config.settings import load_settings
from backup.core.errors import TransientStoreError
from backup.core.model import WHOLE
from backup.core.run_values import Run, Status, Trigger
from backup.dev import sample
from backup.services.registry import Registry
from backup.stores.cosmos.store import CosmosStore
from tests.emulators.clients import cosmos_client
from tests.reliability.chaos import CALM, HALF_THROTTLED, Chaos, Fate
from tests.reliability.effort import SEED, rounds
from tests.scenarios import places
from tests.scenarios.places import Contents, Cosmos, Service

pytestmark = [pytest.mark.timeout(rounds(120, 600)), pytest.mark.usefixtures("sdk_waits_for_nothing")]

ORDERS, UPDATED, ADDED, DELETED = rounds((24, 6, 3, 2), (80, 20, 8, 7))
RUNS_AT_MOST = 4
# Chunks and batches are small, so that each is met by something. Retries are the product's five.
SETTINGS = {"BackupRetry__BaseSeconds": "0.01", "BackupSync__ChunkSize": "10", "BackupSync__BatchSize": "7"}
BIN = "recycle-bin"
DIRECTIONS = ["source", "backup"]
SEEDS = range(SEED, SEED + rounds(1, 10))


@pytest.fixture
def orders(tmp_path: Path, cosmos_server: str, cosmos_server_backup: str) -> Iterator[Service]:
    """Orders in the source, and an empty backup.

    A proxy is before either even where none is asked for: the npm server takes 24 ms for a request on a connection that
    is kept open, and 4 on one of its own.
    """
    with (
        Chaos(cosmos_server, CALM, SEED).running() as source,
        Chaos(cosmos_server_backup, CALM, SEED).running() as backup,
    ):
        place = places.with_orders_on_cosmos(tmp_path, source.account, backup.account)
        put(place.order, map(sample.order, range(1, ORDERS + 1)))
        registry_of(place.order).get("order").initialize()
        yield place.order


def registry_of(service: Service) -> Registry:
    return Registry(load_settings({**SETTINGS, **service.settings}))


def put(service: Service, entries: Iterable[sample.SampleRecord]) -> None:
    sample.put(registry_of(service), "order", entries)


def change_source(service: Service, chance: random.Random) -> set[str]:
    """Updates, adds and deletes; the ids of what was updated or deleted. Deletes less than a tenth."""
    chosen = chance.sample(range(1, ORDERS + 1), UPDATED + DELETED)
    put(service, (sample.order(n, revision=2) for n in chosen[:UPDATED]))
    put(service, map(sample.order, range(ORDERS + 1, ORDERS + ADDED + 1)))
    with registry_of(service).get("order").stores() as (source, _):
        source.delete([(json.dumps(f"customer-{n % 20}"), f"order-{n:04}") for n in chosen[UPDATED:]])
    return {f"order-{n:04}" for n in chosen}


def complete(service: Service, chaos: Chaos, side: str) -> list[Run]:
    """Syncs through the proxy before that side until a run completes; all runs it took, the completed one last.

    Five tries of a call may all meet bad luck, and then the run fails; a few runs may not.
    """
    through = replace(service, **{side: replace(getattr(service, side), account=chaos.account)})
    runs: list[Run] = []
    while not runs or (runs[-1].status is not Status.COMPLETED and len(runs) < RUNS_AT_MOST):
        [outcome] = registry_of(through).sync("order", Trigger.CLI)
        runs.append(outcome.run)
        assert outcome.error is None or isinstance(outcome.error, TransientStoreError), outcome.error
    assert [run.status for run in runs] == [*[Status.FAILED] * (len(runs) - 1), Status.COMPLETED], runs
    return runs


def check_counts(runs: list[Run], *, inserted: int, updated: int, deleted: int, skipped: int) -> None:
    """The runs together did this. What a failed run wrote in the batch it failed in is counted by none."""
    last, first = runs[-1].counts, runs[0].counts
    together = tuple(
        sum(getattr(run.counts, name) for run in runs) for name in ("inserted", "updated", "deleted", "processed")
    )
    if len(runs) == 1:
        assert (*together[:3], first.skipped) == (inserted, updated, deleted, skipped)
    assert all(counted <= most for counted, most in zip(together, (inserted, updated, deleted), strict=False))
    assert last.inserted + last.updated + last.skipped == inserted + updated + skipped


def check_history(backup: Cosmos, runs: list[Run]) -> None:
    """One entry a run, none twice, with what the run said of itself; none only of a run that could not even begin."""
    names = ("InsertedCount", "UpdatedCount", "DeletedCount", "SkippedCount")
    entries = {entry["SyncId"]: entry for entry in backup.history()}
    assert len(entries) == len(backup.history())
    assert entries.keys() <= {run.sync_id for run in runs}
    for run in runs:
        if run.sync_id in entries:
            assert entries[run.sync_id]["Status"] == run.status
        else:
            assert (run.status, run.counts.seen) == (Status.FAILED, 0)
        if run.status is Status.COMPLETED:
            counts = tuple(entries[run.sync_id][name] for name in names)
            assert counts == (run.counts.inserted, run.counts.updated, run.counts.deleted, run.counts.skipped)


def check_recycle_bin(backup: Cosmos, overwritten: Contents) -> None:
    """No image of a run is in the bin twice, and every overwritten value is there.

    `overwritten` are the copies that updates and deletes have replaced since the bin was empty, as they were, by id.
    """
    with cosmos_client(backup.account) as client:
        images = list(client.get_database_client(backup.database).get_container_client(BIN).read_all_items())
    run_keys = [(image["syncId"], image["recordKey"]) for image in images]
    assert len(run_keys) == len(set(run_keys)), "an image is in the bin twice"
    values = {_without_mark(image["record"]) for image in images if image["record"] is not None}
    missing = [name for name, copy in overwritten.items() if json.dumps(copy, sort_keys=True) not in values]
    assert missing == [], "overwritten values are not in the bin"


def _without_mark(record: str) -> str:
    own = {name: value for name, value in json.loads(record).items() if name != "_backup"}
    return json.dumps(own, sort_keys=True)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("side", DIRECTIONS)
def test_through_chaos_nothing_is_lost_and_nothing_is_there_twice(orders: Service, side: str, seed: int) -> None:
    assert isinstance(orders.backup, Cosmos)
    chance = random.Random(seed)
    with Chaos(getattr(orders, side).account, HALF_THROTTLED, seed).running() as chaos:
        first = complete(orders, chaos, side)
        check_counts(first, inserted=ORDERS, updated=0, deleted=0, skipped=0)
        assert orders.is_mirrored()

        before = orders.backup.contents()
        changed = change_source(orders, chance)
        second = complete(orders, chaos, side)
        check_counts(second, inserted=ADDED, updated=UPDATED, deleted=DELETED, skipped=ORDERS - UPDATED - DELETED)
        assert orders.is_mirrored()
        check_recycle_bin(orders.backup, {name: before[name] for name in changed})

        third = complete(orders, chaos, side)
        check_counts(third, inserted=0, updated=0, deleted=0, skipped=ORDERS + ADDED - DELETED)
        assert orders.is_mirrored()
    check_history(orders.backup, first + second + third)

    asked = sum(chaos.fates.values())
    assert asked * 0.35 < chaos.count(Fate.THROTTLED) < asked * 0.65
    assert chaos.count(Fate.REQUEST_LOST) > 0
    assert chaos.count(Fate.ANSWER_LOST) > 0


@pytest.mark.parametrize("side", rounds(["backup"], DIRECTIONS))
def test_without_faults_the_proxy_passes_everything_unchanged(orders: Service, side: str) -> None:
    with Chaos(getattr(orders, side).account, {}, SEED).running() as chaos:
        [run] = complete(orders, chaos, side)
        check_counts([run], inserted=ORDERS, updated=0, deleted=0, skipped=0)
        through_proxy = replace(getattr(orders, side), account=chaos.account).contents()
    assert through_proxy == getattr(orders, side).contents()
    assert orders.is_mirrored()
    assert {fate for _, fate in chaos.fates} == {Fate.PASSED}


def test_fewer_requests_are_in_flight_while_the_account_throttles_and_more_when_it_does_not(orders: Service) -> None:
    assert isinstance(orders.source, Cosmos)
    with Chaos(orders.source.account, {Fate.THROTTLED: 0.5}, SEED).running() as chaos:
        through = replace(orders, source=replace(orders.source, account=chaos.account))
        with registry_of(through).get("order").stores() as (source, _):
            assert isinstance(source, CosmosStore)
            at_first = source.throttle.slots
            records = [record for batch in source.read(None, WHOLE) for record in batch]
            source.write(records)
            throttled = source.throttle.slots
            assert throttled < at_first
            chaos.odds = CALM
            source.write(records)
            assert source.throttle.slots > throttled


def test_the_same_seed_draws_the_same_fates_whatever_the_order_of_requests() -> None:
    requests = [("POST", "/docs", json.dumps({"id": f"order-{n % 50}"}).encode()) for n in range(200)]

    def drawn(chosen: list[tuple[str, str, bytes]]) -> list[tuple[Fate, str]]:
        chaos = Chaos("", HALF_THROTTLED, SEED)
        return sorted((chaos.fate_of(*request), request[2].decode()) for request in chosen)

    assert drawn(requests) == drawn(requests[::-1])
    assert {fate for fate, _ in drawn(requests)} == set(Fate)
