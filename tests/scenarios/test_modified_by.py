"""A source that says what was written lately is asked first. What it says is a hint: each run compares everything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backup.config.settings import load_settings
from backup.core.errors import ConfigError, RecordsSetAside, SchemaMismatch, TransientStoreError
from backup.core.model import utc_now
from backup.core.run_values import Counts, Run, Trigger
from backup.mirror.chunk import Settling
from backup.mirror.pair import StorePair
from backup.runs.outcome import Turn
from backup.services.registry import Registry
from backup.services.service import NO_OPTIONS, Options, SyncService
from backup.services.service_plans import plan_of
from backup.stores import Store
from backup.stores.sql.incremental import SqlIncremental
from backup.stores.sql.relational import SqlRelational
from backup.verbs.restore_spec import RestoreSpec
from tests.scenarios import places
from tests.scenarios.places import with_files
from tests.scenarios.shops import IN_FILES, Shop
from tests.scenarios.test_cost import counting

ROWS = 40
TABLE = """
CREATE TABLE "Item" ("Id" INTEGER PRIMARY KEY, "Name" VARCHAR(40), "UpdatedAt" TIMESTAMP);
CREATE INDEX "Lately" ON "Item" ("UpdatedAt");
CREATE TABLE "Plain" ("Id" INTEGER PRIMARY KEY)
"""
NAMED = 'modified_by = "updatedat"'  # case does not count
ITEM = "Item"
MASK_KEY = {"BackupMask__Key": "a key of the masks that is long enough"}


@pytest.fixture(params=["sqlite_shop", "postgres_shop"])
def shop(request: pytest.FixtureRequest) -> Shop:
    """A shop on each server, whose items know when they were written; nothing was copied yet."""
    unfilled: Shop = request.getfixturevalue(request.param)
    return filled(unfilled)


@pytest.fixture
def alone(sqlite_shop: Shop) -> Shop:
    return filled(sqlite_shop)


@pytest.fixture
def copied(sqlite_shop: Shop, tmp_path: Path) -> Shop:
    """Items in files alone, copied once."""
    with_files(tmp_path, "items that know when they were written", lambda: synced(filled(sqlite_shop)))
    return sqlite_shop


def filled(shop: Shop) -> Shop:
    shop.run(TABLE)
    values = ", ".join(f"({n}, 'item {n}', '2026-01-01 00:{n:02}:00')" for n in range(1, ROWS + 1))
    shop.run(f'INSERT INTO "Item" VALUES {values}')
    return shop


@pytest.fixture
def caught(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many records each run has written because the source named them; nothing of a run that did not ask."""
    counts: list[int] = []
    catch_up = Settling.catch_up

    def noted(settling: Settling, since: str) -> int:
        counts.append(catch_up(settling, since))
        return counts[-1]

    monkeypatch.setattr(Settling, "catch_up", noted)
    return counts


def registry(shop: Shop, *lines: str, **settings: str) -> Registry:
    section = f'[set.shop.table."{shop.prefix}Item"]'
    return Registry(load_settings({"BACKUP_TOML": shop.text(section, *(lines or (NAMED,))), **MASK_KEY, **settings}))


def service(shop: Shop, *lines: str, **settings: str) -> SyncService:
    return registry(shop, *lines, BackupSync__ChunkSize="10", **settings).get(shop.name(ITEM))


def synced(shop: Shop, *lines: str, options: Options = NO_OPTIONS, **settings: str) -> Run:
    outcome = service(shop, *lines, **settings).sync(Trigger.CLI, options)
    assert outcome.error is None, outcome.error
    assert outcome.run.verified
    mirrored(shop)
    return outcome.run


def mirrored(shop: Shop) -> None:
    columns = 'SELECT "Id", "Name", "UpdatedAt" FROM "Item"'
    assert shop.rows(f"({columns}) t") == shop.rows(f"({columns}) t", "source")


def change(shop: Shop, n: int, at: str | None) -> None:
    """Changes an item; its time too, unless there is none."""
    time = f', "UpdatedAt" = {at}' if at is not None else ""
    shop.run(f"""UPDATE "Item" SET "Name" = "Name" || '!'{time} WHERE "Id" = {n}""")


def test_what_the_source_names_is_copied_first_and_what_it_does_not_name_is_not_missed(
    shop: Shop, caught: list[int]
) -> None:
    first = synced(shop)
    assert (first.counts, caught) == (Counts(inserted=ROWS), [])
    assert (first.watermark or "").startswith("UpdatedAt 2026-01-01 00:40:00")

    change(shop, 3, "'2026-01-01 00:43:00'")
    shop.run("""INSERT INTO "Item" VALUES (90, 'new', '2026-01-01 00:43:00'), (91, 'late', '2026-01-01 00:36:00')""")
    run = synced(shop)  # the overlap has the transaction that began before the last run and ended after it
    assert (run.counts, caught) == (Counts(inserted=2, updated=1, skipped=ROWS - 1), [3])

    change(shop, 4, None)  # a program that forgets the time
    change(shop, 5, "NULL")
    change(shop, 6, "'2020-01-01 00:00:00'")  # a clock that was set back
    shop.run('DELETE FROM "Item" WHERE "Id" IN (7, 8)')
    run = synced(shop)
    assert (run.counts, caught) == (Counts(updated=3, deleted=2, skipped=ROWS - 3), [3, 0])
    assert synced(shop).counts == Counts(skipped=ROWS)


@IN_FILES
def test_a_column_that_nobody_writes_misses_nothing(shop: Shop, caught: list[int]) -> None:
    synced(shop)
    for night in range(3):
        change(shop, 10 + night, None)
        run = synced(shop, BackupSync__FullEveryDays="0")  # each run compares everything anyway
        assert run.counts == Counts(updated=1, skipped=ROWS - 1)
    assert caught == [0, 0, 0]


def test_a_time_in_the_future_does_not_hide_the_writes_of_the_present(shop: Shop, caught: list[int]) -> None:
    change(shop, 1, "'9999-12-31 23:59:59'")
    assert (synced(shop).watermark or "").startswith("UpdatedAt 2026-01-01 00:40:00")
    change(shop, 2, "'2026-01-01 00:41:00'")
    assert synced(shop).counts == Counts(updated=1, skipped=ROWS - 1)
    assert caught == [1]


def test_a_run_that_may_not_rely_on_the_last_one_does_not_ask(copied: Shop, caught: list[int]) -> None:
    change(copied, 1, "'2026-01-02 00:00:00'")
    for options in (Options(dry_run=True), Options(limit=0)):
        outcome = service(copied).sync(Trigger.CLI, options)
        assert outcome.error is None
        assert outcome.run.counts.updated == (1 if options.dry_run else 0)
    forced = synced(copied, options=Options(force=True))
    assert forced.counts == Counts(updated=ROWS)
    undone = service(copied).undo(forced.sync_id)
    assert undone.error is None
    assert copied.rows('"Item"') != copied.rows('"Item"', "source")
    assert synced(copied).counts == Counts(updated=1, skipped=ROWS - 1)  # the undo took it back, and nothing names it
    assert synced(copied, f"{NAMED}\nwhere = {{ Id = {{ to = 100 }} }}").counts == Counts(skipped=ROWS)
    assert caught == []
    synced(copied, f"{NAMED}\nwhere = {{ Id = {{ to = 100 }} }}")
    assert caught == [0]


def test_a_sync_that_goes_on_later_keeps_its_watermark_and_asks_once(copied: Shop, caught: list[int]) -> None:
    change(copied, 1, "'2026-01-02 00:00:00'")
    begun = service(copied).sync(Trigger.CLI, turn=Turn(0))
    assert begun.in_progress
    change(copied, 2, "'2026-01-03 00:00:00'")  # in a part that was passed
    ended = service(copied).resume(Trigger.CLI)
    assert ended is not None
    assert (ended.run.sync_id, ended.run.watermark) == (begun.run.sync_id, begun.run.watermark)
    assert (ended.run.counts, caught) == (Counts(updated=1, skipped=ROWS - 1), [1])
    assert synced(copied).counts == Counts(updated=1, skipped=ROWS - 1)
    assert caught == [1, 1]


def test_a_run_that_fails_leaves_the_watermark_where_it_was(alone: Shop, caught: list[int]) -> None:
    before = synced(alone).watermark
    change(alone, 1, "'2026-01-02 00:00:00'")
    with places.engine(alone.backup).begin() as cx:
        cx.exec_driver_sql("""CREATE TRIGGER "No" BEFORE UPDATE ON "Item" BEGIN SELECT RAISE(ABORT, 'no'); END""")
    outcome = service(alone).sync(Trigger.CLI)
    assert isinstance(outcome.error, RecordsSetAside)
    alone.run('DROP TRIGGER "No"', "backup")
    change(alone, 2, "'2026-01-03 00:00:00'")
    run = synced(alone)
    assert run.counts == Counts(updated=2, skipped=ROWS - 2)
    assert caught[-1] == 2  # both lie behind the watermark of the run that completed
    assert before != run.watermark


def test_a_column_of_times_and_numbers_is_of_no_use(alone: Shop) -> None:
    assert synced(alone, COUNTED).watermark
    assert is_counted(counted(alone))
    for number in (1, 2):  # what another program takes for a time: less than all that the column has
        change(alone, number, str(number))
        run = synced(alone, COUNTED)
        assert (run.counts.updated, run.watermark) == (1, None)
        assert [note for note in run.notes if "both times and numbers" in note]


def test_a_column_that_cannot_be_asked_is_told_of_and_everything_is_compared(alone: Shop, caught: list[int]) -> None:
    alone.run('ALTER TABLE "Item" ADD COLUMN "Size" REAL DEFAULT 1.5')
    alone.run('CREATE INDEX "Sizes" ON "Item" ("Size")')
    alone.run('CREATE INDEX "Some names" ON "Item" ("Name") WHERE "Id" > 3')
    cases = {
        'modified_by = "Changed"': "the source has no such column that is copied",
        f'{NAMED}\ncolumns = {{ exclude = ["UpdatedAt"] }}': "the source has no such column that is copied",
        f'{NAMED}\nmask = {{ UpdatedAt = "null" }}': "a mask or the transform may hide its values",
        f'{NAMED}\ntransform = [{{ drop = ["UpdatedAt"] }}]': "a mask or the transform may hide its values",
        'modified_by = "Name"': "no index of the source begins with it",
        'modified_by = "Size"': "it has neither times nor whole numbers",
        'modified_by = "Id"': None,
    }
    for lines, reason in cases.items():
        notes = [
            *service(alone, lines).sync(Trigger.CLI).run.notes,
            *service(alone, lines).sync(Trigger.CLI, Options(dry_run=True)).run.notes,
            *plan_of(registry(alone, lines), alone.name(ITEM)).services[0].notes,
        ]
        warnings = [note for note in notes if note.startswith("ModifiedBy names")]
        assert len(warnings) == (0 if reason is None else 3), (lines, notes)
        assert all(f"of no use: {reason}" in note for note in warnings), warnings
    assert caught == []
    plan = plan_of(registry(alone, "modified_by = 'Nothing'"), alone.name(ITEM)).services[0]
    assert plan.changes is not None


@IN_FILES
def test_masked_and_transformed_copies_of_what_the_source_names_are_copied_first(shop: Shop, caught: list[int]) -> None:
    rules = f"""{NAMED}
where = {{ Id = {{ to = 100 }} }}
mask = {{ Name = {{ text = "hidden" }} }}
transform = [{{ rename = {{ Name = "Title" }} }}]"""
    assert service(shop, rules).sync(Trigger.CLI).run.verified
    change(shop, 1, "'2026-01-02 00:00:00'")
    shop.run("""INSERT INTO "Item" VALUES (91, 'in', '2026-01-02 00:00:00'), (191, 'out', '2026-01-02 00:00:00')""")
    run = service(shop, rules).sync(Trigger.CLI).run
    assert (run.counts, caught) == (Counts(inserted=1, updated=1, skipped=ROWS - 1), [2])
    assert run.verified
    shop.run('UPDATE "Item" SET "Id" = 192 WHERE "Id" = 91')  # it leaves the filter
    assert service(shop, rules).sync(Trigger.CLI).run.counts == Counts(deleted=1, skipped=ROWS)
    assert shop.column('SELECT DISTINCT "Title" FROM "Item"') == ["hidden"]


def test_a_table_whose_rows_may_share_a_key_is_refused_before_anything_is_written(
    alone: Shop, caught: list[int]
) -> None:
    alone.run("""CREATE TABLE "Loose" ("N" INTEGER, "UpdatedAt" TIMESTAMP); CREATE INDEX "L" ON "Loose" ("UpdatedAt");
        INSERT INTO "Loose" VALUES (1, '2026-01-01'), (2, '2026-01-01')""")
    text = alone.text('[set.shop.table."Loose"]', NAMED, 'key = "N"')
    loose = Registry(load_settings({"BACKUP_TOML": text})).get("shop/Loose")
    run = loose.sync(Trigger.CLI).run
    assert run.verified
    assert [note for note in run.notes if "the table has no key of its own" in note]
    alone.run("""INSERT INTO "Loose" VALUES (2, '2026-01-02'), (3, '2026-01-02')""")
    before = alone.rows('"Loose"')
    assert isinstance(loose.sync(Trigger.CLI).error, SchemaMismatch)
    assert (alone.rows('"Loose"'), caught) == (before, [])


def test_a_key_that_is_spelled_anew_is_an_update_also_where_the_source_names_it(alone: Shop, caught: list[int]) -> None:
    alone.run("""CREATE TABLE "Code" ("Code" VARCHAR(9) COLLATE NOCASE PRIMARY KEY, "UpdatedAt" TIMESTAMP);
        CREATE INDEX "Codes" ON "Code" ("UpdatedAt"); INSERT INTO "Code" VALUES ('a', '2026-01-01'), ('b', NULL)""")
    codes = Registry(load_settings({"BACKUP_TOML": alone.text(NAMED)})).get("shop/Code")
    assert codes.sync(Trigger.CLI).run.verified
    alone.run("""UPDATE "Code" SET "Code" = 'A', "UpdatedAt" = '2026-01-02'""" + """ WHERE "Code" = 'a'""")
    run = codes.sync(Trigger.CLI).run
    assert (run.counts, caught, run.verified) == (Counts(updated=1, skipped=1), [1], True)


def test_a_column_named_for_a_whole_set_counts_where_a_table_has_it(alone: Shop, caught: list[int]) -> None:
    text = alone.text(NAMED)
    for _ in range(2):
        outcomes = Registry(load_settings({"BACKUP_TOML": text})).sync("shop", Trigger.CLI)
        assert [(outcome.error, outcome.run.notes) for outcome in outcomes] == [(None, ())] * 2
    # The second was settled by a look at all tables, and leaves the watermark that it found.
    change(alone, 1, "'2026-01-02 00:00:00'")
    Registry(load_settings({"BACKUP_TOML": text})).sync("shop", Trigger.CLI)
    assert caught == [1]


def test_a_source_that_fails_to_say_what_it_knows_is_compared_as_without_it(
    copied: Shop, caught: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    change(copied, 1, "'2026-01-02 00:00:00'")
    page = SqlIncremental._page

    def failing(*_: Any) -> Any:
        raise TransientStoreError("no answer")

    for name in ("_page", "_newest"):
        with monkeypatch.context() as patches:
            patches.setattr(SqlIncremental, name, failing)
            run = synced(copied)
        assert (run.watermark is None) == (name == "_newest")
        assert [note for note in run.notes if "no answer" in note] == [*run.notes]
        assert len(run.notes) == (name == "_newest")
    assert SqlIncremental._page is page
    assert caught == [0]


def as_a_server(table: SqlRelational, records: int, seconds: float) -> bool:
    """As a server would look at all at once. SQLite makes a list of these records in this process, and is not asked
    so."""
    return table._chunks.chunk_size.suffices_for(records) or table._chunks.chunk_size.spans(records, seconds)


def test_after_what_was_named_the_rest_is_compared_at_once_on_a_server(
    alone: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SqlRelational, "may_look_at_once", as_a_server)
    synced(alone)
    for n, at, fingerprints in ((33, "'2026-01-02 00:00:00'", 1), (12, None, 7)):
        change(alone, n, at)
        with counting(monkeypatch) as asked:
            assert synced(alone, BackupSync__Parallelism="1").counts.updated == 1
        assert asked["read the fingerprint"] == fingerprints
    change(alone, 33, "'2026-01-03 00:00:00'")
    with counting(monkeypatch) as asked:  # a dry run copies nothing first, so the rest would differ
        outcome = service(alone, BackupSync__Parallelism="1").sync(Trigger.CLI, Options(dry_run=True))
    assert outcome.run.counts.updated == 1
    assert asked["read the fingerprint"] == 5


def test_settings_name_the_column_of_a_table_and_none_of_a_container(alone: Shop, caught: list[int]) -> None:
    settings = {
        "SourceItemDb__ConnectionString": alone.source,
        "SourceItemDb__Table": "Item",
        "SourceItemDb__ModifiedBy": "UpdatedAt",
        "BackupItemDb__ConnectionString": alone.backup,
    }
    Registry(load_settings(settings)).get("item").initialize()
    for caught_up in ([], [1]):
        assert Registry(load_settings(settings)).get("item").sync(Trigger.CLI).error is None
        assert caught == caught_up
        change(alone, 1, "'2026-01-02 00:00:00'")
    account = "AccountEndpoint=https://127.0.0.1:1/;AccountKey=a2V5"
    settings |= {
        f"{side}ItemDb__{part}": "x" for side in ("Source", "Backup") for part in ("DatabaseName", "ContainerName")
    }
    settings |= {"SourceItemDb__ConnectionString": account, "BackupItemDb__ConnectionString": account}
    with (
        pytest.raises(ConfigError, match="SourceItemDb__ModifiedBy is for tables"),
        Registry(load_settings(settings)).get("item").stores(),
    ):
        pass
    for line in ('modified_by = "Day"', '[set.c.container."x"]\nmodified_by = "Day"'):
        text = f"[set.c]\nsource = '{account}'\nbackup = '{account}'\ndatabase = 'd'\ncontainers = ['*']\n{line}"
        with pytest.raises(ConfigError, match="modified_by: this is for tables"):
            _ = Registry(load_settings({"BACKUP_TOML": text})).directory.sets


def test_a_full_every_days_that_does_nothing_is_told(alone: Shop) -> None:
    def notes(*lines: str) -> list[str]:
        told = [*counted(alone, *lines).notes, *plan_of(registry(alone, *lines), alone.name(ITEM)).services[0].notes]
        return [note.split(":")[0] for note in told if "FullEveryDays" in note]

    assert notes("full_every_days = 7") == ["FullEveryDays is of no use"] * 2
    assert notes("full_every_days = 0") == notes("indexes = false") == notes(COUNTED) == []
    of_the_set = ("full_every_days = 7", 'modified_by = "UpdatedAt"')
    plain = Registry(load_settings({"BACKUP_TOML": alone.text(*of_the_set)})).get(alone.name("Plain"))
    assert plain.sync(Trigger.CLI).run.notes == ()  # the option is for the set's other tables


COUNTED = f"{NAMED}\nfull_every_days = 7"


def counted(shop: Shop, *lines: str, **settings: str) -> Run:
    """A run that compares everything once a week."""
    outcome = service(shop, *(lines or (COUNTED,)), **settings).sync(Trigger.CLI)
    assert outcome.error is None, outcome.error
    return outcome.run


def is_counted(run: Run) -> bool:
    """Whether the run has only counted both sides, and says so."""
    counted_notes = [note for note in run.notes if note.startswith("Both sides have")]
    is_so = run.proof is not None and run.proof.only_counts
    assert (bool(counted_notes), bool(run.verified)) == (is_so, not is_so)
    return is_so


def a_week_later(shop: Shop, compared_in: int = 2020) -> None:
    """As if the last full comparison had been long ago, or in a year that is still to come."""
    is_new, is_old = f" compared {utc_now():%Y}", f" compared {compared_in}"
    shop.run(f"""UPDATE "SyncHistory" SET "Watermark" = replace("Watermark", '{is_new}', '{is_old}')""", "backup")


def test_between_full_comparisons_what_the_source_names_is_copied_and_both_sides_are_counted(
    shop: Shop, caught: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not is_counted(counted(shop))
    with counting(monkeypatch) as asked:
        quiet = counted(shop)
    assert (is_counted(quiet), quiet.counts) == (True, Counts(skipped=ROWS))
    assert (asked["count"], asked["read the fingerprint"], asked["read the stamps"]) == (1, 0, 0)
    change(shop, 3, "'2026-01-01 00:43:00'")
    shop.run("""INSERT INTO "Item" VALUES (90, 'new', '2026-01-01 00:43:00')""")
    run = counted(shop)
    assert (is_counted(run), run.counts) == (True, Counts(inserted=1, updated=1, skipped=ROWS - 1))
    assert run.proof is not None
    assert (run.proof.source.records, run.proof.backup.records, caught) == (ROWS + 1, ROWS + 1, [0, 2])
    mirrored(shop)
    [entry] = service(shop, COUNTED).past.history(1)
    assert (entry.proof, entry.verified) == (run.proof, False)


def test_numbers_that_differ_lead_to_a_full_comparison_in_the_same_run(shop: Shop, caught: list[int]) -> None:
    counted(shop)
    changes = {
        'DELETE FROM "Item" WHERE "Id" = 7': Counts(deleted=1, skipped=ROWS - 1),
        """INSERT INTO "Item" VALUES (91, 'named', '2026-01-02'); DELETE FROM "Item" WHERE "Id" = 8""": Counts(
            inserted=1, deleted=1, skipped=ROWS - 2
        ),
        """UPDATE "Item" SET "Id" = 95, "UpdatedAt" = '2026-01-03' WHERE "Id" = 9""": Counts(
            inserted=1, deleted=1, skipped=ROWS - 2
        ),
        """INSERT INTO "Item" VALUES (96, 'not named', NULL)""": Counts(inserted=1, skipped=ROWS - 1),
    }
    for statements, counts in changes.items():
        shop.run(statements)
        run = counted(shop)
        assert (is_counted(run), run.counts) == (False, counts), statements
        mirrored(shop)
    assert caught == [0, 1, 0, 1, 0, 0]  # the source is asked again, for it might be written to
    a_week_later(shop)
    assert not is_counted(counted(shop))


@IN_FILES
def test_what_evens_out_and_what_the_column_does_not_name_is_found_by_the_next_full_comparison(shop: Shop) -> None:
    counted(shop)
    change(shop, 4, None)
    shop.run("""INSERT INTO "Item" VALUES (91, 'forgotten', NULL); DELETE FROM "Item" WHERE "Id" = 7""")
    for _ in range(2):
        assert is_counted(counted(shop))
    a_week_later(shop)
    run = counted(shop)
    assert (is_counted(run), run.counts) == (False, Counts(inserted=1, updated=1, deleted=1, skipped=ROWS - 2))
    mirrored(shop)


def test_a_run_that_may_not_count_compares_everything(alone: Shop) -> None:
    def counts_again() -> None:
        for is_so in (False, True):
            assert is_counted(counted(alone)) is is_so

    counts_again()
    for lines in (f"{COUNTED}\nwhere = {{ Id = {{ to = 99 }} }}", f'{COUNTED}\ncolumns = {{ exclude = ["Name"] }}'):
        assert not is_counted(counted(alone, lines))
        counts_again()  # the first after other rules is full, too
    for lines in (NAMED, f"{NAMED}\nfull_every_days = 0"):
        assert not is_counted(counted(alone, lines))
        assert is_counted(counted(alone))
    for options in (Options(force=True), Options(dry_run=True)):
        outcome = service(alone, COUNTED).sync(Trigger.CLI, options)
        assert options.dry_run or not is_counted(outcome.run)
        assert is_counted(counted(alone))
    newest = counted(alone)
    assert service(alone, COUNTED).undo(newest.sync_id).error is None
    counts_again()
    a_week_later(alone, compared_in=2099)  # by a clock that jumped ahead for a run
    counts_again()


@pytest.mark.parametrize("verb", ["an undo that died", "a restore"])
def test_after_old_values_came_back_everything_is_compared(alone: Shop, verb: str) -> None:
    counted(alone)
    change(alone, 1, "'2026-01-01 00:55:00'")
    change(alone, 2, "'2026-01-01 01:00:00'")
    newest = counted(alone)
    spec = RestoreSpec(keys=("1",), run=newest.sync_id, overwrite_newer=True)
    ours = service(alone, COUNTED)
    outcome = ours.restore(spec) if verb == "a restore" else ours.undo(newest.sync_id)
    assert (outcome.error, outcome.run.counts.updated) == (None, 1 if verb == "a restore" else 2)
    if verb == "an undo that died":
        died = """UPDATE "SyncHistory" SET "Status" = 'InProgress', "CompletedAt" = NULL, "Owner" = NULL WHERE """
        alone.run(f"""{died} "SyncId" = '{outcome.run.sync_id}'""", "backup")
    run = counted(alone, BackupSync__OverlapSeconds="0")  # with its old time, the column does not name what came back
    assert not is_counted(run)
    mirrored(alone)


def test_what_the_source_names_in_part_or_no_more_leads_to_a_full_comparison(alone: Shop) -> None:
    counted(alone)
    alone.run("""UPDATE "Item" SET "Name" = 'many', "UpdatedAt" = '2026-01-02 00:00:' || "Id" WHERE "Id" > 20""")
    run = counted(alone)
    assert (is_counted(run), run.counts.updated) == (False, 20)  # twice as many as a chunk has
    mirrored(alone)
    assert is_counted(counted(alone, BackupSync__OverlapSeconds="0"))
    for lower in ("'2025-01-01'", "20990101"):  # a state that was restored; numbers, which are less than all times
        alone.run(f"""UPDATE "Item" SET "Name" = "Name" || '!', "UpdatedAt" = {lower}""")
        run = counted(alone)
        assert (is_counted(run), run.counts.updated) == (False, ROWS)
        mirrored(alone)


def test_after_a_run_that_failed_everything_is_compared(alone: Shop) -> None:
    counted(alone)
    with places.engine(alone.backup).begin() as cx:
        cx.exec_driver_sql("""CREATE TRIGGER "No" BEFORE UPDATE ON "Item" BEGIN SELECT RAISE(ABORT, 'no'); END""")
    change(alone, 1, "'2026-01-02 00:00:00'")
    assert isinstance(service(alone, COUNTED).sync(Trigger.CLI).error, RecordsSetAside)
    alone.run('DROP TRIGGER "No"', "backup")
    assert not is_counted(counted(alone))
    assert is_counted(counted(alone))


def test_what_changes_again_after_the_source_was_asked_for_all_is_copied_and_proven(
    postgres_shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop, begun, seen = filled(postgres_shop), StorePair.begun, list[bool]()
    synced(shop)
    change(shop, 3, "'2026-01-01 00:43:00'")

    def ask_and_change(pair: StorePair, ask: Callable[[Store], Any]) -> Callable[[], Any]:
        of_source = begun(pair, ask)()
        item = """(SELECT "Name" FROM "Item" WHERE "Id" = 3) t"""
        seen.append(shop.rows(item) == shop.rows(item, "source"))
        change(shop, 3, "'2026-01-01 00:44:00'")
        return lambda: of_source

    monkeypatch.setattr(StorePair, "begun", ask_and_change)
    assert synced(shop).counts == Counts(updated=1, skipped=ROWS - 1)
    assert seen == [False]  # it was asked while the backup was still as before
