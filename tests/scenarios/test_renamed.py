"""A table that the source has renamed: its copy gets the new name, and its history and its bin follow."""

from __future__ import annotations

import pytest

from backup.config.settings import load_settings
from backup.core.errors import ConfigError, Locked
from backup.core.retry import Retry
from backup.core.run_values import Counts, Trigger
from backup.mirror.planned_changes import PlannedChanges
from backup.runs.lock import open_lock
from backup.services.registry import Registry
from backup.services.service_plans import plan_of
from backup.stores.sql.engines.mssql.dialect import SqlServerDialect
from backup.stores.sql.engines.tables import TableName
from backup.verbs.restore_spec import RestoreSpec
from tests.scenarios.shops import SHOPS, Shop

ROWS = """
CREATE TABLE "Old: one" ("Id" INTEGER PRIMARY KEY, "Name" VARCHAR(40));
INSERT INTO "Old: one" VALUES (1, 'one'), (2, 'two'), (3, 'three');
"""
RENAME = 'ALTER TABLE "Old: one" RENAME TO "New"'


@pytest.fixture(params=SHOPS)
def shop(request: pytest.FixtureRequest) -> Shop:
    """A shop on each server, synced twice; the second sync has updated a record."""
    shop: Shop = request.getfixturevalue(request.param)
    shop.run(ROWS)
    shop.sync()
    shop.run('UPDATE "Old: one" SET "Name" = \'changed\' WHERE "Id" = 1')
    shop.sync()
    return shop


def section(shop: Shop) -> tuple[str, str]:
    return f'[set.shop.table."{shop.prefix}New"]', f'renamed_from = "{shop.prefix}Old: one"'


def test_a_renamed_table_keeps_its_copy_its_history_and_its_bin(shop: Shop) -> None:
    shop.run("EXEC sp_rename 'dbo.\"Old: one\"', 'New', 'OBJECT'" if shop.prefix == "dbo." else RENAME)
    plan = plan_of(shop.registry(*section(shop)), "shop")
    [service] = plan.services
    assert service.changes == PlannedChanges(source_records=3, backup_records=3)
    assert service.notes == [
        f"The backup's table {shop.prefix}Old: one gets the new name first; its history and its bin follow."
    ]
    assert plan.notes == []  # nothing is gone
    outcome = shop.sync(*section(shop))["New"]
    assert (outcome.error, outcome.run.counts) == (None, Counts(skipped=3))
    assert sorted(shop.tables("backup")) == ["New", "RecycleBin", "SetCatalog", "SetTables", "SyncHistory"]
    renamed = shop.registry(*section(shop)).get(shop.name("New"))
    third, second, _ = renamed.past.history(9)
    assert second.counts.updated == 1
    assert [kept.action.value for kept in renamed.past.show("1").changes] == ["Inserted", "Updated"]
    assert renamed.undo(second.sync_id).error is None
    assert shop.column('SELECT "Name" FROM "New" WHERE "Id" = 1') == ["one"]
    assert second.completed_at is not None
    restored = renamed.restore(RestoreSpec(at=second.completed_at))
    assert (restored.error, restored.run.counts.skipped) == (None, 3)
    again = shop.sync(*section(shop))["New"].run
    assert (again.counts.updated, again.number) == (1, (third.number or 0) + 3)


def test_nothing_is_renamed_while_a_run_of_the_old_name_is_at_work(sqlite_shop: Shop) -> None:
    sqlite_shop.run(ROWS)
    sqlite_shop.sync()
    settings = load_settings({"BACKUP_TOML": sqlite_shop.text()})
    with Registry(settings).get("shop/Old: one").stores() as (_, backup):
        location = backup.place.location
    sqlite_shop.run(RENAME)
    with open_lock(settings, Retry())("shop/Old: one", location):
        assert isinstance(sqlite_shop.sync(*section(sqlite_shop))["New"].error, Locked)
    assert "Old: one" in sqlite_shop.tables("backup")


def test_a_copy_moves_to_another_schema_with_its_table(postgres_shop: Shop) -> None:
    postgres_shop.run(ROWS + 'CREATE SCHEMA moved; ALTER TABLE "Old: one" RENAME TO "Things"')
    lines = ('exclude = ["*RecycleBin"]', '[set.shop.table."moved.New"]', 'renamed_from = "public.Things"')
    postgres_shop.sync()
    postgres_shop.run('ALTER TABLE "Things" SET SCHEMA moved; ALTER TABLE moved."Things" RENAME TO "New"')
    [outcome] = postgres_shop.registry(*lines).sync("shop", Trigger.CLI)
    assert (outcome.error, outcome.run.counts) == (None, Counts(skipped=3))
    assert postgres_shop.column('SELECT count(*) FROM moved."New"') == [3]


def test_two_names_on_one_side_are_no_renaming(sqlite_shop: Shop) -> None:
    sqlite_shop.run(ROWS)
    sqlite_shop.sync()
    sqlite_shop.run('CREATE TABLE "New" ("Id" INTEGER PRIMARY KEY)')
    both = sqlite_shop.sync(*section(sqlite_shop))["New"].error
    assert isinstance(both, ConfigError)
    assert "The source has Old: one as well" in str(both)
    sqlite_shop.sync()
    sqlite_shop.run('DROP TABLE "Old: one"')
    copies = sqlite_shop.sync(*section(sqlite_shop))["New"].error
    assert isinstance(copies, ConfigError)
    assert "copies under both names" in str(copies)
    assert sorted(sqlite_shop.tables("backup")) == [
        "New",
        "Old: one",
        "RecycleBin",
        "SetCatalog",
        "SetTables",
        "SyncHistory",
    ]
    sqlite_shop.run(ROWS)  # the old name is in use again, for a table of its own
    outcomes = sqlite_shop.sync(*section(sqlite_shop))
    assert [outcome.error for outcome in outcomes.values()] == [None, None]


@pytest.mark.parametrize(
    ("kind", "name", "old", "message"),
    [
        ("container", "orders", "old", "Cosmos DB cannot rename a container"),
        ("table", "dbo.I*", "old", "from one table to one table"),
    ],
)
def test_what_cannot_be_renamed_is_refused_with_what_to_do(kind: str, name: str, old: str, message: str) -> None:
    is_cosmos = kind == "container"
    source = "AccountEndpoint=https://a/;AccountKey=b" if is_cosmos else "sqlite:///a.db"
    text = f"""
[set.shop]
source = '{source}'
backup = '{source.replace("a", "b")}'
{'database = "shop"' if is_cosmos else ""}
{kind}s = "*"
[set.shop.{kind}."{name}"]
renamed_from = "{old}"
"""
    with pytest.raises(ConfigError) as refused:
        Registry(load_settings({"BACKUP_TOML": text})).directory.names()
    assert message in str(refused.value)


def test_sql_server_moves_a_table_before_it_gives_it_its_name() -> None:
    sent: list[object] = []

    class Connection:
        def exec_driver_sql(self, statement: str, **_: object) -> None:
            sent.append(statement)

        def execute(self, statement: object, names: object) -> None:
            sent.append((str(statement), names))

    rename = SqlServerDialect.rename
    rename(None, Connection(), TableName("dbo", "It's"), TableName("my]shop", "New?"))  # type: ignore[arg-type]
    assert sent == [
        "ALTER SCHEMA [my]]shop] TRANSFER [dbo].[It's]",
        ("EXEC sp_rename :moved, :name, 'OBJECT'", {"moved": "[my]]shop].[It's]", "name": "New?"}),
    ]
