"""Which tables of a set are new: those that its source had not when the set began, whatever its first sync did."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from azure.cosmos import PartitionKey

from backup.config.settings import load_settings
from backup.core.errors import BackupError, StoreError, StoreUnavailable
from backup.core.run_values import Trigger
from backup.runs.set_tables import SET_TABLES, first_tables, keep_first_tables
from backup.services.new_tables import fate_of
from backup.services.registry import Registry
from tests.emulators.clients import cosmos_client
from tests.scenarios import places
from tests.scenarios.shops import EXCLUDE, IN_FILES, Shop

NOW = datetime(2026, 1, 1, tzinfo=UTC)
IGNORE = 'on_new_table = "ignore"'
ALL = {"Customer", "Invoice", "Order Details", "[odd.na[me]] 🎵]"}


def test_what_the_source_had_when_the_set_began_is_never_new(shop: Shop) -> None:
    shop.sync(EXCLUDE, IGNORE, name=shop.name("Customer"))  # as a first sync that died, it leaves tables without a copy
    shop.run('CREATE TABLE "Later" ("Id" INTEGER PRIMARY KEY)')
    outcomes = shop.sync(EXCLUDE, IGNORE)
    assert ({*outcomes}, {outcome.error for outcome in outcomes.values()}) == (ALL, {None})
    shop.run('DROP TABLE "Invoice"', side="backup")
    assert shop.sync(EXCLUDE, IGNORE)["Invoice"].run.counts.inserted == 2
    with_keyless = shop.sync('exclude = ["*tmp_*"]', IGNORE)  # no pattern fitted it before
    assert (with_keyless["Keyless"].error is None, "Later" in with_keyless) == (False, False)
    assert "Keyless" in shop.sync('exclude = ["*tmp_*"]', IGNORE)  # what cannot be copied is told each time


@IN_FILES
def test_a_table_of_others_in_the_backup_is_no_beginning_of_the_set(shop: Shop) -> None:
    shop.run('CREATE TABLE "Customer" ("Id" INTEGER PRIMARY KEY, "Name" VARCHAR(40))', side="backup")
    assert {*shop.sync(EXCLUDE, IGNORE)} == ALL


@IN_FILES
def test_two_beginnings_of_one_name_keep_what_both_have_seen(shop: Shop) -> None:
    shop.registry(EXCLUDE).get(shop.name("Customer")).initialize()
    shop.run('DROP TABLE "Customer"', side="backup")
    shop.run('CREATE TABLE "Later" ("Id" INTEGER PRIMARY KEY)')
    shop.sync(EXCLUDE, IGNORE, name="shop/Customer")
    assert {*shop.sync(EXCLUDE, IGNORE)} == {*ALL, "Later"}


@IN_FILES
def test_a_set_that_an_earlier_release_began_leaves_out_what_has_no_copy(shop: Shop) -> None:
    shop.sync(EXCLUDE, IGNORE, name="shop/Customer")
    shop.run('DROP TABLE "SetTables"', side="backup")
    assert {*shop.sync(EXCLUDE, IGNORE)} == {"Customer"}


@IN_FILES
def test_where_nobody_can_tell_what_is_new_nothing_is_left_out_in_silence(shop: Shop) -> None:
    shop.sync(EXCLUDE, IGNORE, name="shop/Customer")
    for text in ("{", "5", "[5]", "[" * 100_000):
        shop.run(f'UPDATE "SetTables" SET "Tables" = \'{text}\'', side="backup")
        outcomes = shop.sync(EXCLUDE, IGNORE)
        errors = {table: type(outcome.error) for table, outcome in outcomes.items() if outcome.error}
        assert errors == dict.fromkeys(ALL - {"Customer"}, StoreError)
    specs = shop.registry(EXCLUDE, IGNORE).directory.sets["shop"].specs
    down = StoreUnavailable("The backup is down.")
    fate = fate_of(specs, ["Customer", "Invoice"], ["Invoice"], down, [])
    assert (fate.undecided, fate.error, fate.beginning) == (["Customer", "Invoice"], down, None)


@pytest.mark.parametrize("shop", ["postgres_shop"], indirect=True)
def test_a_set_that_two_processes_begin_at_one_moment_keeps_what_both_have_seen(shop: Shop) -> None:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with ThreadPoolExecutor(1) as pool, shop.registry(EXCLUDE).get(shop.name("Customer")).stores() as (_, backup):
        keep_first_tables(backup, "shop", ["A"], NOW)
        backup.sibling(SET_TABLES).delete(["shop"])
        with places.engine(shop.backup).connect() as cx:
            cx.exec_driver_sql('INSERT INTO "SetTables" VALUES (%s, %s)', ("shop", '["B"]'))
            keeping = pool.submit(keep_first_tables, backup, "shop", ["A"], NOW)
            while not (shop.column(waiting)[0] or keeping.done()):
                pass
            cx.commit()
        keeping.result()
        assert first_tables(backup, "shop") == frozenset(("A", "B"))


def test_a_container_that_a_first_sync_left_without_a_copy_is_not_new(
    cosmos_server: str, cosmos_server_backup: str
) -> None:
    database = f"shop{uuid4().hex[:8]}"
    text = f"[set.shop]\nsource = '{cosmos_server}'\nbackup = '{cosmos_server_backup}'\ndatabase = '{database}'\n"
    settings = load_settings({"BACKUP_TOML": f'{text}containers = ["*"]\n{IGNORE}'})

    def errors(name: str) -> dict[str, BackupError | None]:
        return {outcome.run.service: outcome.error for outcome in Registry(settings).sync(name, Trigger.CLI)}

    with cosmos_client(cosmos_server) as client, cosmos_client(cosmos_server_backup) as backup_client:
        source = client.create_database(database)
        for name in ("cart", "order"):
            source.create_container(name, PartitionKey("/pk")).upsert_item({"id": "1", "pk": "a"})
        assert errors("shop/cart") == {"shop/cart": None}
        source.create_container("later", PartitionKey("/pk"))
        assert errors("shop") == {"shop/cart": None, "shop/order": None}
        names = {each["id"] for each in backup_client.get_database_client(database).list_containers()}
        assert names == {"cart", "order", "recycle-bin", "sync-history"}
        assert Registry(settings).get("shop/order").past.history(1)[0].counts.inserted == 1
