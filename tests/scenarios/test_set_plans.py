"""What a plan and the first file say of a set, and that they change nothing."""

from __future__ import annotations

from backup.config.settings import load_settings
from backup.core.errors import GuardTripped, SchemaMismatch
from backup.core.run_values import Status, Trigger
from backup.entry.plans import shape_plan
from backup.mirror.planned_changes import PlannedChanges
from backup.services.first_file import first_file
from backup.services.registry import Registry
from backup.services.service_plans import plan_of
from backup.stores import Limits
from tests.scenarios.shops import EXCLUDE, IN_FILES, SHOP, Shop


@IN_FILES
def test_a_plan_names_the_views_that_fit_a_pattern_and_are_left_out(shop: Shop) -> None:
    left_out = f"shop: the view {shop.prefix}German is left out. A view takes part once a section names its key."
    named = f'[set.shop.table."{shop.prefix}German"]', 'key = ["Id"]'
    for lines, is_told in ((["exclude = ['*tmp_*']"], True), (["exclude = ['*German']"], False), (named, False)):
        notes = plan_of(shop.registry(*lines), "shop").notes
        assert (left_out in notes) is is_told


def test_a_plan_and_the_first_file_name_what_sqlite_has_beside_tables(sqlite_shop: Shop) -> None:
    """Virtual tables, the tables with their data, and a view that cannot be read."""
    sqlite_shop.run(
        'CREATE VIRTUAL TABLE "Place Names" USING fts5 (body); CREATE VIRTUAL TABLE area USING rtree (id, a, b);'
        'CREATE VIEW "Area of gone" AS SELECT * FROM gone'
    )
    virtual = "the virtual tables Place Names, area are left out. Nothing of a virtual table is copied."
    data = "the tables area_node, area_parent, area_rowid are left out. The virtual table area has its data there."
    notes = plan_of(sqlite_shop.registry(), "shop").notes
    view = "the view Area of gone is left out. SQLite cannot read it: it names a table, a column or a function that is"
    assert {f"shop: {virtual}", f"shop: {data}", f"shop: {view} not there."} <= {*notes}
    text = first_file(sqlite_shop.source, "shop", Limits())
    assert f"\n# T{virtual[1:]}\n# T" in text
    only = plan_of(sqlite_shop.registry(tables='"Place*"'), "shop")  # which stands for nothing
    assert "shop: the virtual table Place Names is left out. Nothing of a virtual table is copied." in only.notes
    notes = plan_of(sqlite_shop.registry('exclude = ["area*"]'), "shop").notes
    assert any("the virtual table Place Names is left out" in note for note in notes)
    assert not any("area" in note.lower() for note in notes)


def test_a_plan_says_what_partitions_and_what_is_no_table_of_the_server_are(postgres_shop: Shop) -> None:
    postgres_shop.run("""
        CREATE TABLE sale (id int PRIMARY KEY) PARTITION BY RANGE (id);
        CREATE TABLE sale_1 PARTITION OF sale FOR VALUES FROM (0) TO (9);
        CREATE TABLE sale_2 PARTITION OF sale FOR VALUES FROM (9) TO (99);
        CREATE MATERIALIZED VIEW total AS SELECT count(*) FROM sale;
        CREATE FOREIGN DATA WRAPPER elsewhere; CREATE SERVER there FOREIGN DATA WRAPPER elsewhere;
        CREATE FOREIGN TABLE far (id int) SERVER there;
        CREATE TABLE void ()
    """)
    plan = plan_of(postgres_shop.registry(EXCLUDE), "shop")
    assert {
        "shop: the partitions public.sale_1, public.sale_2 are left out. What is in a partition is copied with its "
        "table, public.sale.",
        "shop: the materialized view public.total is left out. A materialized view takes part once a section names "
        "its key.",
        "shop: the table public.void is left out. It has no column, so nothing of it can be copied.",
        "shop: the foreign table public.far is left out. A foreign table takes part once a section names its key.",
    } <= {*plan.notes}
    assert "shop/public.sale" in [service.service for service in plan.services]


def test_a_plan_says_what_a_sync_would_do_and_writes_nothing(shop: Shop) -> None:
    lines = ('exclude = ["*tmp_*"]', '[set.shop.table."Customer"]', "delete_guard_floor = 0")
    before = plan_of(shop.registry(*lines), "shop")
    by_table = {plan.service.removeprefix(f"shop/{shop.prefix}"): plan for plan in before.services}
    assert by_table["Customer"].changes == PlannedChanges(inserts=3, source_records=3)
    assert by_table["Order Details"].key == "Order, Line (unique index one line)"
    assert (by_table["Customer"].key, by_table["Customer"].version) == ("Id (primary key)", "content")
    assert isinstance(by_table["Keyless"].error, SchemaMismatch)
    repeated = shop.registry(lines[0], '[set.shop.table."Keyless"]', 'key = ["A"]')
    [keyless] = plan_of(repeated, shop.name("Keyless")).services
    assert "several rows with the same A" in str(keyless.error)
    assert (keyless.key, by_table["Keyless"].key) == ("A (named; checked at every sync)", "none")
    assert shop.tables("backup") == []
    shop.sync(*lines)
    shop.run('UPDATE "Customer" SET "Name" = \'x\' WHERE "Id" = 1; ALTER TABLE "Invoice" ADD "Paid" INTEGER')
    runs = shop.column('SELECT COUNT(*) FROM "SyncHistory"')
    changed = (*lines, "where = { Id = { to = 1 } }", 'columns = { exclude = ["Fax"] }')
    after = plan_of(shop.registry(*changed), shop.name("*i*"))
    [customer] = plan_of(shop.registry(*changed), shop.name("Customer")).services
    assert customer.changes == PlannedChanges(updates=1, deletes=2, source_records=1, backup_records=3)
    assert (customer.filter, list(customer.left_out)) == ("Id<=1", ["Fax"])
    assert isinstance(customer.error, GuardTripped)
    assert "The guard would stop it" in str(customer.error)
    unlike = (*lines, "max_update_percent = 10")
    [stopped] = plan_of(shop.registry(*unlike), shop.name("Customer")).services
    assert "1 of 3 records would be updated" in str(stopped.error)
    assert any("lacks the column Paid" in note for plan in after.services for note in plan.notes)
    assert shop.column('SELECT COUNT(*) FROM "SyncHistory"') == runs
    assert shape_plan(before).status == 400


@IN_FILES
def test_a_plan_knows_what_was_deleted_in_the_week_and_fails_as_the_sync_would(shop: Shop) -> None:
    shop.run('CREATE TABLE "Big" ("Id" INTEGER PRIMARY KEY)')
    shop.run(";".join(f'INSERT INTO "Big" VALUES ({number})' for number in range(10)))
    lines = ('[set.shop.table."*Big"]', "delete_guard_floor = 0", "max_delete_percent_per_week = 15")
    shop.sync(*lines, tables='"*Big"')
    for number, stopped in ((1, False), (2, True)):
        shop.run(f'DELETE FROM "Big" WHERE "Id" = {number}')
        plan = plan_of(shop.registry(*lines, "max_delete_percent = 50", tables='"*Big"'), "shop")
        [outcome] = shop.sync(*lines, "max_delete_percent = 50", tables='"*Big"').values()
        assert isinstance(outcome.error, GuardTripped) is stopped
        assert ("MaxDeletePercentPerWeek" in str(plan.services[0].error)) is stopped
        assert (shape_plan(plan).status == 200) is not stopped
        left = 10 - number
        assert plan.services[0].changes == PlannedChanges(deletes=1, source_records=left, backup_records=left + 1)


def test_a_plan_counts_what_another_list_of_columns_or_another_mask_will_update(sqlite_shop: Shop) -> None:
    sqlite_shop.run(SHOP)
    table = '[set.shop.table."Customer"]'
    without, masked = (table, 'columns = { exclude = ["Fax"] }'), (table, 'mask = { Fax = "null" }')
    sqlite_shop.settings["BackupMask__Key"] = "sixteen characters"
    notes = {}
    for name, lines in {"first": without, "new": (), "out": without, "back": (), "mask": masked, "clear": ()}.items():
        plan = plan_of(sqlite_shop.registry(*lines), "shop/Customer").services[0]
        run = sqlite_shop.sync(*lines, name="shop/Customer")["Customer"].run
        assert run.status is Status.COMPLETED
        assert plan.changes is not None
        assert (plan.changes.inserts, plan.changes.updates) == (run.counts.inserted, run.counts.updated), name
        notes[name] = (run.counts.updated, " ".join(plan.notes))
    assert [updated for updated, _ in notes.values()] == [0, 3, 0, 3, 3, 3]
    assert "lacks the column Fax" in notes["new"][1]
    assert "The column Fax is copied again" in notes["back"][1]
    assert "older images are purged" in notes["mask"][1]
    assert "older images are purged" not in notes["clear"][1]


def test_a_plan_names_what_is_masked_and_a_set_without_tables_is_an_error(sqlite_shop: Shop) -> None:
    sqlite_shop.run(SHOP)
    section = ('[set.shop.table."Customer"]', 'mask = { Fax = "null" }')
    settings = {"BACKUP_TOML": sqlite_shop.text(*section), "BackupMask__Key": "sixteen characters"}
    [plan] = plan_of(Registry(load_settings(settings)), "shop/Customer").services
    assert list(plan.masked) == ["Fax (null)"]
    [outcome] = sqlite_shop.sync('exclude = ["*"]').values()
    assert "has no table or container" in str(outcome.error)


def test_columns_that_look_like_a_version_are_named_in_the_plan_and_never_taken(shop: Shop) -> None:
    shop.run('CREATE TABLE "Dated" ("Id" INTEGER PRIMARY KEY, "Last_Update" TIMESTAMP, "Conversion" VARCHAR(9))')
    shop.sync(tables='"*Dated"')
    [dated] = plan_of(shop.registry(tables='"*Dated"'), "shop").services
    assert dated.version == "content"
    assert any('version = ["Last_Update"]' in note for note in dated.notes)
    left_out = ('[set.shop.table."Dated"]', 'columns = { exclude = ["Last_Update"] }')
    [dated] = plan_of(shop.registry(*left_out, tables='"*Dated"'), "shop").services
    assert not any("may be a version" in note for note in dated.notes)
    section = ('[set.shop.table."Dated"]', 'version = ["last_update"]')
    [named] = plan_of(shop.registry(*section, tables='"*Dated"'), "shop").services
    assert named.version == "last_update (named)"
    assert not any("may be a version" in note for note in named.notes)


def test_the_first_file_names_what_is_there_and_can_be_read(shop: Shop) -> None:
    shop.run('CREATE TABLE "RecycleBin" ("Id" INTEGER PRIMARY KEY)')  # the app has one of this name beside the copies
    text = first_file(shop.source, "shop", Limits(), variable="SHOP_SOURCE")
    assert f'# [set.shop.table."{shop.prefix}Keyless"]' in text
    assert f"{shop.prefix}Order Details has no primary key. Its key is Order, Line" in text
    view = f"{shop.prefix}German"
    reason = "A view takes part once a section names its key."
    assert f'\n# The view {view} is left out. {reason}\n# [set.shop.table."{view}"]\n# key = ' in text
    assert "\n# consistent = true " in text
    environment = {"SHOP_SOURCE": shop.source, "SHOP_BACKUP": shop.backup}
    registry = Registry(load_settings({"BACKUP_TOML": text, **environment}))
    assert all(outcome.error is None for outcome in registry.sync("shop", Trigger.CLI))
