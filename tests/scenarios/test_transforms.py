"""A transformed copy: what it holds, how it is compared, and that nothing of it gets into the source."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from azure.cosmos import PartitionKey

from backup.config.settings import load_settings
from backup.config.transform_steps import steps_of
from backup.core.errors import BadRequest, ConfigError, GuardTripped, RecordsSetAside
from backup.core.run_values import Trigger
from backup.core.transforms import Stamping, Transform, stamping_of
from backup.mirror.proof import DifferenceKind
from backup.mirror.verification import Depth
from backup.runs.outcome import Outcome
from backup.services.registry import Registry
from backup.services.service import Options, SyncService
from backup.services.service_plans import plan_of
from backup.verbs.restore_spec import RestoreSpec
from tests.emulators.clients import cosmos_client
from tests.scenarios import erp, places
from tests.scenarios.shops import IN_FILES, SHOPS, Shop

TABLE = """
CREATE TABLE "Contact" ("Id" INTEGER PRIMARY KEY, "Name" VARCHAR(40), "Payload" VARCHAR(200), "Town" VARCHAR(20));
INSERT INTO "Contact" VALUES (1, 'Ada', '{"address": {"city": "Rome", "zip": 7}, "tags": ["a", "b"]}', 'x'),
    (2, 'Chi', '{"address": null}', 'y'), (3, 'Eve', NULL, 'z')
"""
STEPS = (
    'transform = [{ rename = { name = "FullName" } }, { constant = { Source = "crm", Rank = 2 } },'
    ' { json = { City = { column = "Payload", path = "$.address.city" },'
    ' Zip = { column = "Payload", path = \'$["address"].zip\' }, Tags = { column = "Payload", path = "$.tags" } } },'
    ' { drop = ["Payload"] }]\n'
    'types = { Source = "varchar(9)", Rank = "numeric(9, 2)", City = "varchar(40)", Zip = "varchar(9)",'
    ' Tags = "varchar(40)" }'
)
CALL = 'transform = "tests.scenarios.erp:contact"'
CALL_TYPES = 'types = { Source = "varchar(9)", Score = "numeric(9, 2)" }'
MASK_KEY = {"BackupMask__Key": "a key of the masks that is long enough"}


@pytest.fixture(params=SHOPS)
def shop(request: pytest.FixtureRequest) -> Shop:
    """A shop on each server with one table."""
    shop: Shop = request.getfixturevalue(request.param)
    shop.run(TABLE)
    return shop


@pytest.fixture
def alone(sqlite_shop: Shop) -> Shop:
    sqlite_shop.run(TABLE)
    return sqlite_shop


@pytest.fixture(autouse=True)
def _same_function() -> Iterator[None]:
    yield
    erp.LEAVES_OUT.clear()
    erp.FAILS.clear()


def service(shop: Shop, *lines: str, **settings: str) -> SyncService:
    return registry(shop, *lines, **settings).get(shop.name("Contact"))


def registry(shop: Shop, *lines: str, **settings: str) -> Registry:
    section = f'[set.shop.table."{shop.prefix}Contact"]'
    return Registry(load_settings({"BACKUP_TOML": shop.text(section, *lines), **settings}))


def synced(shop: Shop, *lines: str, **settings: str) -> Outcome:
    outcome = service(shop, *lines, **settings).sync(Trigger.CLI)
    assert outcome.error is None, outcome.error
    assert outcome.run.verified
    return outcome


def copies(shop: Shop, columns: str) -> list[tuple[Any, ...]]:
    return shop.rows(f'(SELECT {columns} FROM "Contact") t')


def proven(shop: Shop, *lines: str, **settings: str) -> None:
    verified = service(shop, *lines, **settings).verify(Depth(full=True))
    assert verified.error is None
    assert verified.run.verified, verified.report


def test_steps_rename_add_and_drop_columns(shop: Shop) -> None:
    assert synced(shop, STEPS).run.counts.inserted == 3
    assert copies(shop, '"Id", "FullName", "Source", "City", "Zip", "Tags", "Town"') == [
        (1, "Ada", "crm", "Rome", "7", '["a", "b"]', "x"),
        (2, "Chi", "crm", None, None, None, "y"),
        (3, "Eve", "crm", None, None, None, "z"),
    ]
    with places.engine(shop.backup).connect() as cx:
        names = {column["name"] for column in sa.inspect(cx).get_columns("Contact")}
    assert names == {"Id", "FullName", "Source", "Rank", "City", "Zip", "Tags", "Town", "SyncedAt", "SourceStamp"}
    proven(shop, STEPS)
    assert synced(shop, STEPS).run.counts.skipped == 3
    shop.run('UPDATE "Contact" SET "Payload" = \'{}\' WHERE "Id" = 1')
    assert synced(shop, STEPS).run.counts.updated == 1
    assert copies(shop, '"Id", "City"') == [(1, None), (2, None), (3, None)]
    drilled = service(shop, STEPS).verify(Depth(), drilled=True)
    assert drilled.error is None
    assert drilled.run.verified, drilled.report
    shop.run('UPDATE "Contact" SET "City" = \'Oslo\' WHERE "Id" = 2', "backup")
    assert not service(shop, STEPS).verify(Depth(full=True)).run.verified


@IN_FILES
def test_a_function_decides_what_belongs_and_a_record_that_does_not_is_a_delete(shop: Shop) -> None:
    lines: tuple[str, ...] = (CALL, CALL_TYPES)
    erp.LEAVES_OUT.add(2)
    assert synced(shop, *lines).run.counts.inserted == 2
    assert copies(shop, '"Id", "Name", "Source", "Town"') == [(1, "ADA", "crm", None), (3, "EVE", "crm", None)]
    again = synced(shop, *lines)
    assert (again.run.counts.processed, again.run.counts.skipped) == (0, 2)
    proven(shop, *lines)
    assert service(shop, *lines).planning.changes()[0].inserts == 0
    erp.LEAVES_OUT.add(1)  # the function was changed, and its version was not
    assert synced(shop, *lines).run.counts.processed == 0
    assert not service(shop, *lines).verify(Depth(full=True)).run.verified
    first, lines = lines, (*lines, 'transform_version = "2"')
    planned = service(shop, *lines, "max_delete_percent = 100").planning.changes()[0]
    assert (planned.updates, planned.deletes) == (1, 1)
    guarded = service(shop, *lines, "delete_guard_floor = 0", "max_deletes = 0").sync(Trigger.CLI)
    assert isinstance(guarded.error, GuardTripped)
    changed = synced(shop, *lines, "max_delete_percent = 100")
    assert (changed.run.counts.updated, changed.run.counts.deleted) == (0, 1)  # the guarded run has made the update
    assert [row[0] for row in copies(shop, '"Id"')] == [3]
    undone = service(shop, *lines).undo(changed.run.sync_id)
    assert undone.error is None
    assert [row[0] for row in copies(shop, '"Id"')] == [1, 3]
    differing = service(shop, *lines).verify(Depth())
    assert not differing.run.verified
    assert differing.report is not None
    assert differing.report.counts[DifferenceKind.EXTRA] == 1
    erp.LEAVES_OUT.clear()
    assert synced(shop, *first, 'transform_version = "3"').run.counts.inserted == 1


def test_what_a_function_leaves_out_later_is_kept_where_deletes_are(alone: Shop) -> None:
    lines = (CALL, CALL_TYPES, 'deletes = "keep"')
    synced(alone, *lines)
    erp.LEAVES_OUT.add(2)
    left = synced(alone, *lines, 'transform_version = "2"', "max_delete_percent = 100")
    assert left.run.counts.deleted == 1
    assert [row[0] for row in copies(alone, '"Id", "DeletedAt"') if row[1]] == [2]
    proven(alone, *lines, 'transform_version = "2"')


def test_masks_that_begin_empty_what_a_function_made_of_a_deleted_record(shop: Shop) -> None:
    """The backup's table was made by hand, and wants a name in each row."""
    lines: tuple[str, ...] = (CALL, CALL_TYPES, 'deletes = "keep"')
    by_hand = TABLE.replace('"Name" VARCHAR(40)', '"Name" VARCHAR(40) NOT NULL')
    shop.run(f'DROP TABLE "Contact"; {by_hand}')
    synced(shop, *lines)
    shop.run(f'DROP TABLE "Contact"; {by_hand.partition(";")[0]}', "backup")
    synced(shop, *lines)
    shop.run('DELETE FROM "Contact" WHERE "Id" = 2')
    synced(shop, *lines)
    lines = (*lines, 'mask = { Town = "null" }')
    names = [(1, "ADA"), (2, None), (3, "EVE")]
    if shop.backup.startswith("sqlite"):  # which lets no column be NULL later
        failed = service(shop, *lines, **MASK_KEY).sync(Trigger.CLI)
        assert "the column Name is NOT NULL, so it cannot be emptied" in str(failed.error)
        assert ["older images" in note for note in failed.run.notes] == [True]  # purged all the same
        assert 'DELETE FROM "Contact" WHERE "Contact"."DeletedAt" IS NOT NULL' in getattr(failed.error, "hint", "")
        shop.run('DELETE FROM "Contact" WHERE "DeletedAt" IS NOT NULL', "backup")
        names = [name for name in names if name[0] != 2]
    synced(shop, *lines, **MASK_KEY)
    assert copies(shop, '"Id", "Name"') == names
    assert len([row for row in copies(shop, '"Id", "DeletedAt"') if row[1]]) == len(names) - 2


def test_what_the_function_fails_on_is_set_aside_and_named(alone: Shop) -> None:
    lines = CALL, CALL_TYPES
    synced(alone, *lines)
    erp.FAILS.add(2)
    alone.run('UPDATE "Contact" SET "Name" = \'Secret\' WHERE "Id" < 3')
    planned = service(alone, *lines).planning.changes()[0]
    assert (planned.updates, planned.set_aside) == (1, 1)
    outcome = service(alone, *lines).sync(Trigger.CLI)
    assert isinstance(outcome.error, RecordsSetAside)
    assert (outcome.run.counts.updated, outcome.run.counts.failed, outcome.run.counts.skipped) == (1, 1, 1)
    [(key, reason)] = outcome.run.failures
    assert key == "[2]"
    assert "tests.scenarios.erp:contact raised KeyError" in reason
    assert "Secret" not in reason
    assert copies(alone, '"Id", "Name"') == [(1, "SECRET"), (2, "CHI"), (3, "EVE")]
    verified = service(alone, *lines).verify(Depth())
    assert isinstance(verified.error, RecordsSetAside)
    erp.FAILS.update((1, 2, 3))  # nothing is deleted because of a function that fails
    service(alone, *lines, 'transform_version = "2"', "max_delete_percent = 100").sync(Trigger.CLI)
    assert len(copies(alone, '"Id"')) == 3
    erp.FAILS.clear()
    assert synced(alone, *lines).run.counts.processed == 1


def test_a_first_copy_sets_aside_what_the_function_fails_on(alone: Shop) -> None:
    erp.FAILS.add(1)
    outcome = service(alone, CALL, CALL_TYPES).sync(Trigger.CLI)
    assert isinstance(outcome.error, RecordsSetAside)
    assert (outcome.run.counts.inserted, outcome.run.counts.failed) == (2, 1)
    outcome = service(alone, 'transform = "tests.scenarios.erp:other_key"').sync(Trigger.CLI)
    assert isinstance(outcome.error, RecordsSetAside)
    assert "changed the key" in outcome.run.failures[0][1]


def test_a_number_that_no_verify_would_find_again_is_refused(alone: Shop) -> None:
    outcome = service(alone, 'transform = "tests.scenarios.erp:no_number"').sync(Trigger.CLI)
    [(key, reason)] = outcome.run.failures
    assert (key, outcome.run.counts.inserted) == ("[1]", 2)
    assert "the value nan, which is not a number" in reason


def test_nothing_transformed_gets_into_the_source(alone: Shop) -> None:
    synced(alone, STEPS)
    alone.run(
        'UPDATE "Contact" SET "Town" = \'new\', "Name" = \'Bob\' WHERE "Id" = 1; DELETE FROM "Contact" WHERE "Id" = 2'
    )
    before = alone.rows('"Contact"', "source")
    own = service(alone, STEPS)
    refused = own.restore(RestoreSpec(overwrite_newer=True))
    assert isinstance(refused.error, BadRequest)
    assert "masked or transformed values of City, FullName, Name, Payload" in str(refused.error)
    assert alone.rows('"Contact"', "source") == before
    restored = own.restore(RestoreSpec(overwrite_newer=True, without_masked=True))
    assert restored.error is None
    assert alone.rows('"Contact"', "source") == [(1, "Bob", before[0][2], "x"), before[1]]
    synced(alone, CALL, CALL_TYPES, "max_delete_percent = 100")
    for spec in (RestoreSpec(), RestoreSpec(without_masked=True, delete_extra=True)):
        refused = service(alone, CALL, CALL_TYPES).restore(spec, Options(allow_mass_delete=True))
        assert "what a function made" in str(refused.error)
    elsewhere = service(alone, CALL, CALL_TYPES).restore(RestoreSpec(), to=alone.source.replace("source", "there"))
    assert elsewhere.error is None
    assert elsewhere.run.counts.inserted == 2


def test_masks_come_before_the_transform_and_stay_when_it_changes(alone: Shop) -> None:
    mask = 'mask = { Name = "hmac" }'
    synced(alone, STEPS, **MASK_KEY)
    begun = synced(alone, STEPS, mask, **MASK_KEY)
    assert begun.run.counts.updated == 3
    assert "Ada" not in repr([alone.rows(f'"{table}"') for table in ("Contact", "RecycleBin", "SyncHistory")])
    masked = copies(alone, '"FullName"')
    changed = synced(alone, STEPS, mask, 'transform_version = "2"', **MASK_KEY)
    assert changed.run.counts.updated == 3
    assert service(alone, STEPS, mask, **MASK_KEY).undo(changed.run.sync_id).error is None
    assert copies(alone, '"FullName"') == masked  # a mask of a mask would be another text
    proven(alone, STEPS, mask, **MASK_KEY)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ('transform = [{ rename = { Nmae = "X" } }]', "has no column Nmae for its transform. Did you mean Name"),
        ('transform = [{ rename = { Id = "X" } }]', "cannot change Id: it is part of the key"),
        ('transform = [{ rename = { Name = "Town" } }]', "gives the column town twice"),
        ('transform = [{ constant = { Source = "crm" } }]', "a column Source, whose type is not known"),
        ('transform = [{ drop = ["Name"] }]\ntypes = { X = "int" }', "types declares X, which no step"),
    ],
)
def test_a_transform_that_does_not_fit_the_table_is_refused(alone: Shop, lines: str, reason: str) -> None:
    outcome = service(alone, lines).sync(Trigger.CLI)
    assert isinstance(outcome.error, ConfigError)
    assert reason in str(outcome.error)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ('transform = "no_such_module:f"', "there is no module no_such_module"),
        ('transform = "tests.scenarios.erp:nothing"', "has no function nothing"),
        ('transform = "tests.scenarios.erp:not_a_function"', "has no function not_a_function"),
        ('transform = "erp"', 'write "module:function"'),
        ('transform = [{ renam = { A = "B" } }]', "Did you mean rename"),
        ('transform = [{ json = { A = { column = "B", path = "city" } } }]', "a path begins with $"),
        ("transform = [{ constant = { A = [1] } }]", "a constant is a text, a number"),
        ('transform_version = "2"', "and there is none"),
        ('transform = [{ drop = ["A"] }]\ntypes = { A = "int; DROP TABLE x" }', "a column's type"),
    ],
)
def test_a_mistake_is_told_with_its_line(alone: Shop, lines: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=r"Line [567]") as caught:
        registry(alone, lines)
    assert reason in str(caught.value)


def test_the_mark_of_a_transform_is_the_same_in_every_process() -> None:
    steps = tomllib.loads(STEPS)["transform"]
    transform = Transform(steps_of([*steps, "tests.scenarios.erp:contact"]), "2", {"b": "int", "a": "int"}, "key")
    other = Transform(steps_of([*steps, "tests.scenarios.erp:contact"]), "2", {"a": "int", "b": "int"}, "key")
    assert stamping_of(None, transform) == stamping_of(None, other)
    assert " at 0x" not in transform.text
    assert transform.mark == "fc0ef997"
    assert stamping_of(None, None) == Stamping()


def test_the_plan_names_the_transform(alone: Shop) -> None:
    [plan] = plan_of(registry(alone, STEPS), "shop").services
    assert plan.transform == ["rename", "constant", "json", "drop"]
    [plan] = plan_of(registry(alone, CALL, CALL_TYPES, 'transform_version = "7"'), "shop").services
    assert plan.transform == ["tests.scenarios.erp:contact", "version 7"]


def test_documents_are_transformed_too(cosmos_server: str, cosmos_server_backup: str) -> None:
    database = f"crm{uuid4().hex[:8]}"
    with cosmos_client(cosmos_server) as client:
        container = client.create_database(database).create_container("leads", PartitionKey("/pk"))
        for number in range(1, 4):
            container.upsert_item({"id": f"{number}", "pk": "a", "name": "ada", "old": {"city": "Rome"}})
    head = f"[set.crm]\nsource = '{cosmos_server}'\nbackup = '{cosmos_server_backup}'\ndatabase = '{database}'\n"
    head += 'containers = ["leads"]\n[set.crm.container."leads"]\nmax_delete_percent = 100\n'
    json = '{ json = { City = { column = "old", path = "$.city" } } }, { drop = ["old"] }'

    def leads(step: str, transform_version: str = "") -> SyncService:
        text = f'{head}transform = [{json}{step}]\ntransform_version = "{transform_version}"'
        return Registry(load_settings({"BACKUP_TOML": text})).get("crm/leads")

    def copied() -> list[tuple[str, Any, Any]]:
        with cosmos_client(cosmos_server_backup) as client:
            documents = client.get_database_client(database).get_container_client("leads").read_all_items()
            return sorted((document["id"], document["name"], document.get("City")) for document in documents)

    call = ', "tests.scenarios.erp:lead"'
    assert leads("").sync(Trigger.CLI).error is None
    assert copied() == [(f"{number}", "ada", "Rome") for number in range(1, 4)]
    refused = leads("").restore(RestoreSpec())
    assert "masked or transformed values of City, old" in str(refused.error)
    assert leads(', { rename = { pk = "x" } }').sync(Trigger.CLI).error is not None
    erp.LEAVES_OUT.add("2")
    for counts in ((2, 1), (0, 0)):
        outcome = leads(call).sync(Trigger.CLI)
        assert outcome.error is None
        assert (outcome.run.counts.updated, outcome.run.counts.deleted) == counts
    assert copied() == [("1", "ADA", "Rome"), ("3", "ADA", "Rome")]
    verified = leads(call).verify(Depth(full=True))
    assert verified.error is None
    assert verified.run.verified
    assert leads(call, "2").sync(Trigger.CLI).run.counts.skipped == 2  # the notes alone were written
