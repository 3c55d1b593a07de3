"""A set whose tables refer to each other is restored parents first, and deletes children first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.mssql.pyodbc import dialect as mssql_dialect

from backup.core.errors import BadRequest, ConstraintRefused, RecordsSetAside, SourceMissing, UnknownService
from backup.core.run_values import Status
from backup.entry import http
from backup.runs.outcome import Outcome
from backup.services.group_restore import restore_group
from backup.services.service import Options
from backup.services.service_plans import plan_of
from backup.services.table_order import parents_first
from backup.stores import ForeignKey
from backup.stores.sql.constraints import constraint_of
from backup.verbs.restore_spec import RestoreSpec
from tests.emulators.servers import lent_database
from tests.scenarios.shops import SHOPS, Shop

TABLES = """
CREATE TABLE "Customer" ("Id" INTEGER PRIMARY KEY, "Name" VARCHAR(40));
CREATE TABLE "Border" ("Id" INTEGER PRIMARY KEY, "Customer" INTEGER REFERENCES "Customer" ("Id"));
CREATE TABLE "Aline" ("Border" INTEGER REFERENCES "Border" ("Id"), "Place" INTEGER, PRIMARY KEY ("Border", "Place"));
CREATE TABLE "Alone" ("Id" INTEGER PRIMARY KEY, "Boss" INTEGER REFERENCES "Alone" ("Id"));
"""
ROWS = """
INSERT INTO "Customer" VALUES (1, 'Ada'), (2, 'Chi');
INSERT INTO "Border" VALUES (1, 1), (2, 2);
INSERT INTO "Aline" VALUES (1, 1), (1, 2), (2, 1);
INSERT INTO "Alone" VALUES (1, NULL), (2, 1);
"""
EMPTY = 'DELETE FROM "Aline"; DELETE FROM "Border"; DELETE FROM "Customer"; DELETE FROM "Alone"'
COUNT = 'SELECT count(*) FROM "Customer" UNION ALL SELECT count(*) FROM "Border" UNION ALL SELECT count(*) FROM "Aline"'
NEWEST, WRITE = RestoreSpec(), Options()


@pytest.fixture(params=SHOPS)
def shop(request: pytest.FixtureRequest) -> Shop:
    """A shop on each server, whose tables refer to each other; its names sort children first."""
    shop: Shop = request.getfixturevalue(request.param)
    shop.run(TABLES + ROWS)
    assert not [outcome.error for outcome in shop.sync().values() if outcome.error]
    return shop


def restore(
    shop: Shop,
    spec: RestoreSpec = NEWEST,
    options: Options = WRITE,
    to: str | None = None,
    *,
    constraints: bool = False,
) -> dict[str, Outcome]:
    """The outcomes by table, in their order."""
    outcomes = restore_group(shop.registry(), "shop", spec, options, to, constraints=constraints)
    return {outcome.run.service.removeprefix(f"shop/{shop.prefix}"): outcome for outcome in outcomes}


def in_order(tables: Sequence[str]) -> bool:
    return tables.index("Customer") < tables.index("Border") < tables.index("Aline")


def test_a_set_is_restored_parents_first(shop: Shop) -> None:
    (note,) = plan_of(shop.registry(), "shop").notes
    assert note.endswith("; then ".join(f"{shop.prefix}{table}" for table in ("Customer", "Border", "Aline")) + ".")
    shop.run(EMPTY)
    preview = restore(shop, options=Options(dry_run=True))
    assert shop.column(COUNT, "source") == [0, 0, 0]
    outcomes = restore(shop)
    assert [outcome.error for outcome in outcomes.values()] == [None] * 4
    assert in_order([*outcomes])
    assert shop.column(COUNT, "source") == [2, 2, 3]
    for table, outcome in outcomes.items():
        assert outcome.run.counts == preview[table].run.counts
    assert shop.column('SELECT count(*) FROM "SyncHistory" WHERE "Verb" = \'restore\'') == [8]


def test_a_set_deletes_children_first(shop: Shop) -> None:
    shop.run(
        'INSERT INTO "Customer" VALUES (9, \'Eve\'); INSERT INTO "Border" VALUES (9, 9), (8, 1);'
        'INSERT INTO "Aline" VALUES (9, 1), (8, 1);'
        'DELETE FROM "Aline" WHERE "Border" = 2; DELETE FROM "Border" WHERE "Id" = 2'
    )
    spec = RestoreSpec(delete_extra=True)
    preview = restore(shop, spec, Options(dry_run=True))
    outcomes = restore(shop, spec)
    for counted in (preview, outcomes):
        assert [outcome.error for outcome in counted.values()] == [None] * 4
        counts = {table: outcome.run.counts for table, outcome in counted.items()}
        assert (counts["Border"].inserted, counts["Border"].deleted, counts["Border"].skipped) == (1, 2, 1)
        assert (counts["Aline"].inserted, counts["Aline"].deleted, counts["Customer"].deleted) == (1, 2, 1)
    assert shop.column(COUNT, "source") == [2, 2, 3]
    assert not any("without delete-extra" in note for note in outcomes["Border"].run.notes)


def test_a_cycle_is_named_and_tried_again(postgres_shop: Shop) -> None:
    shop = postgres_shop
    shop.run(
        'CREATE TABLE "Staff" ("Id" INTEGER PRIMARY KEY, "Store" INTEGER);'
        'CREATE TABLE "Store" ("Id" INTEGER PRIMARY KEY, "Boss" INTEGER REFERENCES "Staff" ("Id"));'
        'ALTER TABLE "Staff" ADD FOREIGN KEY ("Store") REFERENCES "Store" ("Id");'
        'INSERT INTO "Staff" VALUES (1, NULL); INSERT INTO "Store" VALUES (1, 1);'
        'INSERT INTO "Staff" VALUES (2, 1); INSERT INTO "Store" VALUES (2, 2); INSERT INTO "Staff" VALUES (3, 2)'
    )
    shop.sync()
    shop.run('UPDATE "Store" SET "Boss" = NULL; DELETE FROM "Staff"; DELETE FROM "Store"')
    outcomes = restore(shop)
    assert [outcome.error for outcome in outcomes.values()] == [None, None]
    assert shop.column('SELECT "Boss" FROM "Store" ORDER BY "Id"', "source") == [1, 2]
    assert {table: outcome.run.counts.inserted for table, outcome in outcomes.items()} == {"Staff": 3, "Store": 2}
    assert any("form a cycle" in note for note in outcomes["Staff"].run.notes)
    assert any("form a cycle" in note for note in plan_of(shop.registry(), "shop").notes)


def test_what_refers_to_itself_across_tables_stays_refused_and_is_named(postgres_shop: Shop) -> None:
    shop = postgres_shop
    shop.run(
        'CREATE TABLE "Staff" ("Id" INTEGER PRIMARY KEY, "Store" INTEGER);'
        'CREATE TABLE "Store" ("Id" INTEGER PRIMARY KEY, "Boss" INTEGER REFERENCES "Staff" ("Id"));'
        'ALTER TABLE "Staff" ADD FOREIGN KEY ("Store") REFERENCES "Store" ("Id");'
        'INSERT INTO "Staff" VALUES (1, NULL), (2, NULL); INSERT INTO "Store" VALUES (1, 1);'
        'UPDATE "Staff" SET "Store" = 1 WHERE "Id" = 1'
    )
    shop.sync()
    shop.run('UPDATE "Store" SET "Boss" = NULL; DELETE FROM "Staff"; DELETE FROM "Store"')
    outcomes = restore(shop)
    assert all(isinstance(outcome.error, RecordsSetAside) for outcome in outcomes.values())
    assert all([key for key, _ in outcome.run.failures] == ["[1]"] for outcome in outcomes.values())
    assert shop.column('SELECT "Id" FROM "Staff"', "source") == [2]


def test_another_database_gets_the_tables_in_their_order_also_those_that_are_gone(
    postgres_shop: Shop,
    postgres: str,
) -> None:
    shop = postgres_shop
    shop.run(TABLES + ROWS)
    shop.sync()
    shop.run('DROP TABLE "Alone"')
    shop.run('CREATE INDEX "by boss_bak01234567" ON "Alone" ("Boss", "Id")', "backup")
    with lent_database(postgres) as target:
        outcomes = restore(shop, to=target)
        assert [outcome.error for outcome in outcomes.values()] == [None] * 4
        [index] = Shop(target, shop.backup, shop.prefix).column(
            "SELECT indexdef FROM pg_indexes WHERE indexname LIKE 'by%'", "source"
        )
        assert '"by boss_bak' in index
        assert index.endswith('("Boss", "Id")')
        assert "_bak01234567" not in index
        assert any("The index by boss" in note for note in outcomes["Alone"].run.notes)
        assert in_order([*outcomes])
        target_shop = Shop(target, shop.backup, shop.prefix)
        assert target_shop.column(COUNT, "source") == [2, 2, 3]
        assert target_shop.rows('"Alone"', "source") == [(1, None), (2, 1)]
        target_shop.run(EMPTY + ';ALTER TABLE "Border" ADD FOREIGN KEY ("Customer") REFERENCES "Customer" ("Id")')
        shop.run('DROP TABLE "Aline"; DROP TABLE "Border"; DROP TABLE "Customer"')
        assert [outcome.error for outcome in restore(shop, to=target).values()] == [None] * 4


def test_over_http_a_table_that_fails_fails_alone(sqlite_shop: Shop) -> None:
    shop = sqlite_shop
    shop.run(TABLES + ROWS)
    shop.sync()
    shop.run(f'{EMPTY}; DROP TABLE "Border"; {TABLES.split(";")[1].rstrip()[:-1]}, CHECK ("Id" <> 2))')
    answer = http.post_restore(shop.registry(), "shop", {}, json.dumps({"confirm": True}).encode())
    assert (answer.status, answer.body["Message"]) == (207, "3 of 4 restores completed successfully")
    failed = [result["ServiceName"] for result in answer.body["Results"] if result["Status"] == Status.FAILED]
    assert failed == ["shop/Border"]
    assert shop.column(COUNT, "source") == [2, 1, 3]
    pattern = http.post_restore(shop.registry(), "shop/B*", {}, b"")
    assert [result["ServiceName"] for result in pattern.body["Results"]] == ["shop/Border"]


def test_a_restore_of_a_set_is_refused_for_what_belongs_to_one_service(sqlite_shop: Shop) -> None:
    shop = sqlite_shop
    shop.run(TABLES)
    for spec in (RestoreSpec(keys=("1",)), RestoreSpec(run="abc")):
        with pytest.raises(BadRequest, match="belong to one service"):
            restore(shop, spec)
    with pytest.raises(BadRequest, match="belong to one service"):
        http.post_restore(shop.registry(), "shop", {}, b'{"run": "abc"}')
    with pytest.raises(UnknownService, match="No service fits"):
        restore_group(shop.registry(), "shop/x*", RestoreSpec())


def test_cycles_are_broken_and_names_are_compared_as_the_server_has_them() -> None:
    def keys(*pairs: str) -> list[ForeignKey]:
        return [ForeignKey("f", child, ["c"], parent, ["p"]) for child, parent in (pair.split() for pair in pairs)]

    order = parents_first(["a", "b", "c", "d"], keys("a B", "b c", "c a", "d d", "d elsewhere"))
    assert sorted(map(sorted, order.cycles)) == [["a", "b", "c"]]
    assert order.linked == {"a", "b", "c"}
    (cycle,) = order.cycles
    assert set(zip(cycle, [*cycle[1:], cycle[0]], strict=True)) == {("a", "b"), ("b", "c"), ("c", "a")}
    assert parents_first(["a", "A"], keys("a A")).levels == [["A"], ["a"]]


DEFINED = "SELECT conname || pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'f' ORDER BY 1"


def test_another_database_gets_the_foreign_keys_where_all_rows_are(
    postgres_shop: Shop,
    postgres: str,
) -> None:
    shop = postgres_shop
    shop.run(
        TABLES + 'ALTER TABLE "Alone" ADD CONSTRAINT "odd, name" FOREIGN KEY ("Boss", "Id") REFERENCES "Aline"'
        " ON DELETE CASCADE ON UPDATE SET NULL DEFERRABLE INITIALLY DEFERRED;"
        'ALTER TABLE "Border" ADD CONSTRAINT later FOREIGN KEY ("Id") REFERENCES "Border"'
    )
    shop.sync()
    with lent_database(postgres) as target:
        target_shop = Shop(target, shop.backup, shop.prefix)
        preview = restore(shop, options=Options(dry_run=True), to=target, constraints=True)
        assert any("would be made" in note for note in preview["Alone"].run.notes)
        # No foreign key can refer to this table.
        target_shop.run('CREATE TABLE "Customer" ("Id" INTEGER, "Name" VARCHAR(40))')
        failed = {table for table, outcome in restore(shop, to=target, constraints=True).items() if outcome.error}
        assert failed == {"Customer"}
        target_shop.run('DROP TABLE "Customer"')
        for _ in range(2):
            outcomes = restore(shop, to=target, constraints=True)
            assert [outcome.error for outcome in outcomes.values()] == [None] * 4
            assert target_shop.column(DEFINED, "source") == shop.column(DEFINED, "source")
        target_shop.run(
            'ALTER TABLE "Border" DROP CONSTRAINT "Border_Customer_fkey"; INSERT INTO "Border" VALUES (7, 7);'
            'ALTER TABLE "Aline" DROP CONSTRAINT "Aline_Border_fkey"'
        )
        outcomes = restore(shop, to=target, constraints=True)
        assert isinstance(outcomes["Border"].error, ConstraintRefused)
        assert "Border_Customer_fkey" in str(outcomes["Border"].error)
        assert outcomes["Border"].error.hint.startswith("The rows are there. ")
        assert 'ADD CONSTRAINT "Border_Customer_fkey" FOREIGN KEY' in outcomes["Border"].error.hint
        assert outcomes["Aline"].error is None  # its rows and those of Border are there
        assert "Aline_Border_fkey" in repr(target_shop.column(DEFINED, "source"))


def test_a_foreign_key_of_a_partition_puts_the_whole_table_in_order(postgres_shop: Shop, postgres: str) -> None:
    shop = postgres_shop
    shop.run(
        'CREATE TABLE "Aline" ("Id" INTEGER PRIMARY KEY, "Customer" INTEGER) PARTITION BY RANGE ("Id");'
        'CREATE TABLE early PARTITION OF "Aline" FOR VALUES FROM (0) TO (9);'
        'CREATE TABLE "Customer" ("Id" INTEGER PRIMARY KEY);'
        'ALTER TABLE early ADD CONSTRAINT owns FOREIGN KEY ("Customer") REFERENCES "Customer";'
        'INSERT INTO "Customer" VALUES (1); INSERT INTO "Aline" VALUES (1, 1)'
    )
    shop.sync()
    shop.run('DELETE FROM "Aline"; DELETE FROM "Customer"')
    assert [outcome.error for outcome in restore(shop).values()] == [None, None]
    shop.run('INSERT INTO "Customer" VALUES (2); INSERT INTO "Aline" VALUES (2, 2)')
    for dry_run in (True, False):
        outcomes = restore(shop, RestoreSpec(delete_extra=True), Options(dry_run=dry_run))
        assert [(outcome.error, outcome.run.counts.deleted) for outcome in outcomes.values()] == [(None, 1)] * 2
    with lent_database(postgres) as target:
        notes = restore(shop, to=target, constraints=True)["Aline"].run.notes
    assert any("owns to public.Customer was not made: in the source it is of a partition" in note for note in notes)


def test_foreign_keys_are_made_only_where_they_can_be(sqlite_shop: Shop) -> None:
    shop = sqlite_shop
    shop.run(TABLES)
    with pytest.raises(BadRequest, match="only where a set is restored into another database"):
        restore(shop, constraints=True)
    with pytest.raises(BadRequest, match="SQLite cannot add foreign keys"):
        restore(shop, to=shop.source.replace("source", "target"), constraints=True)


def test_a_foreign_key_is_declared_for_sql_server_as_it_was() -> None:
    key = ForeignKey("FK one", "dbo.[a.b]", ["X", "Y"], "sales.Order", ["x]", "y"], "SET NULL", "CASCADE")
    statement = sa.schema.AddConstraint(constraint_of(key)).compile(dialect=mssql_dialect())  # type: ignore[no-untyped-call]
    assert str(statement) == (
        "ALTER TABLE [dbo].[a.b] ADD CONSTRAINT [FK one] FOREIGN KEY([X], [Y]) REFERENCES [sales].[Order] ([x]]], [y])"
        " ON DELETE SET NULL ON UPDATE CASCADE"
    )


@pytest.mark.parametrize("at_once", [1, 4])
def test_a_backup_that_was_given_foreign_keys_is_synced_in_their_order(postgres_shop: Shop, at_once: int) -> None:
    shop = postgres_shop
    shop.run(TABLES + ROWS)
    shop.sync()
    shop.run(
        'ALTER TABLE "Border" ADD FOREIGN KEY ("Customer") REFERENCES "Customer" ("Id");'
        'ALTER TABLE "Aline" ADD FOREIGN KEY ("Border") REFERENCES "Border" ("Id")',
        "backup",
    )
    shop.run(
        'DELETE FROM "Aline" WHERE "Border" = 2; DELETE FROM "Border" WHERE "Id" = 2;'
        'DELETE FROM "Customer" WHERE "Id" = 2; INSERT INTO "Customer" VALUES (3, NULL);'
        'INSERT INTO "Border" VALUES (3, 3); INSERT INTO "Aline" VALUES (3, 1)'
    )
    outcomes = shop.sync(f"services_at_once = {at_once}", "max_delete_percent = 100")
    assert [outcome.error for outcome in outcomes.values()] == [None] * 4
    counts = outcomes["Customer"].run.counts
    assert (counts.inserted, counts.deleted, counts.skipped) == (1, 1, 1)
    assert shop.column(COUNT) == shop.column(COUNT, "source")


def test_foreign_keys_are_known_when_the_source_is_gone(postgres_shop: Shop, postgres: str) -> None:
    shop = postgres_shop
    shop.run(TABLES + ROWS)
    gone = replace(shop, source=f"{shop.source}_gone")
    shop.sync(tables='["Customer"]')
    defined = shop.column(DEFINED, "source")
    with lent_database(postgres) as target:
        target_shop = Shop(target, shop.backup, shop.prefix)
        shop.run('DROP TABLE "SetCatalog"', "backup")  # an earlier release has kept nothing
        with pytest.raises(SourceMissing):
            restore(gone, to=target, constraints=True)
        shop.sync()
        saved = shop.rows('"SetCatalog"')
        shop.sync()
        assert shop.rows('"SetCatalog"') == saved  # nothing has changed
        outcomes = restore(gone, to=target, constraints=True)
        assert [outcome.error for outcome in outcomes.values()] == [None] * 4
        assert in_order([*outcomes])
        assert target_shop.column(DEFINED, "source") == defined
        assert any("The source could not be asked" in note for note in outcomes["Border"].run.notes)
    shop.run('ALTER TABLE "Border" DROP CONSTRAINT "Border_Customer_fkey"')
    shop.sync()
    assert "Border_Customer_fkey" not in repr(shop.rows('"SetCatalog"'))
