"""A restore while others write to its place: what is newer stays, what is replaced is kept, what did not come to be is
told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from backup.config.settings import load_settings
from backup.core.errors import LockLost, TransientStoreError
from backup.core.model import CheckLock, Image, Key
from backup.core.retry import Retry
from backup.core.run_values import Trigger
from backup.recycle_bin.bin import RecycleBin
from backup.services import registry
from backup.services.registry import Registry
from backup.stores.cosmos.conditional import ConditionalWrites
from backup.stores.sql.access import SqlAccess
from backup.stores.sql.batch import SqlBatch
from backup.stores.sql.engines.sqlite.dialect import SqliteDialect
from backup.stores.sql.reads import SqlReads
from backup.stores.sql.relational import SqlRelational
from backup.stores.sql.relay import SqlRelay
from backup.stores.sql.writes import SqlWrites
from tests.emulators.clients import cosmos_client
from tests.emulators.servers import lent_database
from tests.scenarios import places
from tests.scenarios.inside import command, counted, done, few_orders, named, refused, revised, synced
from tests.scenarios.places import Cosmos, Place, Service, Sql

Rows = dict[int, tuple[Any, ...]]


class Things:
    """A table of a service's source, and its backup; both made and read past the product."""

    def __init__(self, source: Sql, backup: Sql, folder: Path, name: str = "customer") -> None:
        self.source, self.backup, self.folder, self.name = source, backup, folder, name
        service = Service(name, source, backup)
        self.place = Place(service, service)

    def make(self, columns: str, *rows: str) -> Things:
        def make() -> None:
            self.source.run(f"CREATE TABLE {{table}} ({columns})")
            self.put(*rows)
            self.place.initialize()
            synced(self.place, self.name)

        if self.source.url == f"sqlite:///{self.folder}/source.db" and not any(self.folder.glob("*.db")):
            places.with_files(self.folder, f"{self.name} {columns}: {rows}", make)
        else:
            make()
        return self

    def put(self, *rows: str) -> None:
        self.source.run(f"INSERT INTO {{table}} VALUES {', '.join(f'({row})' for row in rows)}")

    def run(self, *statements: str) -> None:
        for statement in statements:
            self.source.run(statement)

    def sync(self) -> None:
        synced(self.place, self.name)

    def restore(self, *options: str, **settings: str) -> Any:
        given = {**self.place.settings, **settings}
        return command(self.folder, given, "restore", self.name, *options, "--yes", "--json")

    def rows(self, side: str = "source") -> Rows:
        place: Sql = getattr(self, side)
        schema, _, name = place.table.rpartition(".")
        with places.engine(place.url).connect() as cx:
            query = sa.select(sa.text("*")).select_from(sa.table(name, schema=schema or None))
            return {row[0]: tuple(row[1:]) for row in cx.execute(query)}

    def kept(self, sync_id: str) -> list[tuple[Key, Any]]:
        """The images of a run, by key; their records without names."""
        with Registry(load_settings(self.place.settings)).get(self.name).stores() as (_, backup):
            images = [image for page in RecycleBin(backup, self.name).of_run(sync_id) for image in page]
        return sorted((image.key, tuple((image.record or {}).values())) for image in images)


@pytest.fixture(params=["sqlite", "postgresql"])
def things(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Things]:
    if request.param == "sqlite":
        source, backup = (Sql(f"sqlite:///{tmp_path / name}.db", "things") for name in ("source", "backup"))
        yield Things(source, backup, tmp_path)
        return
    with lent_database(request.getfixturevalue("postgres")) as url:
        yield Things(Sql(url, "things"), Sql(url, "kept.things"), tmp_path)


IN_FILES = pytest.mark.parametrize("things", ["sqlite"], indirect=True)
"""For what is no matter of the engine."""
VERSIONED = "id INTEGER PRIMARY KEY, version INTEGER, a INTEGER"


def once(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, before: Callable[[], None]) -> None:
    """Has something done before the first call of a method."""
    original = getattr(owner, name)

    def called(*args: Any, **options: Any) -> Any:
        monkeypatch.setattr(owner, name, original)
        before()
        return original(*args, **options)

    monkeypatch.setattr(owner, name, called)


# --- what the application commits meanwhile ---------------------------------------------------------------------------


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_committed_between_comparison_and_write_stays_or_is_kept(
    things: Things, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    things.make(VERSIONED, "1, 5, 10", "2, 5, 20", "3, 5, 30")
    things.run("UPDATE {table} SET version = 4, a = 11 WHERE id = 1", "DELETE FROM {table} WHERE id = 2")

    def application() -> None:
        things.run("UPDATE {table} SET version = 9, a = 99 WHERE id = 1")
        things.put("2, 7, 77")

    once(monkeypatch, SqlWrites, "write", application)
    restored = done(things.restore(*["--overwrite-newer"] * overwrite))
    if overwrite:
        assert counted(restored) == (0, 2, 0, 1)
        assert things.rows() == {1: (5, 10), 2: (5, 20), 3: (5, 30)}
        assert things.kept(restored["SyncId"]) == [((1,), (1, 9, 99)), ((2,), (2, 7, 77))]
    else:
        assert (counted(restored), named(restored)) == ((0, 0, 0, 3), {1: "Newer", 2: "Newer"})
        assert things.rows() == {1: (9, 99), 2: (7, 77), 3: (5, 30)}
        assert things.kept(restored["SyncId"]) == []


def test_nobody_else_changes_a_record_between_the_decision_and_the_write(
    things: Things, monkeypatch: pytest.MonkeyPatch
) -> None:
    things.make(VERSIONED, "1, 5, 10")
    things.run("UPDATE {table} SET version = 4 WHERE id = 1")
    refusals = []
    stamped = SqlBatch._stamped

    def decided(batch: SqlBatch, images: Any) -> list[Image]:
        sqlite = things.source.url.startswith("sqlite")
        impatient: dict[str, Any] = {"timeout": 0} if sqlite else {"options": "-c lock_timeout=20"}
        engine = sa.create_engine(things.source.url, poolclass=sa.NullPool, connect_args=impatient)
        with engine.connect() as cx, pytest.raises(sa.exc.OperationalError) as refusal:
            cx.exec_driver_sql("UPDATE things SET version = 9 WHERE id = 1")
        refusals.append(refusal)
        return stamped(batch, images)

    monkeypatch.setattr(SqlBatch, "_stamped", decided)
    assert counted(done(things.restore())) == (0, 1, 0, 0)
    assert (len(refusals), things.rows()) == (1, {1: (5, 10)})


@pytest.mark.parametrize("things", ["postgresql"], indirect=True)  # a file of SQLite has one writer at a time
@pytest.mark.parametrize(("by", "left"), [("insert_rows", 1), ("relay", 0)])
def test_a_record_that_appears_while_it_is_inserted_stays(
    things: Things, monkeypatch: pytest.MonkeyPatch, by: str, left: int
) -> None:
    things.make(VERSIONED, "1, 5, 10", "2, 5, 20", "3, 5, 30")
    things.run("DELETE FROM {table}" + " WHERE id < 3" * left)
    # After the look at what is there, before the insert.
    once(monkeypatch, type(_dialect(things)), by, lambda: things.put("2, 7, 77"))
    restored = done(things.restore())
    assert (counted(restored), named(restored)) == ((2 - left, 0, 0, 1 + left), {2: "Newer"})
    assert things.rows() == {1: (5, 10), 2: (7, 77), 3: (5, 30)}


def test_what_is_changed_before_its_delete_is_looked_at_again(things: Things, monkeypatch: pytest.MonkeyPatch) -> None:
    things.make(VERSIONED, *(f"{n}, 5, {n}" for n in range(1, 21)))
    things.put("31, 1, 1", "32, 1, 2")
    once(monkeypatch, SqlWrites, "delete", lambda: things.run("UPDATE {table} SET version = 2 WHERE id = 32"))
    restored = done(things.restore("--delete-extra"))
    assert (counted(restored), named(restored)) == ((0, 0, 1, 21), {32: "Newer"})
    assert {31, 32} & things.rows().keys() == {32}
    assert things.kept(restored["SyncId"]) == [((31,), (31, 1, 1))]


def lose_lock_at(monkeypatch: pytest.MonkeyPatch, owner: type, method: str) -> None:
    """A run has lost its lock as it calls this method for the first time."""
    original, is_lost = getattr(owner, method), False

    def lose(*args: Any, **options: Any) -> Any:
        nonlocal is_lost
        is_lost = True
        return original(*args, **options)

    @contextmanager
    def lock(_service: str, _backup: str) -> Iterator[CheckLock]:
        def check() -> None:
            if is_lost:
                raise LockLost

        yield check

    monkeypatch.setattr(owner, method, lose)
    monkeypatch.setattr(registry, "open_lock", lambda *_: lock)


LAST_STEPS = {"write": (SqlWrites, "write"), "delete": (SqlWrites, "delete"), "relay": (SqlRelay, "_transaction")}


@pytest.mark.parametrize(
    ("things", "step"), [*(("sqlite", step) for step in LAST_STEPS), ("postgresql", "relay")], indirect=["things"]
)
def test_a_restore_that_lost_its_lock_stops_before_its_next_batch(
    things: Things, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    things.make(VERSIONED, *(f"{n}, 5, {n}" for n in range(1, 10)))
    if step == "delete":
        things.put(*(f"{n}, 1, {n}" for n in range(21, 27)))
    else:
        things.run("DELETE FROM {table}" + " WHERE id > 3" * (step == "write"))
    before = things.rows()
    lose_lock_at(monkeypatch, *LAST_STEPS[step])
    restored = things.restore("--delete-extra", BackupSync__BatchSize="2")
    assert refused(restored)[0] == "LockLost"
    assert abs(len(things.rows()) - len(before)) == 2


def test_a_try_that_was_rolled_back_keeps_what_the_next_one_replaces(
    things: Things, monkeypatch: pytest.MonkeyPatch
) -> None:
    things.make(VERSIONED, "1, 5, 10")
    things.run("UPDATE {table} SET version = 3, a = 3 WHERE id = 1")
    write, tries = SqlBatch.write, []

    def interrupted(batch: SqlBatch, *args: Any, **options: Any) -> Any:
        written = write(batch, *args, **options)
        tries.append(written)
        if len(tries) == 1:
            raise sa.exc.DBAPIError.instance("", (), _lost(things), Exception)
        return written

    monkeypatch.setattr(SqlBatch, "write", interrupted)
    monkeypatch.setattr(Retry, "_report", lambda *_: things.run("UPDATE {table} SET version = 4, a = 4"))
    monkeypatch.setattr(Retry, "_wait", lambda *_: 0)
    restored = done(things.restore())
    assert (len(tries), things.rows()) == (2, {1: (5, 10)})
    assert ((1,), (1, 4, 4)) in things.kept(restored["SyncId"])


def test_a_write_whose_answer_was_lost_is_counted_and_kept_once(
    things: Things, monkeypatch: pytest.MonkeyPatch
) -> None:
    things.make(VERSIONED, "1, 5, 10", "2, 5, 20", "3, 5, 30")
    things.run("UPDATE {table} SET version = 4, a = 11 WHERE id = 1", "DELETE FROM {table} WHERE id = 2")
    once, tries = SqlAccess.once, []

    @contextmanager
    def unheard(access: SqlAccess, operation: str, **how: Any) -> Iterator[sa.Connection]:
        with once(access, operation, **how) as cx:
            yield cx
        if operation == "write records":
            tries.append(operation)
            if len(tries) == 1:
                raise TransientStoreError("lost")

    monkeypatch.setattr(SqlAccess, "once", unheard)
    monkeypatch.setattr(Retry, "_wait", lambda *_: 0)
    restored = done(things.restore())
    assert (len(tries), counted(restored)) == (2, (1, 1, 0, 1))
    assert things.rows() == {1: (5, 10), 2: (5, 20), 3: (5, 30)}
    assert things.kept(restored["SyncId"]) == [((1,), (1, 4, 11))]


def test_source_and_backup_may_lie_in_one_file(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'both.db'}"
    things = Things(Sql(url, "things"), Sql(url, "kept"), tmp_path).make(VERSIONED, "1, 5, 10", "2, 5, 20")
    things.run("UPDATE {table} SET version = 4 WHERE id = 1", "DELETE FROM {table} WHERE id = 2")
    restored = done(things.restore())
    assert (counted(restored), things.rows()) == ((1, 1, 0, 0), {1: (5, 10), 2: (5, 20)})
    assert things.kept(restored["SyncId"]) == [((1,), (1, 4, 10))]


# --- what is none of the service's ------------------------------------------------------------------------------------


ORDERS = "Id INTEGER PRIMARY KEY, LastModified INTEGER, Status INTEGER, Type VARCHAR(20)"


@pytest.fixture
def orders(things: Things) -> Things:
    """Orders in a table whose rows may be something else."""
    without_rows = Things(things.source, things.backup, things.folder, "order")
    return without_rows.make(ORDERS.replace("INTEGER,", "INTEGER,"), "1, 1, 1, 'Order'", "2, 1, 1, 'Order'")


@IN_FILES
def test_a_record_that_has_left_the_service_is_newer(orders: Things) -> None:
    orders.run("UPDATE {table} SET Type = 'Quote', Status = 7 WHERE Id = 1")
    for options in ((), ("--key", "1"), ("--dry-run",)):
        restored = done(orders.restore(*options))
        assert (counted(restored)[:3], named(restored)) == ((0, 0, 0), {1: "Newer"}), options
        assert orders.rows()[1] == (1, 7, "Quote")


@IN_FILES
def test_a_record_that_has_left_the_service_is_overwritten_when_asked(orders: Things) -> None:
    orders.run("UPDATE {table} SET Type = 'Quote' WHERE Id = 1")
    assert counted(done(orders.restore("--overwrite-newer", "--dry-run"))) == (0, 1, 0, 1)
    restored = done(orders.restore("--overwrite-newer"))
    assert (counted(restored), orders.rows()[1]) == ((0, 1, 0, 1), (1, 1, "Order"))
    assert orders.kept(restored["SyncId"]) == [((1,), (1, 1, 1, "Quote"))]


# --- what was written is looked up ------------------------------------------------------------------------------------


def trigger(things: Things, effect: str, only: str | None = None) -> None:
    """Has the table swallow all writes (`NULL`), refuse inserts (`refusal`), or give `a` another value. `only`: of the
    new rows that fulfil this condition on their id."""
    events = ("INSERT", "UPDATE", "DELETE") if effect == "NULL" and only is None else ("INSERT", "UPDATE")
    which = f"WHEN (NEW.{only})" if only else ""
    if things.source.url.startswith("sqlite"):
        raised = {"NULL": "SELECT RAISE(IGNORE)", "refusal": "SELECT RAISE(ABORT, 'not this one')"}
        body = raised.get(effect, f"UPDATE things SET a = {effect} WHERE id = NEW.id")
        when = "BEFORE" if effect in raised else "AFTER"
        things.run(
            *(f"CREATE TRIGGER odd{event} {when} {event} ON {{table}} {which} BEGIN {body}; END" for event in events)
        )
        return
    raised = {"NULL": "RETURN NULL", "refusal": "RAISE 'not this one'"}
    body = raised.get(effect, f"NEW.a := {effect}; RETURN NEW")
    things.run(
        f"CREATE FUNCTION odd() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body}; END $$",
        f"CREATE TRIGGER odd BEFORE {' OR '.join(events)} ON {{table}} FOR EACH ROW {which} EXECUTE FUNCTION odd()",
    )


def test_writes_without_effect_are_not_counted_and_fail_the_restore(things: Things) -> None:
    things.make(VERSIONED, *(f"{n}, 5, {n}" for n in range(1, 31)))
    things.run("DELETE FROM {table} WHERE id = 1", "UPDATE {table} SET version = 4 WHERE id = 2")
    things.put("41, 1, 1")
    before = things.rows()
    trigger(things, "NULL")
    ended = things.restore("--delete-extra")
    error, message = refused(ended)
    assert (error, counted(ended.json)) == ("StoreError", (0, 0, 0, 28))
    assert ": 1, 2, 41." in message
    assert things.rows() == before


@pytest.mark.parametrize(
    ("things", "effect"),
    [
        *(("sqlite", effect) for effect in (None, "-1", "NULL", "refusal")),
        *(("postgresql", effect) for effect in ("-1", "NULL", "refusal")),
    ],
    indirect=["things"],
)
def test_into_an_empty_place_the_servers_restore_and_the_result_is_looked_at(
    things: Things, monkeypatch: pytest.MonkeyPatch, effect: str | None
) -> None:
    things.make(VERSIONED, *(f"{n}, 5, {n}" for n in range(1, 10)))
    before = things.rows()
    things.run("DELETE FROM {table}")
    if effect is None:
        monkeypatch.setattr(SqlReads, "read", None)
        monkeypatch.setattr(SqlReads, "images", None)
    else:
        trigger(things, effect, only="id IN (6, 7)")
    ended = things.restore(BackupSync__BatchSize="2")
    restored = ended.json
    by_batches = [note for note in restored["Notes"] if "by themselves" in note]
    if effect in (None, "-1"):
        assert (ended.code, counted(restored)) == (0, (9, 0, 0, 0))
        altered = {6: (5, -1), 7: (5, -1)} if effect else {}
        assert things.rows() == before | altered
        assert (
            len([note for note in restored["Notes"] if "as they were written" in note and ": 6, 7." in note])
            == len(altered) // 2
        )
    else:
        error, message = refused(ended)
        assert (error, counted(restored)) == ("StoreError" if effect == "NULL" else "RecordsSetAside", (7, 0, 0, 0))
        assert things.rows().keys() == before.keys() - {6, 7}
        assert "6" in message
    assert len(by_batches) == (effect == "refusal")


@IN_FILES
def test_servers_that_do_not_reach_each_other_are_not_asked_for_the_fingerprint_of_a_content(
    things: Things, monkeypatch: pytest.MonkeyPatch
) -> None:
    things.make(VERSIONED, "1, 5, 1", "2, 5, 2", "3, 5, 3")
    things.run("DELETE FROM {table}")
    monkeypatch.setattr(SqliteDialect, "reaches", lambda *_: False)
    monkeypatch.setattr(SqlRelational, "content_fingerprint", None)
    assert counted(done(things.restore())) == (3, 0, 0, 0)


def test_writes_that_the_server_alters_are_noted(things: Things) -> None:
    things.make(VERSIONED, "1, 5, 1", "2, 5, 2", "3, 5, 3")
    things.run("DELETE FROM {table} WHERE id = 1", "UPDATE {table} SET version = 4 WHERE id = 2")
    trigger(things, "-1")
    restored = done(things.restore())
    assert counted(restored) == (1, 1, 0, 1)
    assert [note for note in restored["Notes"] if ": 1, 2." in note]


def _dialect(things: Things) -> Any:
    with things.place.registry.get(things.name).stores() as (source, _):
        return source.access.dialect  # type: ignore[attr-defined]


def _lost(things: Things) -> Any:
    """What the driver raises when a connection is lost."""
    error: Any = _dialect(things).engine.dialect.loaded_dbapi.OperationalError("lost")
    if things.source.url.startswith("sqlite"):
        error.sqlite_errorcode = 5
    return error


# --- what refers to records -------------------------------------------------------------------------------------------


def test_what_rows_of_another_table_refer_to_is_not_deleted(things: Things) -> None:
    things.make(VERSIONED, *(f"{n}, 5, {n}" for n in range(1, 31)))
    things.put("41, 1, 1", "42, 1, 2", "43, 1, 3", "44, 1, 4", "45, 1, 5")
    actions = ("CASCADE", "SET NULL", "SET DEFAULT", "NO ACTION")
    for number, action in enumerate(actions):
        things.run(
            f"CREATE TABLE children{number} (id INTEGER PRIMARY KEY, thing INTEGER DEFAULT 45"
            f" REFERENCES {{table}} (id) ON DELETE {action})",
            f"INSERT INTO children{number} VALUES (1, {41 + number}), (2, {41 + number}), (3, 7), (4, NULL)",
        )
    for number, action in enumerate(actions):
        error, message = refused(things.restore("--delete-extra", "--allow-mass-delete"))
        assert error == "GuardTripped"
        assert all(f"ON DELETE {left}" in message for left in actions[number:]), action
        assert message.count("2 rows of ") == len(actions) - number
        assert things.rows().keys() >= set(range(41, 46))
        things.run(f"DELETE FROM children{number} WHERE id < 3")
    assert counted(done(things.restore("--delete-extra", "--allow-mass-delete")))[2] == 5
    assert things.rows().keys() == set(range(1, 31))


def test_a_delete_that_would_cascade_in_the_backup_is_not_made(things: Things) -> None:
    things.make(VERSIONED, *(f"{n}, 5, {n}" for n in range(1, 31)))
    things.backup.run(
        "CREATE TABLE reports (id INTEGER PRIMARY KEY, thing INTEGER REFERENCES {table} (id) ON DELETE CASCADE)"
    )
    things.backup.run("INSERT INTO reports VALUES (1, 3)")
    things.run("DELETE FROM {table} WHERE id IN (3, 4)")
    [outcome] = things.place.registry.sync("customer", Trigger.CLI)
    assert outcome.error is not None
    assert things.rows("backup").keys() == set(range(1, 31)) - {4}
    assert [key for key, reason in outcome.run.failures if "reports" in reason] == ["[3]"]


# --- what is in each other's way --------------------------------------------------------------------------------------

UNIQUE = "id INTEGER PRIMARY KEY, version INTEGER, a INTEGER NOT NULL UNIQUE"
EXCLUDED = "id INTEGER PRIMARY KEY, version INTEGER, a INTEGER NOT NULL, EXCLUDE USING btree (a WITH =)"


@pytest.mark.parametrize(
    ("things", "columns"),
    [("sqlite", UNIQUE), ("postgresql", EXCLUDED), ("postgresql", UNIQUE.replace(" NOT NULL", ""))],
    indirect=["things"],
    ids=["sqlite", "postgresql, excluded", "postgresql, null"],
)
def test_unique_values_that_records_exchanged_are_given_back(things: Things, columns: str) -> None:
    batches = {"BackupSync__BatchSize": "2"}
    things.make(columns, *(f"{n}, 5, {n}" for n in range(1, 8)))
    things.run(
        "UPDATE {table} SET version = 4, a = -a WHERE id IN (1, 3, 5, 6)",  # 1 → 5, 5 → 3, 3 → 1; 6 takes what 7 had
        "DELETE FROM {table} WHERE id = 7",
        "UPDATE {table} SET a = 7 WHERE id = 6",
        "UPDATE {table} SET a = 5 WHERE id = 1",
        "UPDATE {table} SET a = 3 WHERE id = 5",
        "UPDATE {table} SET a = 1 WHERE id = 3",
    )
    restored = done(things.restore(**batches))
    assert counted(restored) == (1, 4, 0, 2)
    assert things.rows() == {n: (5, n) for n in range(1, 8)}
    assert len(things.kept(restored["SyncId"])) == 4


def test_what_still_cannot_be_written_is_named_with_its_constraint(things: Things) -> None:
    things.make(UNIQUE, "1, 5, 1", "2, 5, 2", "3, 5, 3")
    things.run(
        "UPDATE {table} SET version = 4, a = -a WHERE id < 3",
        "UPDATE {table} SET a = 2 WHERE id = 1",
        "UPDATE {table} SET a = 1 WHERE id = 2",
        "DELETE FROM {table} WHERE id = 3",
    )
    things.put("9, 1, 3")  # has what 3 had, and stays
    ended = things.restore()
    error, message = refused(ended)
    assert (error, counted(ended.json)) == ("RecordsSetAside", (0, 2, 0, 0))
    assert "[3]" in message
    assert "unique" in message.lower()
    assert things.rows() == {1: (5, 1), 2: (5, 2), 9: (1, 3)}
    assert counted(done(things.restore("--delete-extra"))) == (1, 0, 1, 2)
    assert things.rows() == {n: (5, n) for n in range(1, 4)}


def test_records_that_refer_to_each_other_come_and_go_whatever_the_batches(things: Things) -> None:
    batches = {"BackupSync__BatchSize": "2"}
    things.make(
        "id INTEGER PRIMARY KEY, version INTEGER, parent INTEGER REFERENCES things (id)",
        *("30, 5, NULL", "1, 5, 30", "2, 5, 1", "3, 5, 2", "4, 5, 30", *(f"{n}, 5, NULL" for n in range(5, 21))),
    )
    before = things.rows()
    things.run("UPDATE {table} SET parent = NULL", "DELETE FROM {table} WHERE id IN (30, 1, 2, 3, 4)")
    assert counted(done(things.restore("--overwrite-newer", **batches)))[0] == 5
    assert things.rows() == before
    things.put("41, 1, NULL", "42, 1, 41", "43, 1, 42", "44, 1, 43", "45, 1, 44")
    assert counted(done(things.restore("--delete-extra", "--allow-mass-delete", **batches)))[2] == 5
    assert things.rows() == before


def test_a_backup_with_a_unique_index_of_its_own_follows_exchanges_and_is_undone(things: Things) -> None:
    things.make(VERSIONED, *(f"{n}, 5, {n}" for n in range(1, 21)))
    things.backup.run("CREATE UNIQUE INDEX one_each ON {table} (a)")
    before = things.rows("backup")
    things.run(
        "DELETE FROM {table} WHERE id = 20",
        "UPDATE {table} SET version = 6, a = CASE id WHEN 4 THEN 20 WHEN 3 THEN 1 ELSE id + 1 END WHERE id < 5",
    )
    run = synced(things.place, "customer", BackupSync__BatchSize="2")
    assert (run.counts.updated, run.counts.deleted, run.counts.failed) == (4, 1, 0)
    assert {n: row[:2] for n, row in things.rows("backup").items()} == things.rows()
    undone = done(command(things.folder, things.place.settings, "undo", run.sync_id, "--yes", "--json"))
    assert counted(undone) == (1, 4, 0, 0)
    assert {n: row[:2] for n, row in things.rows("backup").items()} == {n: row[:2] for n, row in before.items()}


# --- what numbers new rows --------------------------------------------------------------------------------------------

NUMBERED = {
    "autoincrement": "id INTEGER PRIMARY KEY AUTOINCREMENT, version INTEGER, a INTEGER",
    "serial": "id SERIAL PRIMARY KEY, version INTEGER, a INTEGER",
    "default": "id INTEGER DEFAULT nextval('numbers') PRIMARY KEY, version INTEGER, a INTEGER",
    "identity": "id INTEGER GENERATED ALWAYS AS IDENTITY (INCREMENT -1) PRIMARY KEY, version INTEGER, a INTEGER",
}


@pytest.mark.parametrize(
    ("things", "kind"),
    [("sqlite" if kind == "autoincrement" else "postgresql", kind) for kind in NUMBERED],
    indirect=["things"],
)
def test_new_rows_of_a_restored_place_are_numbered_past_the_old_ones(things: Things, kind: str) -> None:
    if kind == "default":
        things.run("CREATE SEQUENCE numbers")
    things.source.run(f"CREATE TABLE {{table}} ({NUMBERED[kind]})")
    things.run(*["INSERT INTO {table} (version, a) VALUES (1, 1)"] * 5)
    things.place.initialize()
    things.sync()
    # As after a loss: the table is made anew, and numbers from the start.
    things.run("DROP TABLE {table}", *(["DROP SEQUENCE numbers", "CREATE SEQUENCE numbers"] * (kind == "default")))
    things.source.run(f"CREATE TABLE {{table}} ({NUMBERED[kind]})")
    restored = done(things.restore())
    assert counted(restored) == (5, 0, 0, 0)
    assert kind == "autoincrement" or [note for note in restored["Notes"] if "past the largest key" in note]
    things.run("INSERT INTO {table} (version, a) VALUES (1, 1)")
    assert len(things.rows()) == 6
    assert not [note for note in done(things.restore())["Notes"] if "past the largest key" in note]


# --- without the source -----------------------------------------------------------------------------------------------


@IN_FILES
def test_another_place_is_restored_to_without_a_word_to_the_source(things: Things) -> None:
    things.make(VERSIONED, "1, 5, 10", "2, 5, 20")
    before = things.rows()
    to = things.source.url.replace("source.db", "elsewhere.db")
    settings = {**things.place.settings, "BackupRetry__MaxAttempts": "1"}
    if things.source.url.startswith("sqlite"):
        settings["SourceCustomerDb__ConnectionString"] = f"sqlite:///{things.folder / 'nowhere' / 'gone.db'}"
    else:
        things.run("DROP TABLE {table}")
        settings["SourceCustomerDb__ConnectionString"] = "postgresql://nobody@127.0.0.1:1/gone"
    ended = command(things.folder, settings, "restore", "customer", "--to", to, "--yes", "--json")
    restored = done(ended)
    assert counted(restored) == (2, 0, 0, 0)
    assert any("target place of customer" in note for note in restored["Notes"])
    assert "source of customer" not in ended.out + ended.err
    assert Things(Sql(to, "things"), things.backup, things.folder).rows() == before


# --- Cosmos DB --------------------------------------------------------------------------------------------------------


@pytest.fixture
def documents(tmp_path: Path, cosmos_server: str, cosmos_server_backup: str) -> tuple[Place, Path]:
    place = few_orders(places.with_orders_on_cosmos(tmp_path, cosmos_server, cosmos_server_backup).order)
    synced(place, "order")
    return place, tmp_path


def replaced(place: Place, number: int, **properties: Any) -> None:
    """Has the application write a document of the source as it is, but for these properties."""
    assert isinstance(place.order.source, Cosmos)
    with cosmos_client(place.order.source.account) as client:
        container = client.get_database_client(place.order.source.database).get_container_client("orders")
        document = {"id": f"order-{number:04}", "customerId": f"customer-{number}", "type": "Order"}
        container.upsert_item({**document, **properties})


def test_documents_are_replaced_only_as_they_were_looked_at(
    documents: tuple[Place, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, folder = documents
    before = place.order.source.contents()
    revised(place, 1, revision=0)  # older
    replaced(place, 3, type="Quote")
    with place.registry.get("order").stores() as (source, _):
        source.delete([source.keys.from_text("order-0002")])

    def application() -> None:
        replaced(place, 1, lastModified="2099", of="application")
        replaced(place, 2, lastModified="2099", of="application")

    once(monkeypatch, ConditionalWrites, "carry_out", application)
    restored = done(command(folder, place.settings, "restore", "order", "--yes", "--json"))
    assert counted(restored)[:3] == (0, 0, 0)
    assert {key.split('"')[-2] for key in named(restored)} >= {"order-0001", "order-0002", "order-0003"}
    now = place.order.source.contents()
    assert [now[f"order-000{n}"].get("of") for n in (1, 2)] == ["application"] * 2
    assert now["order-0003"]["type"] == "Quote"
    overwritten = ("restore", "order", "--overwrite-newer", "--yes", "--json")
    assert counted(done(command(folder, place.settings, *overwritten)))[1] == 3
    assert place.order.source.contents() == before
