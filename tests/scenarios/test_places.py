"""What a run leaves in history and bin is about one table or container, whatever else the schema holds."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
import sqlalchemy as sa

from backup.config.settings import load_settings
from backup.core.errors import BackupError, ConfigError
from backup.core.model import CheckLock
from backup.core.run_values import Run, Trigger, Verb
from backup.dev import sample
from backup.mirror.verification import Depth
from backup.recycle_bin.entries import RECYCLE_BIN
from backup.runs.history_entries import HISTORY
from backup.services.presets import CustomerSyncService
from backup.services.registry import Registry
from backup.services.service import Options, SyncService
from backup.stores import Limits
from backup.verbs.restore_spec import RestoreSpec
from tests.emulators.clients import cosmos_client
from tests.emulators.servers import lent_database
from tests.scenarios import places
from tests.scenarios.places import Cosmos, Place, Service, Sql

OF_VERSION_3 = ("Verb", "TriggeredBy")
OF_VERSION_2 = list(HISTORY.fields)[list(HISTORY.fields).index("Place") :]
NOW = datetime(2026, 3, 1, tzinfo=UTC)
TO_LOSE = Options(dry_run=True, allow_mass_delete=True)


def create(side: Sql | Cosmos, rows: int) -> None:
    assert isinstance(side, Sql)
    side.run('CREATE TABLE {table} ("Id" integer PRIMARY KEY, "Version" integer)')
    for n in range(1, rows + 1):
        side.run(f"INSERT INTO {{table}} VALUES ({n}, 1)")


def execute(side: Sql | Cosmos, table: str, statement: str) -> None:
    """The statement on another table of the side's schema."""
    beside(side, table).run(statement)


def beside(side: Sql | Cosmos, table: str) -> Sql:
    assert isinstance(side, Sql)
    return replace(side, table=f"{side.table.rpartition('.')[0]}.{table}".lstrip("."))


def service(settings: Mapping[str, str], name: str = "customer") -> SyncService:
    return Registry(load_settings(settings)).get(name)


def synced(sync_service: SyncService) -> Run:
    outcome = sync_service.sync(Trigger.CLI)
    assert outcome.error is None, outcome.error
    return outcome.run


def kind(error: BackupError | None) -> str:
    return type(error).__name__


@contextmanager
def sides_on(engine: str, request: pytest.FixtureRequest, folder: Path) -> Iterator[Place]:
    if engine == "sqlite":
        yield places.on_sqlite(folder)
    elif engine == "cosmos":
        servers = [request.getfixturevalue(name) for name in ("cosmos_server", "cosmos_server_backup")]
        yield places.with_orders_on_cosmos(folder, *servers)
    else:
        postgres = request.getfixturevalue("postgres")
        with lent_database(postgres) as source, lent_database(postgres) as backup:
            yield places.on_postgres(source, backup)


@pytest.fixture(params=["sqlite", "postgresql"])
def two(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Service, Service]]:
    """Two tables that one service mirrors into one schema, one after the other: of five and of seven records."""
    with sides_on(request.param, request, tmp_path) as place:
        base = place.order
        made = [
            Service("customer", beside(base.source, name), beside(base.backup, name)) for name in ("Track", "Invoice")
        ]
        for mirrored, rows in zip(made, (5, 7), strict=True):
            create(mirrored.source, rows)
            service(mirrored.settings).initialize()
        yield made[0], made[1]


def strip(backup: Sql | Cosmos, version: int = 1) -> None:
    """Leaves of the app's own tables what an earlier release would have made."""
    names = OF_VERSION_2 if version == 1 else OF_VERSION_3
    if isinstance(backup, Sql):
        if backup.url.startswith("sqlite"):  # elsewhere it goes with its columns
            backup.run('DROP INDEX IF EXISTS "IX_SyncHistory_ServiceName"')
        for name in names:
            execute(backup, "SyncHistory", f'ALTER TABLE {{table}} DROP COLUMN "{name}"')
        if version == 1:
            execute(backup, "RecycleBin", 'ALTER TABLE {table} DROP COLUMN "Place"')
        else:
            execute(backup, "SyncHistory", f'UPDATE {{table}} SET "SchemaVersion" = {version}')
        for key in range(1, 8):
            digest = sha256(f'[{{"$number": "{key}"}}]'.encode()).hexdigest()[:32]
            hashed = f"UPDATE {{table}} SET \"KeyHash\" = '{digest}' WHERE \"RecordKey\" = '[{key}]'"
            execute(backup, "RecycleBin", hashed)
        return
    new = {name[0].lower() + name[1:] for name in names}
    with cosmos_client(backup.account) as client:
        for container in (HISTORY.container, RECYCLE_BIN.container):
            entries = client.get_database_client(backup.database).get_container_client(container)
            for entry in list(entries.read_all_items()):
                left = {name: value for name, value in entry.items() if name not in new}
                entries.upsert_item(left | ({"schemaVersion": version} if "schemaVersion" in left else {}))


# --- two tables in one schema -----------------------------------------------------------------------------------------


def test_runs_about_one_table_are_no_runs_of_another(two: tuple[Service, Service]) -> None:
    track, invoice = (service(mirrored.settings) for mirrored in two)
    synced(track)
    own = synced(invoice)
    execute(two[0].source, "Track", 'UPDATE {table} SET "Version" = 2 WHERE "Id" < 3')
    then, copies = synced(track), two[1].backup.contents()
    assert kind(invoice.undo(then.sync_id).error) == "UnknownRun"
    taken = invoice.undo(own.sync_id, through=True, dry_run=True).run
    assert (taken.undone[-1], taken.counts.deleted) == (own.sync_id, 7)
    assert {then.sync_id}.isdisjoint(taken.undone)
    assert [run.sync_id for run in invoice.past.history(9) if run.verb is Verb.SYNC] == [own.sync_id]
    assert [change.sync_id for change in invoice.past.show("1").changes] == [own.sync_id]
    restored = invoice.restore(RestoreSpec(at=then.started_at), Options(dry_run=True))
    assert (restored.error, restored.run.counts.skipped) == (None, 7)
    assert track.undo(then.sync_id).run.counts.updated == 2
    assert two[1].backup.contents() == copies


@pytest.mark.parametrize("two", ["sqlite"], indirect=True)
def test_an_open_run_about_one_table_is_not_resumed_by_another(two: tuple[Service, Service]) -> None:
    track, invoice = (service(mirrored.settings) for mirrored in two)
    left = synced(track)
    opened = 'UPDATE {table} SET "Status" = \'InProgress\', "CompletedAt" = NULL, "Checkpoint" = \'{{}}\''
    execute(two[0].backup, "SyncHistory", opened)
    assert synced(invoice).sync_id != left.sync_id
    assert two[1].is_mirrored()
    assert [entry["Status"] for entry in two[0].backup.history()] == ["InProgress", "Completed"]


@pytest.mark.parametrize("two", ["sqlite"], indirect=True)
def test_a_purge_leaves_what_is_about_another_table(two: tuple[Service, Service]) -> None:
    track, invoice = (service(mirrored.settings) for mirrored in two)
    synced(track)
    synced(invoice)
    long_ago = "UPDATE {table} SET \"RecycledAt\" = '2020-01-01 00:00:00', \"KeyHash\" = 'x'"
    execute(two[0].backup, "RecycleBin", long_ago)
    execute(two[0].backup, "SyncHistory", "UPDATE {table} SET \"StartedAt\" = '2019-12-31 00:00:00'")
    execute(two[0].backup, "SyncHistory", "UPDATE {table} SET \"SyncedAt\" = '2019-12-31 00:00:00'")
    for mirror in (track, invoice):  # a run that confirms the time of the purge
        lately = f"{datetime.now(UTC) - timedelta(hours=2):%Y-%m-%d %H:%M:%S}"
        confirms = f"UPDATE {{table}} SET \"StartedAt\" = '{lately}' WHERE \"SyncId\" = '{synced(mirror).sync_id}'"
        execute(two[0].backup, "SyncHistory", confirms)
    assert (track.past.purge().images, invoice.past.purge().images) == (5, 7)  # fewer than eight keys: an entry each


# --- what an earlier release made -------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["sqlite", "postgresql", "cosmos"])
def test_a_backup_of_an_earlier_release_stays_usable(
    engine: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with sides_on(engine, request, tmp_path) as place:
        only = Place(place.order, place.order)
        sample.put(only.registry, "order", [sample.order(n) for n in (1, 2, 3)])
        only.initialize()
        first = synced(service(only.settings, "order"))
        before = place.order.backup.contents()
        sample.put(only.registry, "order", [sample.order(1, revision=2), sample.order(4)])
        second = synced(service(only.settings, "order"))
        strip(place.order.backup)

        order = service(only.settings, "order")
        assert [run.number for run in order.past.history(9)] == [2, 1]
        at = order.restore(RestoreSpec(at=first.completed_at, overwrite_newer=True), Options(dry_run=True))
        assert (at.error, at.run.counts.updated) == (None, 1)
        assert order.undo(second.sync_id).error is None
        assert place.order.backup.contents() == before
        synced(order)
        assert place.order.is_mirrored()
        assert {entry["Place"] for entry in place.order.backup.history()} == {order.past.history(1)[0].place}


@pytest.mark.parametrize("engine", ["sqlite", "postgresql", "cosmos"])
def test_of_runs_of_an_earlier_release_the_trigger_says_what_they_did(
    engine: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with sides_on(engine, request, tmp_path) as place:
        only = Place(place.order, place.order)
        sample.put(only.registry, "order", [sample.order(1)])
        only.initialize()
        order = service(only.settings, "order")
        synced(order)
        runs = [order.undo(synced(order).sync_id, trigger=Trigger.HTTP), order.verify(Depth(), trigger=Trigger.HTTP)]
        assert [outcome.error for outcome in runs] == [None, None]
        of_now = order.past.history(9)
        strip(place.order.backup, version=2)

        sync, undo = (Verb.SYNC, Trigger.CLI), (Verb.UNDO, Trigger.HTTP)
        assert [(run.verb, run.trigger) for run in of_now] == [(Verb.VERIFY, Trigger.HTTP), undo, sync, sync]
        read = [(run.verb, run.trigger) for run in service(only.settings, "order").past.history(9)]
        assert read == [(Verb.VERIFY, None), (Verb.UNDO, None), sync, sync]
        synced(order)
        entries = place.order.backup.history()
        assert [entry["Trigger"] for entry in entries] == ["cli", "cli", "undo", "verify", "cli"]
        assert [entry.get("Verb") for entry in entries] == [None, None, None, None, "sync"]


def test_a_table_of_an_earlier_release_with_no_entry_of_the_service_is_brought_up_to_date(sqlite_place: Place) -> None:
    customers = service(sqlite_place.customer.settings)
    synced(customers)
    execute(sqlite_place.customer.backup, "SyncHistory", "DELETE FROM {table}")
    strip(sqlite_place.customer.backup, version=2)
    assert synced(customers).counts.skipped == 100
    # The table also gets the index by which each service's runs are found.
    assert isinstance(sqlite_place.customer.backup, Sql)
    [index] = sa.inspect(places.engine(sqlite_place.customer.backup.url)).get_indexes("SyncHistory")
    assert index["column_names"] == ["ServiceName", "Place", "RunNumber", "Status"]
    # Without it the app goes on: somebody's own index has its name.
    for statement in ('DROP INDEX "{0}"', 'CREATE INDEX "{0}" ON {{table}} (Status)'):
        execute(sqlite_place.customer.backup, "SyncHistory", statement.format(index["name"]))
    customers.initialize()


def test_entries_of_an_earlier_release_are_refused_where_two_tables_share_a_schema(
    two: tuple[Service, Service],
) -> None:
    track, invoice = (service(mirrored.settings) for mirrored in two)
    of_track, of_invoice, copies = synced(track), synced(invoice), two[1].backup.contents()
    strip(two[0].backup)
    assert kind(invoice.undo(of_track.sync_id).error) == "Conflict"
    assert kind(invoice.undo(of_invoice.sync_id).error) == "Conflict"
    assert kind(invoice.restore(RestoreSpec(at=of_track.started_at, delete_extra=True), TO_LOSE).error) == "BadRequest"
    execute(two[1].source, "Invoice", 'UPDATE {table} SET "Version" = 2 WHERE "Id" = 1')
    then = synced(invoice)
    assert then.counts.updated == 1
    assert invoice.undo(then.sync_id).error is None
    assert two[1].backup.contents() == copies


def test_two_services_of_an_earlier_release_in_one_schema_have_each_its_own(tmp_path: Path) -> None:
    place = places.on_sqlite(tmp_path)
    orders = replace(place.order, backup=beside(place.customer.backup, "Orders"))
    place = Place(place.customer, orders)
    place.fill()
    runs = [synced(place.registry.get(name)) for name in ("customer", "order")]
    execute(place.customer.source, "Customers", "UPDATE {table} SET Version = Version + 1 WHERE Id = 1")
    synced(place.registry.get("customer"))
    strip(place.customer.backup)
    # The later image of an integer key, which had another hash, is found.
    assert kind(place.registry.get("customer").undo(runs[0].sync_id).error) == "Conflict"
    for name, run in zip(("customer", "order"), runs, strict=True):
        assert place.registry.get(name).undo(run.sync_id, through=True).error is None
    assert (place.customer.backup.contents(), orders.backup.contents()) == ({}, {})


def test_tables_of_a_later_release_are_left_alone(sqlite_place: Place) -> None:
    customer = service(sqlite_place.settings)
    synced(customer)
    execute(sqlite_place.customer.backup, "SyncHistory", 'UPDATE {table} SET "SchemaVersion" = 99')
    assert kind(customer.sync(Trigger.CLI).error) == "ConfigError"
    assert len(sqlite_place.customer.backup.history()) == 1


@pytest.mark.parametrize(
    "field",
    [
        *("\"Trigger\" = 'later'", "\"Failures\" = 'x'", "\"Status\" = ''", "\"StartedAt\" = 'yesterday'"),
        *("\"SyncedAt\" = 'x'", "\"InsertedCount\" = 'many'", "\"Notes\" = x'ff00'", "\"SchemaVersion\" = 'x'"),
    ],
)
def test_an_entry_that_cannot_be_read_counts_as_not_there(sqlite_place: Place, field: str) -> None:
    customer = service(sqlite_place.settings)
    synced(customer)
    odd = synced(customer)
    execute(sqlite_place.customer.backup, "SyncHistory", f'UPDATE {{table}} SET {field} WHERE "RunNumber" = 2')
    assert synced(customer).number == 3
    assert odd.sync_id not in [run.sync_id for run in customer.past.history(9)]


@pytest.mark.parametrize("checkpoint", ["", "{{}}", "[]", "NULL"])
def test_an_open_run_whose_checkpoint_cannot_be_read_is_done_anew(sqlite_place: Place, checkpoint: str) -> None:
    customer = service(sqlite_place.settings)
    synced(customer)
    left = 'UPDATE {table} SET "Status" = \'InProgress\', "CompletedAt" = NULL, "Owner" = NULL, "Checkpoint" = '
    execute(
        sqlite_place.customer.backup, "SyncHistory", left + (checkpoint if checkpoint == "NULL" else f"'{checkpoint}'")
    )
    execute(sqlite_place.customer.source, "Customers", "UPDATE {table} SET Version = Version + 1 WHERE Id = 1")
    outcome = customer.resume(Trigger.TIMER)
    assert outcome is None or outcome.error is None
    synced(customer)
    assert sqlite_place.customer.is_mirrored()


# --- one place under two names ----------------------------------------------------------------------------------------


def pairs_of_one(place: Place, folder: Path, engine: str) -> list[tuple[Service, str]]:
    """Services whose two sides are one table under two names, and what is tried."""
    source = place.customer.source
    assert isinstance(source, Sql)
    if engine == "postgresql":
        urls = [source.url.replace("127.0.0.1", "localhost"), f"{source.url}?application_name=x"]
        host, _, rest = source.url.partition("@")[2].partition(":")
        port, _, database = rest.partition("/")
        urls.append(f"{source.url.partition('@')[0]}@/{database}?host={host}&port={port}")
        return [(replace(place.customer, backup=replace(source, url=url)), url) for url in urls]
    path = Path(source.url.removeprefix("sqlite:///"))
    linked, soft = folder / "hard.db", folder / "soft.db"
    os.link(path, linked)
    soft.symlink_to(path)
    names = (linked, soft, folder / "x" / ".." / path.name)
    (folder / "x").mkdir()
    return [(replace(place.customer, backup=replace(source, url=f"sqlite:///{name}")), str(name)) for name in names]


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_one_place_under_two_names_is_refused_without_a_trace(
    engine: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with sides_on(engine, request, tmp_path) as place:
        source = place.customer.source
        sample.put(Place(place.customer, place.customer).registry, "customer", [sample.customer(1)])
        for alike, name in pairs_of_one(place, tmp_path, engine):
            sync_service = service(alike.settings)
            assert kind(sync_service.sync(Trigger.CLI, Options(force=True)).error) == "ConfigError", name
            with pytest.raises(BackupError, match="the same place"):
                sync_service.initialize()
        with pytest.raises(Exception, match="SyncHistory"):
            execute(source, "SyncHistory", "SELECT 1 FROM {table}")


@pytest.mark.parametrize("child", ["source", "backup"])
def test_a_table_and_its_partition_are_one_place(postgres: str, child: str) -> None:
    with lent_database(postgres) as url:
        whole, part = Sql(url, "public.whole"), Sql(url, "public.part")
        whole.run('CREATE TABLE {table} ("Id" int PRIMARY KEY, "Version" int) PARTITION BY RANGE ("Id")')
        part.run("CREATE TABLE {table} PARTITION OF public.whole FOR VALUES FROM (0) TO (100)")
        sync_service = service(Service("customer", *((part, whole) if child == "source" else (whole, part))).settings)
        with pytest.raises(ConfigError, match="the same place"):
            sync_service.initialize()
        with pytest.raises(Exception, match="SyncedAt"):
            whole.run('SELECT "SyncedAt" FROM {table}')


def test_the_source_is_no_target_under_any_name_and_may_be_gone(sqlite_place: Place, tmp_path: Path) -> None:
    customers, to = service(sqlite_place.customer.settings), f"sqlite:///{tmp_path / 'new.db'}"
    synced(customers)
    assert [customers.restore(RestoreSpec(), to=to).run.counts.seen for _ in range(2)] == [100, 100]
    source = sqlite_place.customer.source
    assert isinstance(source, Sql)
    source.run('UPDATE {table} SET "Version" = 9 WHERE "Id" = 1')
    before = source.contents()
    for name in ("customers.db", "linked.db"):
        if name == "linked.db":
            os.link(tmp_path / "customers.db", tmp_path / name)
        outcome = customers.restore(RestoreSpec(overwrite_newer=True), to=f"sqlite:///{tmp_path / name}")
        assert isinstance(outcome.error, ConfigError)
        assert "leave --to out" in str(outcome.error.hint)
    assert source.contents() == before
    (tmp_path / "customers.db").unlink()
    assert customers.restore(RestoreSpec(), to=to).run.counts.skipped == 100


def test_two_containers_are_told_apart_by_what_the_server_says(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    with sides_on("cosmos", request, tmp_path) as place:
        source = place.order.source
        assert isinstance(source, Cosmos)
        sample.put(Place(place.order, place.order).registry, "order", [sample.order(1)])
        alike = replace(place.order, backup=replace(source, account=source.account.replace("127.0.0.1", "localhost")))
        assert alike.backup != alike.source
        assert kind(service(alike.settings, "order").sync(Trigger.CLI).error) == "ConfigError"


@pytest.mark.parametrize("role", ["source", "backup"])
def test_a_backup_that_is_a_side_of_another_service_is_refused(sqlite_place: Place, tmp_path: Path, role: str) -> None:
    taken = getattr(sqlite_place.order, role)
    os.link(Path(taken.url.removeprefix("sqlite:///")), tmp_path / "linked.db")
    customer = replace(sqlite_place.customer, backup=replace(taken, url=f"sqlite:///{tmp_path / 'linked.db'}"))
    wrong = Place(customer, sqlite_place.order)
    before = taken.contents()
    for name in ("customer", "order") if role == "backup" else ("customer",):
        assert kind(wrong.registry.get(name).sync(Trigger.CLI).error) == "ConfigError"
    assert taken.contents() == before


# --- a clock that was wrong -------------------------------------------------------------------------------------------


@contextmanager
def unlocked(_service: str, _place: str) -> Iterator[CheckLock]:
    yield lambda: None


def at(place: Place, days: float) -> SyncService:
    """The service when its process's clock shows so many days from now; it moves on by a second when it is asked."""
    asked = iter(range(10_000))
    settings = load_settings(place.customer.settings)
    return CustomerSyncService(settings, Limits(), unlocked, lambda: NOW + timedelta(days=days, seconds=next(asked)))


def test_a_run_begins_after_the_newest_image_of_one_that_died(sqlite_place: Place) -> None:
    synced(at(sqlite_place, 0))
    sample.put(sqlite_place.registry, "customer", [sample.customer(1, 2)])
    died = synced(at(sqlite_place, 1))
    kept_at = NOW + timedelta(days=1, minutes=4)
    in_progress = 'UPDATE {table} SET "Status" = \'InProgress\', "CompletedAt" = NULL, "Owner" = NULL, '
    in_progress += '"SyncedAt" = "StartedAt" WHERE "RunNumber" = 2'
    execute(sqlite_place.customer.backup, "SyncHistory", in_progress)
    stamped = (
        f"UPDATE {{table}} SET \"RecycledAt\" = '{kept_at:%Y-%m-%d %H:%M:%S.%f}' WHERE \"SyncId\" = '{died.sync_id}'"
    )
    execute(sqlite_place.customer.backup, "RecycleBin", stamped)
    assert at(sqlite_place, 1).sync(Trigger.CLI, Options(dry_run=True)).run.started_at > kept_at


@pytest.mark.parametrize("wrong", [3_650, -3_650])
def test_one_run_with_a_wrong_clock_bends_neither_order_nor_age_nor_the_state_of_a_time(
    sqlite_place: Place, wrong: float
) -> None:
    def revised(days: float, revision: int) -> Run:
        sample.put(sqlite_place.registry, "customer", [sample.customer(1, revision)])
        return synced(at(sqlite_place, days))

    synced(at(sqlite_place, -40))
    revised(wrong, 2)
    revised(-20, 3)
    last = revised(-1, 4)
    assert last.started_at < NOW + timedelta(days=1)
    assert ("lies ahead" in " ".join(last.notes)) == (wrong > 0)

    def version_at(days: float) -> int:
        record = at(sqlite_place, 0).past.show("1", NOW + timedelta(days=days)).record
        assert record is not None
        return int(record["Version"])

    # What lies between a right run and a later one with a wrong clock is as the right run left it.
    assert [version_at(days) for days in (-30, -21, -19, -0.5)] == [1, 1, 3, 4]
    assert [change.number for change in at(sqlite_place, 0).past.show("1").changes] == [1, 2, 3, 4]
    # What the wrong run kept is as old as the runs around it say.
    at(sqlite_place, 5).past.purge()
    assert [change.number for change in at(sqlite_place, 5).past.show("1").changes] == [2, 3, 4]


# --- files ------------------------------------------------------------------------------------------------------------


def test_no_clock_that_jumps_ahead_for_a_run_empties_the_bin(sqlite_place: Place) -> None:
    synced(at(sqlite_place, -40))
    sample.put(sqlite_place.registry, "customer", [sample.customer(1, 2)])
    synced(at(sqlite_place, -1))
    jumped = at(sqlite_place, 60)
    synced(jumped)
    assert jumped.past.purge_if_due().images == 1  # that of the first run, which is older than the last one by 39 days
    assert not jumped.past.due(NOW + timedelta(days=60), 0, synced=True).purge
    synced(at(sqlite_place, 60.5))  # it was no jump
    assert jumped.past.due(NOW + timedelta(days=60.6), 0, synced=True).purge
    assert at(sqlite_place, 60.6).past.purge_if_due().images == 1


def test_a_backup_may_be_read_by_nobody_who_may_not_read_its_source(tmp_path: Path) -> None:
    only = Place(places.on_sqlite(tmp_path).customer, places.on_sqlite(tmp_path).customer)
    sample.put(only.registry, "customer", [sample.customer(1)])
    (tmp_path / "customers.db").chmod(0o600)
    only.initialize()
    assert (tmp_path / "customers_backup.db").stat().st_mode & 0o777 == 0o600
