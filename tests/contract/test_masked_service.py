"""A masked service from end to end: no clear value leaves the source, and no masked one gets into it."""

from __future__ import annotations

import logging

import pytest

from backup.config.settings import load_settings
from backup.core.errors import ConfigError
from backup.core.run_values import Trigger
from backup.entry.answers import shape_one
from backup.mirror.verification import Depth
from backup.recycle_bin.entries import RECYCLE_BIN
from backup.runs.history_entries import HISTORY
from backup.runs.outcome import Outcome, Turn
from backup.services.registry import Registry
from backup.services.service import Options, SyncService
from backup.verbs.restore_spec import RestoreSpec
from tests.contract.benches import CosmosBench, SqlBench

CLEAR = "ada.lovelace@example.org", "Lovelace-Byron"
APP_CONTAINERS = HISTORY.container, RECYCLE_BIN.container
MASK = "mail=email; Name=hmac"
TABLE = """CREATE TABLE {table} (Id INTEGER NOT NULL PRIMARY KEY, Version INTEGER NOT NULL, Name varchar(40),
    Mail varchar(60), Town varchar(40))"""


@pytest.fixture(params=["sqlite", "postgresql"])
def sides(request: pytest.FixtureRequest) -> SqlBench:
    """Two empty databases."""
    bench: SqlBench = request.getfixturevalue(f"{request.param}_bench")
    return bench


class Masked:
    """A service of two rows, the masks of which a test may change."""

    def __init__(self, bench: SqlBench) -> None:
        self.bench = bench
        bench.sql("source", TABLE)
        bench.sql("source", f"INSERT INTO {{table}} VALUES (1, 1, '{CLEAR[1]}', '{CLEAR[0]}', 'London')")
        bench.sql("source", f"INSERT INTO {{table}} VALUES (2, 1, '{CLEAR[1]}', '{CLEAR[0]}', 'Paris')")

    def service(self, mask: str = MASK, **settings: str) -> SyncService:
        values = {
            "SourceThingDb__ConnectionString": self.bench.connection_strings["source"],
            "SourceThingDb__Table": self.bench.table,
            "SourceThingDb__Version": "Version",
            "SourceThingDb__Mask": mask,
            "BackupThingDb__ConnectionString": self.bench.connection_strings["backup"],
            "BackupMask__Key": "a key of the masks that is long enough",
            **settings,
        }
        return Registry(load_settings(values)).get("thing")

    def sync(self, mask: str = MASK) -> Outcome:
        outcome = self.service(mask).sync(Trigger.CLI)
        assert outcome.error is None, outcome.error
        return outcome

    def source(self) -> list[tuple[object, ...]]:
        return self.bench.rows("source")

    def backup(self) -> str:
        """All that the backup's tables hold, as text."""
        tables = self.bench.quoted(), self.bench.quoted("RecycleBin"), self.bench.quoted("SyncHistory")
        return repr([self.bench.rows("backup", f"SELECT * FROM {table}") for table in tables])


@pytest.fixture
def masked(sides: SqlBench) -> Masked:
    return Masked(sides)


def test_no_clear_value_is_in_backup_bin_history_answers_or_log(
    masked: Masked, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    service = masked.service()
    service.initialize()
    outcomes = [masked.sync()]
    masked.bench.sql("source", "UPDATE {table} SET Version = 2, Town = 'Rome' WHERE Id = 1")
    outcomes.append(masked.sync())
    masked.bench.sql("source", "DELETE FROM {table} WHERE Id = 2")
    outcomes.append(masked.sync())
    outcomes.append(service.verify(Depth(full=True)))
    outcomes.append(service.verify(Depth(), drilled=True))
    outcomes.append(service.undo(outcomes[2].run.sync_id))
    outcomes.append(service.restore(RestoreSpec(without_masked=True, overwrite_newer=True)))
    for outcome in outcomes:
        assert outcome.error is None, outcome.error
    for clear in CLEAR:
        assert clear not in masked.backup()
        assert clear not in repr([shape_one(outcome) for outcome in outcomes])
        assert clear not in caplog.text
    assert [row[1:] for row in masked.source()] == [(2, CLEAR[1], CLEAR[0], "Rome")]


def test_no_clear_value_of_a_documents_depths_is_anywhere_and_a_drill_finds_nothing_to_say(
    cosmos_bench: CosmosBench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "backup")
    bench, clear = cosmos_bench, ("zq.mail@example.org", "zq street", "zq note", "zq tag", "zq deep")
    depths = {
        "who": {"mail": clear[0], "at": {"street": clear[1], "town": "Bonn"}},
        **{"notes": [{"text": clear[2]}], "tags": [clear[3]], "a": {"b": {"c": clear[4]}}},
    }
    bench.create()
    bench.put_documents("source", *({"id": f"{n}", "customer": {"id": "c"}, "n": n, **depths} for n in range(3)))
    mask = '{ "who.mail" = "email", "who.at.street" = "hmac", "notes.text" = "null", tags = "hmac", "a.b" = "hmac" }'
    file = (
        f"[set.shop]\nsource = '{bench.connection_strings['source']}'\ndatabase = '{bench.database}'\n"
        f"backup = '{bench.connection_strings['backup']}'\ncontainers = ['Things']\n"
        f"[set.shop.container.Things]\nmask = {mask}"
    )
    registry = Registry(
        load_settings({"BACKUP_TOML": file, "BackupMask__Key": "a key of the masks that is long enough"})
    )
    service = registry.get("shop/Things")
    outcomes = registry.sync("shop", Trigger.CLI)
    bench.put_documents("source", {"id": "0", "customer": {"id": "c"}, "n": 7, **depths})
    bench.container("source").delete_item("1", partition_key="c")
    outcomes += registry.sync("shop", Trigger.CLI, Options(allow_mass_delete=True))
    outcomes.append(service.verify(Depth(), drilled=True))
    assert [outcome.run.verified for outcome in outcomes] == [True] * 3
    [restored] = outcomes[-1].run.notes
    assert restored.startswith("Restored 2 records into a scratch place")
    outcomes.append(service.undo(outcomes[1].run.sync_id))
    containers = [bench.container("backup", name).read_all_items() for name in ("Things", *APP_CONTAINERS)]
    texts = caplog.text, repr([shape_one(outcome) for outcome in outcomes]), repr([*map(list, containers)])
    assert "'n': 1" in texts[2]  # the deleted one is back
    assert [value for value in clear for text in texts if value in text] == []


def test_masks_are_restored_into_no_source(masked: Masked) -> None:
    masked.service().initialize()
    masked.sync()
    masked.bench.sql("source", "UPDATE {table} SET Version = 2, Town = 'Rome', Name = 'Else' WHERE Id = 1")
    masked.bench.sql("source", "DELETE FROM {table} WHERE Id = 2")
    before = masked.source()
    service = masked.service()
    refused = service.restore(RestoreSpec(overwrite_newer=True))
    assert "masked values of" in str(refused.error)
    assert refused.error is not None
    assert "--without-masked" in refused.error.hint
    assert masked.source() == before

    preview = service.restore(RestoreSpec(overwrite_newer=True, without_masked=True), Options(dry_run=True))
    restored = service.restore(RestoreSpec(overwrite_newer=True, without_masked=True))
    for outcome in (preview, restored):
        assert outcome.error is None, outcome.error
        counts = outcome.run.counts
        assert (counts.inserted, counts.updated, counts.deleted, counts.skipped) == (0, 1, 0, 1)
    assert any("was not inserted" in note for note in restored.run.notes)
    assert not any("not as they were written" in note for note in restored.run.notes)
    assert masked.source() == [(1, 1, "Else", CLEAR[0], "London")]


def test_masks_that_begin_later_leave_no_clear_value_behind(masked: Masked) -> None:
    masked.service("").initialize()
    masked.sync("")
    masked.bench.sql("source", "UPDATE {table} SET Version = 2, Town = 'Rome' WHERE Id = 1")
    masked.sync("")
    assert CLEAR[0] in masked.backup()
    begun = masked.sync()
    assert begun.run.counts.updated == 2
    for clear in CLEAR:
        assert clear not in masked.backup()
    assert any("purged" in note for note in begun.run.notes)
    undone = masked.service().undo(begun.run.sync_id)
    assert undone.error is None, undone.error
    assert CLEAR[0] not in masked.backup()


def test_the_words_of_a_trigger_show_no_clear_value(
    postgresql_bench: SqlBench, caplog: pytest.LogCaptureFixture
) -> None:
    masked, bench = Masked(postgresql_bench), postgresql_bench
    masked.service().initialize()
    masked.sync()
    bench.sql("source", "UPDATE {table} SET Version = 2, Town = 'Rome'")
    raised = f"CREATE FUNCTION {bench.quoted('f')}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE"
    bench.sql("source", f"{raised} '%% stays', OLD.mail USING ERRCODE = '23514'; END $$")
    call = f"FOR EACH ROW EXECUTE FUNCTION {bench.quoted('f')}()"
    bench.sql("source", f"CREATE TRIGGER t BEFORE UPDATE ON {{table}} {call}")
    refused = masked.service().restore(RestoreSpec(without_masked=True, overwrite_newer=True))
    assert "the server refused it (23514)" in str(refused.error)
    for shown in (repr(shape_one(refused)), masked.backup(), caplog.text):
        assert CLEAR[0] not in shown


def test_a_sync_without_masks_that_did_not_reach_its_end_leaves_no_clear_image(masked: Masked) -> None:
    masked.service().initialize()
    masked.sync()
    for version in (2, 3):
        masked.bench.sql("source", f"UPDATE {{table}} SET Version = {version} WHERE Id = 1")
        partial = masked.service("").sync(Trigger.CLI, Options(limit=1))
        assert partial.run.counts.updated == 1
    assert CLEAR[0] in masked.backup()
    begun = masked.sync()
    assert CLEAR[0] not in masked.backup()
    assert any("purged" in note for note in begun.run.notes)
    # A sync that failed before it changed anything is no reason to purge.
    assert masked.service("", SourceThingDb__Table="Nowhere").sync(Trigger.CLI).error is not None
    assert not any("purged" in note for note in masked.sync().run.notes)


def test_masks_that_begin_between_two_slices_leave_no_clear_image(masked: Masked) -> None:
    masked.service("").initialize()
    masked.sync("")
    masked.bench.sql("source", "UPDATE {table} SET Version = 2, Town = 'Rome'")
    begun = masked.service("", BackupSync__ChunkSize="1").sync(Trigger.CLI, turn=Turn(0))
    assert begun.in_progress
    assert CLEAR[0] in masked.backup()
    outcome = masked.service(BackupSync__ChunkSize="1").resume(Trigger.TIMER)
    assert outcome is not None
    assert outcome.error is None, outcome.error
    assert CLEAR[0] not in masked.backup()
    assert "images of 0 of the" in str(masked.service().undo(outcome.run.sync_id).error)


def test_masks_that_change_between_two_slices_of_a_sync_reach_every_copy(masked: Masked) -> None:
    service = masked.service("Name=null", BackupSync__ChunkSize="1")
    service.initialize()
    begun = service.sync(Trigger.CLI, turn=Turn(0))
    assert begun.in_progress
    service = masked.service("Name=text:hidden", BackupSync__ChunkSize="1")
    outcome: Outcome | None = service.resume(Trigger.TIMER)
    assert outcome is not None
    assert outcome.error is None, outcome.error
    assert masked.bench.rows("backup", "SELECT Name FROM {table}") == [("hidden",), ("hidden",)]


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        ("Email", "write pairs"),
        ("Email=", "write pairs"),
        ("Email=email; Email=null", "names a column twice"),
        ("Email=mail", "a mask is null, hmac, email, year"),
        ("Email=text", "a mask is null, hmac, email, year"),
        ("Email=NULL", "a mask is null, hmac, email, year"),
    ],
)
def test_a_mask_that_does_not_exist_is_named_at_the_start(mask: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=f"SourceThingDb__Mask.*{reason}"):
        load_settings({"SourceThingDb__ConnectionString": "sqlite:///a", "SourceThingDb__Mask": mask})
