"""An undo of a set takes back the last sync of each service, or nothing at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backup.core.errors import BadRequest, Conflict, UnknownRun, UnknownService
from backup.entry import http
from backup.runs.outcome import Outcome
from backup.services.group_undo import undo_group
from tests.scenarios.inside import command
from tests.scenarios.shops import Shop
from tests.scenarios.test_set_order import ROWS, TABLES

NIGHT = """
INSERT INTO "Customer" VALUES (3, 'Eve');
UPDATE "Border" SET "Customer" = 3 WHERE "Id" = 1;
INSERT INTO "Border" VALUES (3, 3);
INSERT INTO "Aline" VALUES (3, 1);
DELETE FROM "Aline" WHERE "Border" = 2;
DELETE FROM "Border" WHERE "Id" = 2;
DELETE FROM "Customer" WHERE "Id" = 2
"""


def undo(shop: Shop, name: str = "shop", *, dry_run: bool = False) -> dict[str, Outcome]:
    """The outcomes by table."""
    outcomes = undo_group(shop.registry(), name, dry_run=dry_run)
    return {outcome.run.service.removeprefix(f"shop/{shop.prefix}"): outcome for outcome in outcomes}


def synced(shop: Shop, statements: str = TABLES + ROWS, *, deletes: int = 100) -> None:
    shop.run(statements)
    outcomes = shop.sync(f"max_delete_percent = {deletes}")
    assert not [outcome.error for outcome in outcomes.values() if outcome.error]


def copies(shop: Shop) -> list[list[tuple[object, ...]]]:
    columns = {"Customer": '"Id", "Name"', "Border": '"Id", "Customer"', "Aline": '"Border", "Place"'}
    return [shop.rows(f'(SELECT {names} FROM "{table}") t') for table, names in columns.items()]


def test_the_last_sync_of_each_service_is_taken_back_once(sqlite_shop: Shop) -> None:
    shop = sqlite_shop
    synced(shop)
    before = copies(shop)
    synced(shop, NIGHT)
    after = copies(shop)
    preview = undo(shop, dry_run=True)
    assert copies(shop) == after
    outcomes = undo(shop)
    assert copies(shop) == before
    for table, outcome in outcomes.items():
        assert outcome.error is None
        assert outcome.run.counts == preview[table].run.counts
    assert outcomes["Alone"].run.sync_id == ""
    assert "changed nothing" in outcomes["Alone"].run.notes[0]
    again = undo(shop)
    assert copies(shop) == before
    assert "was taken back already" in again["Border"].run.notes[0]
    border = shop.registry().get(shop.name("Border"))
    assert border.undo(outcomes["Border"].run.sync_id).error is None
    assert border.past.last_sync()[0] is not None  # an undo that was undone counts for nothing


def test_one_refused_undo_leaves_the_whole_set_as_it_is(sqlite_shop: Shop) -> None:
    shop = sqlite_shop
    synced(shop)
    synced(shop, NIGHT)
    after = copies(shop)
    service = shop.registry().get(shop.name("Border"))
    last, _ = service.past.last_sync()
    assert last is not None
    shop.run(f'DELETE FROM "RecycleBin" WHERE "SyncId" = \'{last.sync_id}\'', "backup")
    preview = undo(shop, dry_run=True)
    assert [table for table, outcome in preview.items() if outcome.error] == ["Border"]
    answer = http.post_undo(shop.registry(), "shop", {}, json.dumps({"confirm": True}).encode())
    assert copies(shop) == after
    assert (answer.status, answer.body["Message"]) == (409, "0 of 4 undos completed successfully")
    errors = {outcome.run.service: outcome.error for outcome in undo(shop).values()}
    assert all(isinstance(error, Conflict) for error in errors.values())
    assert "the undo of shop/Border is refused" in str(errors["shop/Customer"])
    assert copies(shop) == after


def test_a_backup_with_foreign_keys_is_undone_in_their_order(postgres_shop: Shop) -> None:
    shop = postgres_shop
    synced(shop)
    before = copies(shop)
    many = range(100, 260)  # more than a run may set aside
    shop.run(f'INSERT INTO "Customer" ("Id") VALUES {", ".join(f"({number})" for number in many)}')
    shop.run(f'INSERT INTO "Border" VALUES {", ".join(f"({number}, {number})" for number in many)}')
    synced(shop, NIGHT)
    shop.run(
        'ALTER TABLE "Border" ADD FOREIGN KEY ("Customer") REFERENCES "Customer" ("Id");'
        'ALTER TABLE "Aline" ADD FOREIGN KEY ("Border") REFERENCES "Border" ("Id")',
        "backup",
    )
    undone = undo(shop)
    assert [outcome.error for outcome in undone.values()] == [None] * 4
    assert copies(shop) == before
    counts = {table: outcome.run.counts for table, outcome in undone.items()}
    assert (counts["Border"].deleted, counts["Border"].updated, counts["Border"].inserted) == (len(many) + 1, 1, 1)
    assert (counts["Aline"].deleted, counts["Aline"].inserted, counts["Customer"].inserted) == (1, 1, 1)


def test_the_command_line_previews_and_undoes_a_set(sqlite_shop: Shop) -> None:
    shop = sqlite_shop
    synced(shop)
    before = copies(shop)
    synced(shop, NIGHT)
    settings = {"BACKUP_TOML": shop.text(), **shop.settings}
    folder = Path(shop.source.removeprefix("sqlite:///")).parent
    preview = command(folder, settings, "undo", "shop")
    assert preview.code == 0, preview.err
    assert "Nothing was written" in preview.out
    assert copies(shop) != before
    answer = command(folder, settings, "undo", "shop", "--yes", "--json").json
    assert {result["Verb"] for result in answer["Results"]} == {"undo"}
    assert copies(shop) == before
    changed = command(folder, settings, "changes", "shop", "--json").json
    inserted = {row["ServiceName"].partition("/")[2]: row["InsertedCount"] for row in changed["Results"]}
    assert inserted == {**dict(zip(("Customer", "Border", "Aline"), map(len, before), strict=True)), "Alone": 2}
    assert changed["Together"]["InsertedCount"] == sum(inserted.values())
    refused = command(folder, settings, "undo", "shop/*", "--through", "--json")
    assert (refused.code, refused.json["Error"]) == (1, "BadRequest")


def test_an_undo_of_no_set_is_refused(sqlite_shop: Shop) -> None:
    shop = sqlite_shop
    synced(shop)
    with pytest.raises(UnknownService, match="No service fits"):
        undo(shop, "shop/x*")
    with pytest.raises(BadRequest, match="is about one run"):
        http.post_undo(shop.registry(), "shop", {}, b'{"through": true}')
    with pytest.raises(UnknownRun) as unknown:
        http.post_undo(shop.registry(), "shop/Border", {}, b"")
    assert "history shop/Border` lists its runs" in unknown.value.hint
