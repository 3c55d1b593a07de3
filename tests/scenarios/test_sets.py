"""A set of backup.toml from end to end: which services it makes, and what becomes of each."""

from __future__ import annotations

import json
import resource
import tomllib
from dataclasses import replace
from pathlib import Path
from traceback import walk_tb

import pytest

from backup.core.errors import ConfigError, GuardTripped, RecordsSetAside, SchemaMismatch, SourceMissing, UnknownService
from backup.core.patterns import bracketed
from backup.core.run_values import Status, Trigger
from backup.entry import http
from backup.services.first_file import first_file
from backup.services.group_restore import restore_group
from backup.services.service import Options
from backup.services.service_plans import plan_of
from backup.verbs.restore_spec import RestoreSpec
from tests.emulators.servers import free_port
from tests.scenarios.inside import command
from tests.scenarios.shops import EXCLUDE, IN_FILES, SHOP, Shop


def test_a_set_copies_every_table_that_has_a_key_and_the_rest_fails_alone(shop: Shop) -> None:
    outcomes = shop.sync('exclude = ["*tmp_*"]')
    failed = {table for table, outcome in outcomes.items() if outcome.run.status is Status.FAILED}
    assert failed == {"Keyless"}
    assert outcomes.keys() == {"Customer", "Invoice", "Order Details", "[odd.na[me]] 🎵]", "Keyless"}
    assert isinstance(outcomes["Keyless"].error, SchemaMismatch)
    assert [row[:3] for row in shop.rows('"Order Details"')] == shop.rows('"Order Details"', "source")
    assert shop.column('SELECT DISTINCT "ServiceName" FROM "SyncHistory" ORDER BY 1') == sorted(
        map(shop.name, outcomes)
    )
    again = shop.sync(EXCLUDE)
    assert all(outcome.run.counts.processed == 0 and outcome.error is None for outcome in again.values())


@IN_FILES
def test_every_way_in_takes_a_set_a_pattern_or_one_service(shop: Shop) -> None:
    shop.sync(EXCLUDE)
    registry = shop.registry(EXCLUDE)
    fitting = [shop.name("Customer"), shop.name("Invoice")]
    assert registry.directory.chosen(f"SHOP/{shop.prefix}*i*") == [*fitting[1:], shop.name("Order Details")]
    assert registry.directory.chosen(shop.name("customer")) == [shop.name("Customer")]
    assert len({frozenset(registry.directory.chosen(name)) for name in ("all", "shop", "shop/*")}) == 1
    answer = http.post_sync(registry, {}, json.dumps({"service": shop.name("C*")}).encode())
    assert [result["ServiceName"] for result in answer.body["Results"]] == [shop.name("Customer")]
    assert "Results" not in http.post_sync_of(registry, shop.name("Customer"), {}, b"").body
    assert len(http.post_sync_of(registry, "shop", {}, b"").body["Results"]) == len(registry.directory.names())
    assert http.post_verify(registry, "shop/*", {}, b"").body["Verified"] is True
    with pytest.raises(UnknownService, match="is a set"):
        registry.get("shop")
    with pytest.raises(UnknownService, match=r"Did you mean \S*Customer"):
        registry.get(shop.name("Custmer"))
    with pytest.raises(UnknownService, match="No service fits"):
        registry.directory.chosen("shop/x*")


def test_a_table_that_is_named_like_the_data_of_a_virtual_table_takes_part(sqlite_shop: Shop) -> None:
    sqlite_shop.run("""
        CREATE VIRTUAL TABLE "Order" USING "fts5" (body); CREATE VIRTUAL TABLE place USING rtree (id, a, b);
        CREATE TABLE "Order_Lines" (id INTEGER PRIMARY KEY); CREATE TABLE order_data_old (id INTEGER PRIMARY KEY);
        CREATE TABLE place_names (id INTEGER PRIMARY KEY)
    """)
    assert sqlite_shop.sync().keys() == {"Order_Lines", "order_data_old", "place_names"}


@IN_FILES
def test_a_pattern_that_stands_for_nothing_fails_and_the_rest_is_done(shop: Shop) -> None:
    outcomes = shop.sync(EXCLUDE, tables='["*Customer", "*Custmer"]')
    assert outcomes["Customer"].error is None
    error = outcomes["shop"].error
    assert isinstance(error, ConfigError)
    assert "'*Custmer'" in str(error)
    unused = shop.sync(EXCLUDE, '[set.shop.table."Custmer"]', "recycle_days = 1")
    assert "Did you mean" in str(unused["shop"].error)
    left_out = shop.sync(EXCLUDE, '[set.shop.table."Keyless"]', 'key = ["A", "B"]', tables='["*Customer"]')
    assert "which leaves it out by exclude: '*Keyless'" in str(left_out["shop"].error)
    unnamed = shop.sync('[set.shop.table."Invoice"]', "recycle_days = 1", tables='["*Customer"]')
    assert "which has no pattern for it" in str(unnamed["shop"].error)


def test_a_filter_and_a_list_of_columns_choose_what_is_copied(shop: Shop) -> None:
    section = ['[set.shop.table."Customer"]', 'columns = { exclude = ["fax", "Country"] }']
    assert (
        shop.sync(*section, 'where = { Country = ["Germany", "Türkiye"] }', tables='"*Customer"')["Customer"].error
        is None
    )
    assert [row[:2] for row in shop.rows('"Customer"')] == [(1, "Ada"), (2, "Bülent")]
    ranged = shop.sync(*section, "where = { Id = { from = 2, to = 3 } }", tables='"*Customer"')["Customer"].run
    assert (ranged.counts.inserted, ranged.counts.deleted) == (1, 1)
    by_sql = """where_sql = '''"Id" > 1 AND "Name" <> 'a:b%?' '''"""
    assert shop.sync(*section, by_sql, tables='"*Customer"')["Customer"].run.counts.skipped == 2


@IN_FILES
def test_a_mask_hides_values_of_one_table(shop: Shop) -> None:
    section = ['[set.shop.table."Customer"]', 'mask = { name = { text = "hidden" }, Fax = "null" }']
    without_key = shop.sync(*section)
    assert "BackupMask__Key" in str(without_key["shop"].error)
    assert without_key["Invoice"].error is None
    shop.settings["BackupMask__Key"] = "a key that is long enough"
    assert shop.sync(*section)["Customer"].error is None
    assert {row[1:4] for row in shop.rows('"Customer"')} == {
        ("hidden", None, country) for country in ("Germany", "Türkiye", "Japan")
    }
    of_the_filter = shop.sync(*section, 'where = { Name = "Ada" }')["Customer"].error
    assert "part of the key, the version or the filter" in str(of_the_filter)


@IN_FILES
def test_a_record_that_leaves_the_filter_is_a_delete_for_guard_and_bin(shop: Shop) -> None:
    section = ['[set.shop.table."Customer"]', "delete_guard_floor = 0"]
    shop.sync(*section, tables='"*Customer"')
    stopped = shop.sync(*section, "where = { Id = 1 }", tables='"*Customer"')["Customer"]
    assert isinstance(stopped.error, GuardTripped)
    assert len(shop.rows('"Customer"')) == 3
    shop.run("""UPDATE "Customer" SET "Country" = 'Japan' WHERE "Id" = 1""")
    left = shop.sync(*section, "max_delete_percent = 90", "where = { Country = 'Japan' }", tables='"*Customer"')
    assert left["Customer"].run.counts.deleted == 1
    assert shop.column('SELECT COUNT(*) FROM "RecycleBin" WHERE "Action" = \'Deleted\'') == [1]


def test_a_view_and_a_table_without_a_key_take_part_once_the_file_names_their_key(shop: Shop) -> None:
    keys = ['[set.shop.table."German"]', 'key = ["Id"]', '[set.shop.table."Keyless"]', 'key = ["A", "B"]']
    outcomes = shop.sync(*keys, tables='["*German", "*Keyless"]')
    assert {table: outcome.error for table, outcome in outcomes.items()} == {"German": None, "Keyless": None}
    assert [row[:2] for row in shop.rows('"German"')] == [(1, "Ada")]
    shop.run("""INSERT INTO "Keyless" VALUES ('a', NULL)""")
    without_key = shop.sync(*keys, tables='["*German", "*Keyless"]')["Keyless"]
    assert isinstance(without_key.error, RecordsSetAside)
    assert [key for key, _ in without_key.run.failures] == ['["a", "NULL, row 1"]']
    shop.run("""INSERT INTO "Keyless" VALUES ('a', 'b')""")
    repeated = shop.sync(*keys, tables='["*German", "*Keyless"]')
    assert "several rows with the same A, B" in str(repeated["Keyless"].error)
    assert repeated["German"].error is None
    assert len(shop.rows('"Keyless"')) == 2
    shop.run('DELETE FROM "Invoice"; DELETE FROM "Customer"; DELETE FROM "Keyless"')
    view, table = restore_group(shop.registry(*keys, tables='["*German", "*Keyless"]'), "shop", RestoreSpec())
    assert (view.run.sync_id, view.error, table.error, table.run.counts.inserted) == ("", None, None, 2)
    assert "It is a view of the source" in view.run.notes[0]


@pytest.mark.parametrize(("kind", "kept"), [("sqlite_shop", ""), ("postgres_shop", 'deletes = "keep"')])
def test_a_dry_run_says_that_a_view_in_the_place_of_the_copy_takes_no_writes(
    request: pytest.FixtureRequest, kind: str, kept: str
) -> None:
    shop: Shop = request.getfixturevalue(kind)
    name = "100% sure"
    own_name = f'"{name.replace("%", "%%") if shop.prefix else name}"'  # as the driver wants it
    shop.run(f'CREATE TABLE {own_name} ("Id" INTEGER, "Note" INTEGER); INSERT INTO {own_name} VALUES (1, 1), (2, 1)')
    lines = (f'[set.shop.table."{shop.prefix}{name}"]', 'key = ["Id"]', "max_delete_percent = 100", kept)
    own = shop.registry(*lines, tables=f'["{shop.prefix}{name}"]').get(shop.name(name))
    assert own.sync(Trigger.CLI).error is None
    for change in ("INSERT INTO {} VALUES (3, 1)", 'DELETE FROM {} WHERE "Id" = 2'):
        shop.run(change.format(own_name))
        assert own.sync(Trigger.CLI, Options(dry_run=True)).error is None
    shop.run(
        f"ALTER TABLE {own_name} RENAME TO other; CREATE VIEW {own_name} AS SELECT DISTINCT * FROM other", "backup"
    )
    refused = own.sync(Trigger.CLI, Options(dry_run=True))
    assert ("view" in str(refused.error), refused.run.counts.inserted) == (True, 1)


@IN_FILES
def test_a_key_beside_a_primary_key_is_refused_for_that_table_alone(shop: Shop) -> None:
    outcomes = shop.sync(EXCLUDE, '[set.shop.table."Customer"]', 'key = ["Name"]')
    assert "has the primary key Id" in str(outcomes["Customer"].error)
    assert outcomes["Invoice"].error is None


@pytest.mark.parametrize(
    ("shop", "rule", "taken", "refused"),
    [
        ("sqlite_shop", "add", True, False),
        ("sqlite_shop", "ignore", False, False),
        ("sqlite_shop", "fail", True, True),
        ("postgres_shop", "add", True, False),
    ],
    indirect=["shop"],
)
def test_a_new_table_is_added_ignored_or_refused(shop: Shop, rule: str, taken: bool, refused: bool) -> None:
    lines = (EXCLUDE, f'on_new_table = "{rule}"')
    assert all(outcome.error is None for outcome in shop.sync(*lines).values())
    shop.run('CREATE TABLE "Later" ("Id" INTEGER PRIMARY KEY)')
    outcomes = shop.sync(*lines)
    assert ("Later" in outcomes) == taken
    assert not taken or (outcomes["Later"].error is not None) == refused
    if taken and (error := outcomes["Later"].error) is not None:
        frames = len([*walk_tb(error.__traceback__)])
        error = shop.sync(*lines)["Later"].error
        assert error is not None
        assert len([*walk_tb(error.__traceback__)]) == frames
    named = shop.sync(*lines, tables='["*Customer", "{}"]'.format(f"{shop.prefix}Later"))
    assert named["Later"].error is None


@IN_FILES
def test_a_table_that_is_gone_is_kept_and_its_past_can_be_seen(shop: Shop) -> None:
    shop.sync(EXCLUDE)
    shop.run('DROP TABLE "Invoice"')
    outcomes = shop.sync(EXCLUDE)
    assert "Invoice" not in outcomes
    registry = shop.registry(EXCLUDE)
    assert registry.directory.sets["shop"].members.gone == [f"{shop.prefix}Invoice"]
    assert len(shop.rows('"Invoice"')) == 2
    assert registry.get(shop.name("invoice")).past.history(1)[0].counts.inserted == 2
    # The copy of a service of the settings in the same database is none of a table that is gone.
    thing_backup = {"BackupThingDb__ConnectionString": shop.backup, "BackupThingDb__Table": f"{shop.prefix}Invoice"}
    beside = replace(shop, settings=thing_backup | {"SourceThingDb__ConnectionString": f"{shop.source}_other"})
    assert beside.registry(EXCLUDE).directory.sets["shop"].members.gone == []


def test_without_its_source_a_set_fails_table_by_table_and_its_past_can_be_seen(sqlite_shop: Shop) -> None:
    sqlite_shop.run(SHOP)
    sqlite_shop.sync(EXCLUDE)
    lost = Shop(sqlite_shop.source.replace("source.db", "gone.db"), sqlite_shop.backup, "")
    outcomes = lost.sync(EXCLUDE)
    assert {type(outcome.error) for outcome in outcomes.values()} == {SourceMissing}
    assert outcomes.keys() == {"shop", "Customer", "Invoice", "Order Details", "[odd.na[me]] 🎵]"}
    down = [(health.service, health.side) for health in lost.registry(EXCLUDE).ping() if health.error]
    assert down == [("shop", "source")]
    assert sqlite_shop.column('SELECT COUNT(*) FROM "SyncHistory" WHERE "Status" = \'Failed\'') == [4]
    assert [run.status for run in lost.registry(EXCLUDE).get("shop/Customer").past.history(2)] == [
        "Failed",
        "Completed",
    ]


@pytest.mark.parametrize("looking", ["history", "changes"])
def test_what_looks_at_the_past_of_a_set_that_nobody_can_list_says_why(tmp_path: Path, looking: str) -> None:
    sides = "".join(f'{side} = "sqlite:///{tmp_path}/{side}.db"\n' for side in ("source", "backup"))
    ended = command(tmp_path, {"BACKUP_TOML": f'[set.shop]\n{sides}tables = ["*"]'}, looking, "shop", "--json")
    assert (ended.code, "there is no such file" in ended.json["Message"]) == (1, True)


def test_an_open_run_of_a_table_that_is_excluded_now_is_left_alone(sqlite_shop: Shop) -> None:
    sqlite_shop.run(SHOP)
    sqlite_shop.sync(EXCLUDE)
    sqlite_shop.run(
        """UPDATE "SyncHistory" SET "Status" = 'InProgress' WHERE "ServiceName" <> 'shop/Invoice'""", "backup"
    )
    fewer = 'exclude = ["*tmp_*", "*Keyless", "Order*", "odd*"]'
    assert sqlite_shop.registry(fewer).directory.to_look_after() == (["shop/Customer"], [])


@IN_FILES
def test_two_sets_cannot_share_a_table_of_the_backup(shop: Shop) -> None:
    shop.sync(EXCLUDE)
    again = f"[set.twin]\nsource = '{shop.source}'\nbackup = '{shop.backup}'\ntables = '*Customer'"
    outcomes = shop.registry(EXCLUDE, again).sync("twin", Trigger.CLI)
    assert ["name the same place" in str(outcome.error) for outcome in outcomes] == [True]


def test_masks_without_a_key_name_the_table_that_is_left_out(sqlite_shop: Shop) -> None:
    sqlite_shop.run(SHOP)
    plan = plan_of(sqlite_shop.registry(EXCLUDE, '[set.shop.table."Customer"]', 'mask = { Fax = "hmac" }'), "shop")
    [error] = plan.errors
    assert str(error).startswith("shop/Customer is left out. ")
    assert "BackupMask__Key" in str(error)
    # What is said of tables that are gone, and of other sets with such a name, needs no key.
    sqlite_shop.sync(EXCLUDE)
    sqlite_shop.run('DROP TABLE "Customer"')
    other = f"[set.b]\nsource = '{sqlite_shop.source}'\nbackup = '{sqlite_shop.backup}2'\ntables = 'Invoice'"
    masked = sqlite_shop.registry(EXCLUDE, '[set.shop.table."*"]', 'mask = { Fax = "hmac" }', other)
    assert masked.directory.sets["shop"].members.gone == ["Customer"]
    assert [outcome.error for outcome in masked.sync("b", Trigger.CLI)] == [None]


def test_a_mask_whose_table_is_misspelt_keeps_new_tables_out_of_the_backup(sqlite_shop: Shop) -> None:
    sqlite_shop.run(SHOP)
    lines = (EXCLUDE, '[set.shop.table."Custmer"]', 'columns = { exclude = ["Name"] }')
    own = ('[set.shop.table."Invoice"]', "recycle_days = 3")
    outcomes = sqlite_shop.sync(*lines, *own)
    assert {table for table, outcome in outcomes.items() if outcome.error is None} == {"Invoice"}
    assert "'Custmer' hides values" in str(outcomes["Customer"].error)
    assert sqlite_shop.tables("backup") == ["Invoice", "RecycleBin", "SetCatalog", "SetTables", "SyncHistory"]
    sqlite_shop.sync(EXCLUDE)
    sqlite_shop.run('DROP TABLE "Customer"; CREATE TABLE "Later" ("Id" INTEGER PRIMARY KEY)')
    gone = sqlite_shop.sync(EXCLUDE, '[set.shop.table."Customer"]', lines[2])  # a table that was dropped is no mistake
    assert gone["Later"].error is None


def test_commands_say_which_variables_to_set_and_a_shared_note_once(sqlite_shop: Shop, tmp_path: Path) -> None:
    sqlite_shop.run(SHOP)
    ended = command(tmp_path, {}, "init", "SHOP_SOURCE")
    assert (ended.code, "no environment variable SHOP_SOURCE" in ended.err) == (1, True)
    ended = command(tmp_path, {"SHOP_SOURCE": sqlite_shop.source}, "init", "SHOP_SOURCE")
    assert "Set MAIN_BACKUP to a connection string." in ended.out
    values = {"SHOP_SOURCE": sqlite_shop.source, "MAIN_BACKUP": sqlite_shop.backup}
    planned = command(tmp_path, {"BACKUP_CONFIG": str(tmp_path / "backup.toml"), **values}, "plan")
    assert "services: The backup has no table yet" in planned.out
    assert planned.out.count("no table yet") == 1


@pytest.mark.parametrize(("most", "retries"), [("1", 0), ("9", 1)])
def test_init_tries_as_often_as_the_settings_and_a_person_want(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, most: str, retries: int
) -> None:
    settings = {"BackupRetry__MaxAttempts": most, "BackupRetry__BaseSeconds": "0.01"}
    ended = command(tmp_path, settings, "init", f"postgresql://app:secret@127.0.0.1:{free_port()}/shop")
    assert (ended.code, "Nothing answers there" in ended.err, "secret" in ended.err) == (1, True, False)
    assert caplog.text.count("attempt=") == retries


def test_a_disk_that_is_full_leaves_no_half_first_file(sqlite_shop: Shop, tmp_path: Path) -> None:
    sqlite_shop.run(SHOP)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        ended = command(tmp_path, {"SHOP_SOURCE": sqlite_shop.source}, "init", "SHOP_SOURCE")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (ended.code, "backup.toml cannot be written: File too large." in ended.err) == (1, True)
    assert not (tmp_path / "backup.toml").exists()


def test_the_first_file_can_be_read_whatever_things_are_called(sqlite_shop: Shop, tmp_path: Path) -> None:
    name = "x\n[set.other]\x7f\r"
    sqlite_shop.run(f'CREATE TABLE "{name}" ("Id" INTEGER NOT NULL UNIQUE); CREATE VIEW "v{name}" AS SELECT 1')
    sqlite_shop.run(f'CREATE TABLE "k{name}" ("{name}" INTEGER); CREATE TABLE "u" ("{name}" INTEGER NOT NULL UNIQUE)')
    limits = sqlite_shop.registry().limits
    file = tomllib.loads(first_file(sqlite_shop.source, "shop", limits))
    assert (list(file["set"]), file["set"]["shop"]["exclude"]) == (["shop"], [bracketed(f"k{name}")])
    for no_name in ("a b", "", "all", "ü", "x]"):
        with pytest.raises(ConfigError, match="cannot be the name of the set"):
            first_file(sqlite_shop.source, no_name, limits)


def test_names_that_differ_only_in_case_are_two_services_where_the_server_has_both(postgres_shop: Shop) -> None:
    postgres_shop.run('CREATE TABLE "Pair" (id int PRIMARY KEY); CREATE TABLE pair (id int PRIMARY KEY)')
    postgres_shop.run('INSERT INTO "Pair" VALUES (1); INSERT INTO pair VALUES (2)')
    outcomes = postgres_shop.sync('[set.shop.table."public.Pair"]', "where = { id = 1 }")
    assert {table: outcome.error for table, outcome in outcomes.items()} == {"Pair": None, "pair": None}
    assert [postgres_shop.rows(name)[0][0] for name in ('"Pair"', "pair")] == [1, 2]  # the filter is of one alone
    assert postgres_shop.registry().directory.chosen("shop/public.pair") == ["shop/public.pair"]


def test_tables_of_several_schemas_share_one_history(postgres_shop: Shop) -> None:
    postgres_shop.run("CREATE SCHEMA a; CREATE SCHEMA b; CREATE TABLE a.t (id int PRIMARY KEY)")
    postgres_shop.run("CREATE TABLE b.t (id int PRIMARY KEY); INSERT INTO b.t VALUES (7)")
    outcomes = postgres_shop.sync()
    assert [outcome.error for outcome in outcomes.values()] == [None, None]
    assert postgres_shop.rows("b.t")[0][0] == 7
    histories = "SELECT table_schema FROM information_schema.tables WHERE table_name = 'SyncHistory'"
    assert postgres_shop.column(histories) == ["public"]
