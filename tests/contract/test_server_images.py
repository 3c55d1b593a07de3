"""Images that a server makes of its rows: they say what those of this process say, and are kept by the same rules."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from psycopg.errors import LockNotAvailable

from backup.core.errors import ConstraintRefused, LockLost
from backup.core.key_ranges import KeyRange, count_keys, keys_of
from backup.core.masks import Mask, Masking
from backup.core.model import WHOLE, Action, Chunk, Image, Key
from backup.recycle_bin import entries
from backup.recycle_bin.bin import RecycleBin
from backup.recycle_bin.entries import RECYCLE_BIN, KeptImage
from backup.stores import NotRelayed, RangesNotDeleted, Rules, Store, stamps_in
from backup.stores.exact_json import key_from_text, record_from_text
from backup.stores.sql import range_deletes
from backup.stores.sql.batch import SqlBatch
from backup.stores.sql.catalog import catalog_of
from backup.stores.sql.engines.images_to_make import LARGEST_BYTES
from backup.stores.sql.engines.postgresql.dialect import PostgresqlDialect
from backup.stores.sql.engines.sqlite import images as sqlite_images
from backup.stores.sql.engines.sqlite.dialect import SqliteDialect
from tests.contract import test_sqlite_types as sqlite_types
from tests.contract.benches import NOTE, NOW, RUN, Item, PostgresBench, SqlBench, SqliteBench, other_database
from tests.contract.recycled import Recycled, alike_on_both_sides, recycled, run_at
from tests.contract.test_postgresql_types import VALUES
from tests.contract.test_relay import is_plain, reads_nothing, synced
from tests.contract.test_store import run_sync

KEYS = sorted({0, *(sign * digits * 10**zeros for sign in (1, -1) for digits in (1, 12, 907) for zeros in range(16))})
ENDS = [-(1 << 63), 1 - (1 << 63), (1 << 63) - 1, 10**18, -(10**18), 9_223_372_036_854_775_800]


def raw(store: Store, sync_id: str) -> dict[str, dict[str, Any]]:
    """The run's entries of single keys, as they lie in the bin, by their ids."""
    start, middle, _ = entries.bounds(sync_id)
    page = store.sibling(RECYCLE_BIN).find({}, order_by="EntryId", above=start, below=middle, limit=5_000)
    return {entry["EntryId"]: entry for entry in page}


def equal_entries(store: Store, sync_id: str, images: Sequence[Image]) -> None:
    """Asserts that the bin says of these images what this process would say, field by field, value by value."""
    of_server = raw(store, sync_id)
    expected = [entries.of_one(sync_id, "backup", image) for image in images]
    assert sorted(of_server) == sorted(entry["EntryId"] for entry in expected)
    for entry in expected:
        other = of_server[entry["EntryId"]]
        assert {name: other[name] for name in ("Action", "KeyHash", "RecordKey")} == {
            name: entry[name] for name in ("Action", "KeyHash", "RecordKey")
        }
        # By their spelling: 1.50 is not 1.5, and two values that are no number are the same.
        assert repr(key_from_text(other["Version"])) == repr(key_from_text(entry["Version"]))
        assert repr(record_from_text(other["Record"])) == repr(record_from_text(entry["Record"]))
        assert {name: other[name] for name in ("SyncId", "ServiceName", "Side", "Place")} == {
            "SyncId": sync_id,
            "ServiceName": RUN.service,
            "Side": "backup",
            "Place": store.catalog.qualified_name(),
        }


@pytest.mark.parametrize("null", [False, True])
def test_images_of_every_type_are_those_of_this_process(
    postgresql_bench: PostgresBench, made: list[int | None], *, null: bool
) -> None:
    bench = postgresql_bench
    values = {name: [value for value in kind if "repeat('" not in value] for name, kind in VALUES.items()}
    columns = ", ".join(f'"c{n} ä""\\{{:%%" {name}' for n, name in enumerate(values))
    bench.sql("source", f"CREATE TABLE {{table}} (id integer PRIMARY KEY, version integer, {columns}, image bytea)")
    source, backup = bench.pair()
    backup.catalog.match(source)
    for place in range(rows := max(map(len, values.values()))):
        row = ["NULL" if null else kind[place % len(kind)] for kind in values.values()]
        text = f"INSERT INTO {{table}} VALUES ({place}, {place or 'NULL'}, {', '.join(row)})"
        bench.sql("backup", text.replace("%", "%%"))
    deleted(backup, [(place,) for place in range(rows)])
    assert made == [rows]


@pytest.mark.parametrize("null", [False, True])
def test_images_of_whatever_sqlite_keeps_are_those_of_this_process(
    sqlite_bench: SqliteBench, made: list[int | None], *, null: bool
) -> None:
    bench = sqlite_bench
    declared = [*sqlite_types.DECLARED, *(f'"{name}"' for name in sqlite_types.QUOTED)]
    columns = ", ".join(f'"c{n} ä""\\{{:%?\n" {name}' for n, name in enumerate(declared))
    bench.sql("source", f"CREATE TABLE {{table}} (id INTEGER PRIMARY KEY, {columns}, version INTEGER)")
    source, backup = bench.pair()
    bench.sql("backup", "ALTER TABLE {table} ADD generated AS (json_object('$bytes', id))")
    assert backup.relational is not None
    backup.relational.forget()
    backup.catalog.match(source)
    values = [value for value in sqlite_types.VALUES if value is None or len(str(value)) < 1_000] + EXTREMES
    marks = ", ".join("?" * len(declared))
    insert = f"INSERT INTO {{table}} VALUES (?, {marks}, ?, NULL)"
    rows = [(n, *[None if null else value] * len(declared), value) for n, value in enumerate(values)]
    bench.sql("backup", insert, rows)
    deleted(backup, [(n,) for n in range(len(rows))])
    assert made == [len(rows)]


PLAIN: list[Any] = [
    None,
    0,
    2**63 - 1,
    -(2**63),
    "",
    "12",
    'é\x00\x01"\\/\x7f\u2028\U0001f600',
    '{"$decimal":"1"}',
    "null",
]
OTHERS = [(0, b"x"), (1, 9e999), (3, 1 / 3), (4, 1 / 3), (5, b"")]


@pytest.mark.parametrize(
    ("key", "others"),
    [("INTEGER PRIMARY KEY", []), ("INTEGER PRIMARY KEY", OTHERS), ("TEXT NOT NULL PRIMARY KEY", [])],
    ids=["plain", "others", "texts"],
)
def test_images_of_plain_values_are_spelled_by_sqlite_alone(
    sqlite_bench: SqliteBench,
    made: list[int | None],
    monkeypatch: pytest.MonkeyPatch,
    key: str,
    others: Sequence[tuple[int, Any]],
) -> None:
    declared = ("TEXT", "REAL", "DECIMAL(9,2)", "INTEGER", "DATETIME", "")
    columns = ", ".join(f'"c{n} ä\'""\\{{:%?\n" {name}' for n, name in enumerate(declared))
    sqlite_bench.sql("source", f"CREATE TABLE {{table}} (id {key}, {columns}, version DECIMAL)")
    source, backup = sqlite_bench.pair()

    def key_of(number: int) -> int | str:
        return number if key.startswith("INTEGER") else f"é\x01{number}"

    backup.catalog.match(source)
    reals = [value for value in EXTREMES if isinstance(value, float)] if not others else [0.1 + 0.2, 1e22]
    rows = [[value, None, *[value] * 4] for value in PLAIN]
    rows += [["x", value, value, 1, "y", None] for value in [1.5, 19.99, -0.0, *reals]]
    insert = f"INSERT INTO {{table}} VALUES (?, {', '.join('?' * len(declared))}, ?, NULL)"
    if not others:
        monkeypatch.setattr(sqlite_images, "_exact_parts", None)  # not called
    for place, value in others or [(0, None)]:
        last = [value if place == number else None for number in range(len(declared))]
        sqlite_bench.sql("backup", insert, [(key_of(n), *row, n / 3) for n, row in enumerate([*rows, last])])
        catalog_of(backup).shape.table.info.clear()  # what it has learned from the value before
        deleted(backup, [(key_of(n),) for n in range(len(rows) + 1)])
        sqlite_bench.sql("backup", "DELETE FROM RecycleBin")
    assert {*made} == {len(rows) + 1}


EXTREMES: list[Any] = [
    *(chance * 10.0**exponent for exponent in range(-320, 308, 9) for chance in (1.0, 0.1 + 0.2, -1 / 3)),
    *(number / 10.0**places for number in (1, 7, 435, -1999, 123456789123457, 899999999999999) for places in range(9)),
    *(2.0**53 - 1, 2.0**63, 1.7976931348623157e308, 2.2250738585072014e-308, 9007199254740993.0, 0.1 + 0.7),
    *("\x00", '\x01\x1f\x7f"\\/', "\u2028\ufffe\uffff\U0001f600", b"\x00" * 100, "{}", "null", '{"$decimal":"1"}'),
]
"""Reals that SQLite spells with other digits than Python, and texts that JSON escapes or that look like JSON."""


@pytest.mark.parametrize("type_", ["text", "numeric", "bytea", "timestamp", "uuid", "char(5)", "boolean"])
def test_versions_of_every_kind_are_those_of_this_process(
    postgresql_bench: PostgresBench, made: list[int | None], type_: str
) -> None:
    bench = postgresql_bench
    bench.sql("source", f"CREATE TABLE {{table}} (id integer PRIMARY KEY, v {type_} NOT NULL, s {type_})")
    rules = Rules(version=("v", "s"))
    source, backup = bench.open("source", rules=rules), bench.open("backup", rules=rules)
    backup.catalog.initialize(source)
    backup.catalog.match(source)
    values = [value for value in VALUES[type_] if "repeat('" not in value]
    for place, value in enumerate(values):
        bench.sql("backup", f"INSERT INTO {{table}} VALUES ({place}, {value}, NULL)".replace("%", "%%"))
    deleted(backup, [(place,) for place in range(len(values))])
    assert made == [len(values)]


@pytest.mark.parametrize("width", [1, 3])
def test_ids_and_hashes_of_keys_are_those_of_this_process(
    making_bench: SqlBench, made: list[int | None], width: int
) -> None:
    bench, chance = making_bench, random.Random(15)
    numbers = {*KEYS, *ENDS, *(chance.randrange(-(1 << 63), 1 << 63) // 10 ** chance.randrange(19) for _ in range(300))}
    keys: list[Key] = [(number, *chance.choices([*numbers], k=width - 1)) for number in numbers]
    names = ", ".join(f"id{n}" for n in range(width))
    columns = ", ".join(f"id{n} bigint" for n in range(width))
    bench.sql("source", f"CREATE TABLE {{table}} ({columns}, version integer, PRIMARY KEY ({names}))")
    source, backup = bench.pair()
    backup.catalog.match(source)
    values = ", ".join([bench.mark] * width)
    bench.sql("backup", f"INSERT INTO {{table}} ({names}, version) VALUES ({values}, 1)", keys)
    deleted(backup, keys)
    assert made == [len(numbers)]


LETTERS = (
    *("".join(map(chr, range(32, 127))), "".join(map(chr, range(1, 32))), "\x7f\x80\x85\xa0\u200b\ufeff\ufffe"),
    *("\xdf\u1e9e\u0130\u0131łøØæŒþðđħŧ\u017f\u212a\xc5µςﬁ", "".join(map(chr, range(0xFF01, 0xFFDD)))),
    "".join(map(chr, range(0x30A1, 0x30FD))),
    *("".join(map(chr, range(0x300, 0x370))), "٠١२३𝟎𝟗²½", "éÉÄñçŻ", "\U0001f600\U00020000\U000e0041"),
)
"""What key_hash folds, each in its own way: case, accents, width, kana, digits, what is not seen."""


def text(chance: random.Random) -> str:
    """A text of any letters, or of some kind of them, with spaces at its end or none."""
    anywhere = [chr(chance.choice((chance.randrange(1, 0xD800), chance.randrange(0xE000, 0x110000)))) for _ in range(9)]
    letters = chance.choice([LETTERS[0], "ALFKI alfki", *LETTERS, "".join(LETTERS), anywhere])
    return "".join(chance.choices(letters, k=chance.randrange(9))) + " " * chance.randrange(3)


PARTS: dict[str, Callable[[random.Random], Any]] = {
    "uuid": lambda chance: uuid.UUID(int=chance.getrandbits(128)),
    "text": text,
    "varchar(40)": text,
    "char(12)": lambda chance: text(chance).rstrip().ljust(12),
    "bigint": lambda chance: chance.choice([*KEYS, *ENDS]),
    "date": lambda chance: str(datetime.fromordinal(chance.randrange(1, 3_000_000)).date()),
    "timestamptz": lambda chance: str(datetime.fromordinal(chance.randrange(1, 3_000_000)))[: chance.choice((16, 19))],
    "numeric(9,2)": lambda chance: Decimal(chance.randrange(-(10**9), 10**9)) / 10 ** chance.choice((0, 2)) % 10**7,
    "bytea": lambda chance: chance.randbytes(chance.randrange(4)) + b"\0" * chance.randrange(2),
    "boolean": lambda chance: chance.random() < 0.5,
}


@pytest.mark.parametrize(
    "types",
    [["text"], ["char(12)"], ["uuid"], ["varchar(40)", "bigint"], ["timestamptz", "date", "bigint", "text"], ["bytea"]],
    ids=", ".join,
)
def test_ids_and_hashes_of_other_keys_are_those_of_this_process(
    making_bench: SqlBench, made: list[int | None], types: Sequence[str]
) -> None:
    bench, chance = making_bench, random.Random(16)
    is_sqlite = bench.kind == "sqlite"
    keys = {tuple(PARTS[type_](chance) for type_ in types) for _ in range(300)}
    rows = [[str(part) if is_sqlite and isinstance(part, uuid.UUID) else part for part in key] for key in keys]
    columns = ", ".join(f"c{place} {type_} NOT NULL" for place, type_ in enumerate(types))
    names = ", ".join(f"c{place}" for place in range(len(types)))
    bench.sql("source", f"CREATE TABLE {{table}} ({columns}, version integer, PRIMARY KEY ({names}))")
    source, backup = bench.pair()
    backup.catalog.match(source)
    marks = ", ".join([bench.mark] * len(types))
    bench.sql("backup", f"INSERT INTO {{table}} ({names}, version) VALUES ({marks}, 1)", rows)
    deleted(backup, [*stamps_in(backup, Chunk())])
    assert sum(number or 0 for number in made) == len(keys)
    assert None not in made


def deleted(backup: Store, keys: Sequence[Key]) -> None:
    """Deletes these records, and asserts that the bin got the images that this process makes of them."""
    images = [image for batch in backup.images(keys, Action.DELETED) for image in batch]
    assert len(images) == len(keys)
    kept = RecycleBin(backup, RUN.service)
    kept.create()
    assert len(backup.delete(keys, kept.recorder(RUN, lambda: NOW)).deleted) == len(keys)
    assert backup.count() == 0
    equal_entries(backup, RUN.sync_id, images)


# --- the rules of images ----------------------------------------------------------------------------------------------


@pytest.fixture
def sides(making_bench: SqlBench) -> Recycled:
    """A source with the numbers 1 to 40, whose text is new, and a backup that has the old ones of 1 to 30."""
    making_bench.create(Item(n, 2, "new é") for n in range(1, 41))
    made = recycled(making_bench)
    made.backup.catalog.match(made.source)
    making_bench.put("backup", *(Item(n, 1, "old é") for n in range(1, 31)))
    return made


def text_of(kept: KeptImage) -> str:
    """The text of the item in the image."""
    [text] = [value for name, value in (kept.record or {}).items() if name.lower() == "name"]
    return str(text)


def numbers(*chosen: int) -> list[Key]:
    return [(n,) for n in chosen]


@pytest.mark.parametrize("count", [3, 40])  # by parameters, and through a temporary table
def test_a_batch_of_updates_and_inserts_keeps_what_it_replaces(
    sides: Recycled, made: list[int | None], count: int
) -> None:
    first = 29
    sides.write(numbers(*range(first, first + count) if count < 10 else range(1, 41)), 1)
    assert made
    assert None not in made
    kept = sides.of(1)
    updated = {key for key in kept if key[0] <= 30}
    assert {kept[key].action for key in updated} == {Action.UPDATED}
    assert {text_of(kept[key]) for key in updated} == {"old é"}
    assert {kept[key].action for key in kept.keys() - updated} == {Action.INSERTED}
    assert len(kept) == count


def test_only_the_first_image_of_a_run_is_kept(sides: Recycled, made: list[int | None]) -> None:
    keys = numbers(*range(1, 31))
    for _ in range(2):
        sides.write(keys, 1)
    sides.delete(keys, 1)
    assert made == [30, 0, 0]
    assert {kept.action for kept in sides.of(1).values()} == {Action.UPDATED}
    assert {text_of(kept) for kept in sides.of(1).values()} == {"old é"}


def test_a_key_that_the_run_inserted_together_with_others_gets_no_image(
    sides: Recycled, made: list[int | None]
) -> None:
    keep = sides.keep(1)
    for chosen in (range(31, 41), range(31, 41), range(1, 5), range(4, 32)):
        sides.backup.write(sides.copies(numbers(*chosen), 1), keep)
    assert made == [0, 4]  # the others were not asked for
    kept = sides.of(1)
    assert {key[0] for key, image in kept.items() if image.action is Action.INSERTED} == {*range(31, 41)}
    assert {key[0] for key, image in kept.items() if image.action is Action.UPDATED} == {*range(1, 31)}


def test_after_a_delete_no_keys_are_told_of_together(sides: Recycled, made: list[int | None]) -> None:
    keep = sides.keep(1)
    sides.backup.delete(numbers(*range(1, 21)), keep)
    sides.backup.write(sides.copies(numbers(*range(1, 21)), 1), keep)
    assert made == [20, 0]
    assert {kept.action for kept in sides.of(1).values()} == {Action.DELETED}
    assert len(sides.of(1)) == 20


@pytest.mark.parametrize("way", ["ranges", "batch", "batch of this process"])
def test_nobody_changes_a_row_between_its_image_and_its_delete(
    postgresql_bench: PostgresBench, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    bench, refusals = postgresql_bench, 0
    bench.create(Item(n) for n in range(1, 4))
    sides = recycled(bench)
    run_sync(sides.source, sides.backup)
    owner, method = (SqlBatch, "images") if "process" in way else (PostgresqlDialect, "make_images")
    make = getattr(owner, method)

    def interfered(*arguments: Any, **options: Any) -> Any:
        nonlocal refusals
        made = make(*arguments, **options)
        with pytest.raises(LockNotAvailable):
            bench.sql("backup", "SET LOCAL lock_timeout = 20; UPDATE {table} SET version = 9 WHERE id = 2")
        refusals += 1
        return made

    if "process" in way:
        monkeypatch.setattr(PostgresqlDialect, "make_images", lambda *_: None)
    monkeypatch.setattr(owner, method, interfered)
    if way == "ranges":
        assert ranges_deleted(sides, [(1, 3)]) == [([(1, 3)], 3)]
    else:
        sides.delete(numbers(1, 2, 3), 1)
    assert refusals == 1


# --- where this process makes them ------------------------------------------------------------------------------------


def test_a_server_that_refuses_to_make_images_is_asked_once(
    sides: Recycled, made: list[int | None], making_bench: SqlBench
) -> None:
    """The bin of this server takes plain ASCII alone, which images of this process are, and the server's are not."""
    table = making_bench.quoted("RecycleBin")
    making_bench.sql("backup", ONLY_ASCII[making_bench.kind].format(bin=table))
    for start in (1, 11, 21):
        sides.write(numbers(*range(start, start + 10)), 1)
    assert made == [None]
    kept = sides.of(1)
    assert {text_of(kept[key]) for key in numbers(*range(1, 31))} == {"old é"}
    assert {making_bench.items("backup")[n].text for n in range(1, 31)} == {"new é"}


ONLY_ASCII = {
    "postgresql": "ALTER TABLE {bin} ADD CHECK (\"Record\" !~ '[^[:ascii:]]')",
    "sqlite": "CREATE TRIGGER only_ascii BEFORE INSERT ON {bin} WHEN NEW.Record GLOB '*[^\x01-\x7f]*' "
    "BEGIN SELECT RAISE(ABORT, 'not ASCII'); END",
}
SEVEN_STAYS_OLD = {
    "postgresql": "ALTER TABLE {table} ADD CHECK (id <> 7 OR name LIKE 'old%%')",
    "sqlite": "CREATE TRIGGER stays BEFORE UPDATE ON {table} WHEN NEW.Id = 7 AND NEW.Name NOT LIKE 'old%' "
    "BEGIN SELECT RAISE(ABORT, 'seven stays old'); END",
}


def test_a_refused_change_is_no_refusal_of_images(
    sides: Recycled, made: list[int | None], making_bench: SqlBench
) -> None:
    making_bench.sql("backup", SEVEN_STAYS_OLD[making_bench.kind])
    with pytest.raises(ConstraintRefused):
        sides.write(numbers(*range(1, 11)), 1)
    assert sides.of(1) == {}
    sides.write(numbers(8, 9), 1)
    assert made == [10, 2]


def test_images_of_large_rows_are_made_by_this_process(
    sides: Recycled, made: list[int | None], making_bench: SqlBench
) -> None:
    if making_bench.kind == "postgresql":
        making_bench.sql("backup", "ALTER TABLE {table} ALTER COLUMN name TYPE text")
    # Compressed, or in few bytes for the numbers beside it.
    fits, large = "\x01" * (LARGEST_BYTES - 100), "é" * LARGEST_BYTES
    for n, text in ((1, fits), (2, large)):
        making_bench.sql(
            "backup", "UPDATE {table} SET name = ? WHERE id = ?".replace("?", making_bench.mark), [(text, n)]
        )
    assert sides.backup.relational is not None
    sides.backup.relational.forget()
    sides.write(numbers(1), 1)
    sides.write(numbers(2), 2)
    assert made == [1, None]
    assert [text_of(sides.of(run)[(run,)]) for run in (1, 2)] == [fits, large]


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_images_in_other_encodings_are_made_by_this_process(
    postgresql_bench: PostgresBench, made: list[int | None], encoding: str
) -> None:
    with other_database(postgresql_bench, "backup", f"ENCODING '{encoding}' LOCALE 'C'") as bench:
        bench.sql("source", "CREATE TABLE {table} (id integer PRIMARY KEY, version integer, name text)")
        source, backup = bench.pair()
        backup.catalog.match(source)
        bench.sql("backup", "INSERT INTO {table} VALUES (1, 1, 'é')")
        deleted(backup, [(1,)])
    assert made == [None]


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le"])
def test_images_of_texts_that_sqlite_spells_otherwise_are_made_by_this_process(
    sqlite_bench: SqliteBench, made: list[int | None], encoding: str
) -> None:
    bench = sqlite_bench
    if encoding != "UTF-8":
        bench.sql("backup", f"PRAGMA encoding = '{encoding}'")
    bench.sql("source", f"PRAGMA encoding = '{encoding}'")
    bench.sql("source", "CREATE TABLE {table} (id INTEGER PRIMARY KEY, version INTEGER, name TEXT)")
    source, backup = bench.pair()
    backup.catalog.match(source)
    bench.sql("backup", "INSERT INTO {table} (id, version, name) VALUES (1, 1, 'é'), (2, 1, CAST(x'd8ff' AS TEXT))")
    keep = RecycleBin(backup, RUN.service)
    keep.create()
    backup.delete([(1,), (2,)], keep.recorder(RUN, lambda: NOW))
    assert {*made} == {None}
    kept = {image.key: text_of(image) for page in keep.of_run(RUN.sync_id) for image in page}
    assert kept == {(1,): "é", (2,): "\udcd8\udcff" if encoding == "UTF-8" else "\uffd8"}


@pytest.mark.parametrize(
    ("kind", "type_", "values"),
    [
        ("postgresql", "text COLLATE {alike}", ["a"]),
        ("postgresql", "numeric", ["1.5", "2.50"]),
        ("postgresql", "bpchar", ["a", "b "]),
        ("postgresql", "interval", ["1 day", "25 hours"]),
        ("sqlite", "TEXT COLLATE NOCASE", ["a"]),
        ("sqlite", "TEXT COLLATE RTRIM", ["a "]),
        ("sqlite", "", [1, 1.5]),
        ("sqlite", "REAL", [1.0]),
    ],
)
def test_images_under_keys_that_a_server_spells_in_several_ways_are_made_by_this_process(
    request: pytest.FixtureRequest, made: list[int | None], kind: str, type_: str, values: Sequence[Any]
) -> None:
    bench: SqlBench = request.getfixturevalue(f"{kind}_bench")
    if "{alike}" in type_:
        alike_on_both_sides(bench)
    type_ = type_.replace("{alike}", bench.quoted("alike"))
    bench.sql("source", f"CREATE TABLE {{table}} (id {type_} NOT NULL PRIMARY KEY, version integer)")
    source, backup = bench.pair()
    backup.catalog.match(source)
    bench.sql("backup", f"INSERT INTO {{table}} (id, version) VALUES ({bench.mark}, 1)", [(value,) for value in values])
    deleted(backup, [*stamps_in(backup, Chunk())])
    assert {*made} <= {None}


def test_a_key_that_is_longer_in_the_copy_has_the_image_that_this_process_makes(
    postgresql_bench: PostgresBench, made: list[int | None]
) -> None:
    bench = postgresql_bench
    bench.sql("source", "CREATE TABLE {table} (id char(9) PRIMARY KEY, version integer)")
    sides = recycled(bench)
    bench.sql("backup", "INSERT INTO {table} (id, version) VALUES ('ALFKI', 1)")
    sides.delete([("ALFKI",)], 1)
    assert made == []
    assert sides.actions(1) == {("ALFKI",): Action.DELETED}


@pytest.mark.parametrize(
    "rules", [{"masking": Masking({"Name": Mask("hmac")}, "a key of the masks")}, {"keeps_deleted": True}]
)
def test_images_of_copies_with_masks_or_marks_are_made_by_this_process(
    making_bench: SqlBench, made: list[int | None], rules: dict[str, Any]
) -> None:
    bench = making_bench
    bench.create([Item(1), Item(2)])
    own = replace(bench.rules, **rules)
    source, backup = bench.open("source", rules=replace(own, is_source=True)), bench.open("backup", rules=own)
    backup.catalog.initialize(source)
    run_sync(source, backup)
    bench.put("source", Item(1, 2))
    bench.remove("source", 2)
    assert run_sync(source, backup) == (0, 1, 1, 0)
    assert made == []


# --- changes that servers pass on -------------------------------------------------------------------------------------


@pytest.fixture
def relayed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the servers pass on the changes of few records, too. A read of a record by this process fails."""
    monkeypatch.setattr("backup.mirror.relays.FEWEST", 1)
    reads_nothing(monkeypatch)


@pytest.mark.usefixtures("relayed")
@pytest.mark.parametrize("forced", [False, True])
def test_changes_go_from_server_to_server_with_their_images(
    sides: Recycled, made: list[int | None], *, forced: bool
) -> None:
    tally = synced(sides.source, sides.backup, replace(RUN, forced=forced))
    assert (tally.counts.inserted, tally.counts.updated, tally.notes) == (10, 30, [])
    assert tally.proof is not None
    assert tally.proof.verified
    assert made
    assert None not in made
    kept = {image.key[0]: image for page in sides.bin.of_run(RUN.sync_id) for image in page}
    assert {n: image.action for n, image in kept.items()} == {n: UPDATED_OR_INSERTED[n > 30] for n in range(1, 41)}
    assert {text_of(kept[n]) for n in range(1, 31)} == {"old é"}


UPDATED_OR_INSERTED = (Action.UPDATED, Action.INSERTED)


@pytest.mark.usefixtures("relayed")
@pytest.mark.parametrize("forced", [False, True])
def test_changes_under_keys_of_two_integers_go_from_server_to_server(
    making_bench: SqlBench, made: list[int | None], *, forced: bool
) -> None:
    bench, run = making_bench, replace(RUN, forced=forced)
    key = "a bigint NOT NULL, b bigint NOT NULL"
    bench.sql("source", f"CREATE TABLE {{table}} ({key}, version integer, note varchar(9), PRIMARY KEY (a, b))")
    source, backup = bench.pair(chunk_size=20, batch_size=7)
    for side, last, version in (("backup", 30, 1), ("source", 40, 2)):
        row = ", ".join([bench.mark] * 4)
        values = [(n // 4, n % 4, version, f"{side} é") for n in range(last)]
        bench.sql(side, f"INSERT INTO {{table}} (a, b, version, note) VALUES ({row})", values)  # type: ignore[arg-type]
    for turn in (0, 1) if forced else (0,):  # the first images of a run are those that are kept
        tally = synced(source, backup, run)
        assert (tally.counts.inserted, tally.counts.updated, tally.notes) == [(10, 30, []), (0, 40, [])][turn]
        kept = {image.key: image for page in RecycleBin(backup, RUN.service).of_run(RUN.sync_id) for image in page}
        assert {key: image.action for key, image in kept.items()} == {
            (n // 4, n % 4): UPDATED_OR_INSERTED[n >= 30] for n in range(40)
        }
        assert {image.record and image.record["note"] for image in kept.values()} == {None, "backup é"}
    assert None not in made
    query = "SELECT a, b, version, note FROM {table} ORDER BY a, b"
    assert bench.rows("backup", query) == bench.rows("source", query)


@pytest.mark.usefixtures("relayed")
@pytest.mark.parametrize(("form", "forced"), [("binary", True), ("text", False)])
def test_changed_values_of_every_type_go_from_server_to_server(
    postgresql_bench: PostgresBench, monkeypatch: pytest.MonkeyPatch, form: str, *, forced: bool
) -> None:
    bench = postgresql_bench
    if form == "text":
        monkeypatch.setattr("backup.stores.sql.engines.postgresql.relay._PLAIN", frozenset())
    types = [name for name in VALUES if form == "text" or (is_plain(bench, name) and " to " not in name)]
    columns = ", ".join(f"c{n} {name}" for n, name in enumerate(types))
    bench.sql("source", f"CREATE TABLE {{table}} (id integer PRIMARY KEY, version integer, {columns})")
    source, backup = bench.pair()
    for place in range(rows := max(map(len, VALUES.values())) + 1):
        values = [VALUES[name][place] if place < len(VALUES[name]) else "NULL" for name in types]
        bench.sql("source", f"INSERT INTO {{table}} VALUES ({place}, 2, {', '.join(values)})".replace("%", "%%"))
        bench.sql("backup", f"INSERT INTO {{table}} (id, version) VALUES ({place}, 1)")
    tally = synced(source, backup, replace(RUN, forced=forced))
    assert (tally.counts.updated, tally.notes) == (rows, [])
    texts = ", ".join(f"c{n}::text, pg_typeof(c{n})::text" for n in range(len(types)))
    query = f"SELECT id, version, {texts} FROM {{table}} ORDER BY id"
    assert bench.rows("backup", query) == bench.rows("source", query)


@pytest.mark.usefixtures("relayed")
@pytest.mark.parametrize("forced", [False, True])
def test_changed_values_of_whatever_sqlite_keeps_go_from_file_to_file(
    sqlite_bench: SqliteBench, *, forced: bool
) -> None:
    bench = sqlite_bench
    bench.sql("source", "CREATE TABLE {table} (id INTEGER PRIMARY KEY, version INTEGER, a, b TEXT, c NUMERIC, d REAL)")
    values = [*sqlite_types.VALUES[:-1], *EXTREMES, None]
    bench.sql("source", "INSERT INTO {table} VALUES (?, 2, ?, ?, ?, ?)", [(n, *[v] * 4) for n, v in enumerate(values)])
    bench.sql("source", "UPDATE {table} SET a = CAST(x'ff00fe' AS TEXT) WHERE a IS NULL")
    source, backup = bench.pair()
    bench.sql("backup", "INSERT INTO {table} (id, version) VALUES (?, 1)", [(n,) for n in range(len(values))])
    tally = synced(source, backup, replace(RUN, forced=forced))
    assert (tally.counts.updated, tally.notes) == (len(values), [])
    stored = ", ".join(f"typeof({name}), hex({name}), quote({name}) IS NULL" for name in "abcd")
    query = f"SELECT id, version, {stored} FROM {{table}} ORDER BY id"
    assert bench.rows("backup", query) == bench.rows("source", query)


@pytest.mark.parametrize("forced", [False, True])
def test_changes_that_the_servers_refuse_are_written_record_by_record(
    sides: Recycled, monkeypatch: pytest.MonkeyPatch, making_bench: SqlBench, *, forced: bool
) -> None:
    monkeypatch.setattr("backup.mirror.relays.FEWEST", 1)
    making_bench.sql("backup", SEVEN_STAYS_OLD[making_bench.kind])
    tally = synced(sides.source, sides.backup, replace(RUN, forced=forced))
    assert (tally.counts.inserted, tally.counts.updated, tally.counts.failed, tally.notes) == (10, 29, 1, [])
    assert tally.aside == {(7,)}
    assert {n for n, item in making_bench.items("backup").items() if item.version == 1} == {7}
    assert {image.key for page in sides.bin.of_run(RUN.sync_id) for image in page} == {*numbers(*range(1, 41))} - {(7,)}


@pytest.mark.parametrize("forced", [False, True])
def test_changes_for_which_temporary_tables_have_no_room_are_written_record_by_record(
    sqlite_bench: SqliteBench, monkeypatch: pytest.MonkeyPatch, *, forced: bool
) -> None:
    def stage_without_room(dialect: SqliteDialect, cx: sa.Connection, *rows: Any) -> Any:
        cx.exec_driver_sql("PRAGMA temp.max_page_count = 1")
        return stage(dialect, cx, *rows)

    monkeypatch.setattr("backup.mirror.relays.FEWEST", 1)
    sqlite_bench.create(Item(n, 2, "new") for n in range(1, 41))
    sides = recycled(sqlite_bench)
    sqlite_bench.put("backup", *(Item(n, 1, "old") for n in range(1, 41)))
    sqlite_bench.sql("backup", "CREATE UNIQUE INDEX own ON {table} (Name, Id)")  # else one statement writes over all
    stage = SqliteDialect.stage
    monkeypatch.setattr(SqliteDialect, "stage", stage_without_room)
    tally = synced(sides.source, sides.backup, replace(RUN, forced=forced))
    assert (tally.counts.updated, tally.counts.failed, tally.aside) == (40, 0, {*()})
    assert "database or disk is full" in tally.notes[-1]


def test_a_login_that_may_make_no_temporary_tables_does_without_and_the_notes_say_so(
    postgresql_bench: PostgresBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, login = postgresql_bench, f"writer_{uuid.uuid4().hex[:8]}"
    monkeypatch.setattr("backup.mirror.relays.FEWEST", 1)
    monkeypatch.setattr("backup.stores.sql.image_writes.FEWEST_IMAGES", 1)
    bench.create(Item(n, 2, "new") for n in range(1, 41))
    sides = recycled(bench)
    bench.put("backup", *(Item(n, 1, "old") for n in range(1, 41)))
    url, schema = sa.make_url(bench.connection_strings["backup"]), bench.quote(bench.schema or "")
    bench.sql("backup", f"REVOKE TEMPORARY ON DATABASE {bench.quote(url.database or '')} FROM PUBLIC")
    bench.sql("backup", f"CREATE ROLE {login} LOGIN PASSWORD 'some'")
    bench.sql("backup", f"GRANT USAGE ON SCHEMA {schema} TO {login}")
    bench.sql("backup", f"GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {login}")
    own = url.set(username=login, password="some").render_as_string(hide_password=False)
    backup = bench.open("backup", connection_string=own)
    try:
        for forced in (False, True):
            run = replace(RUN, sync_id=str(uuid.uuid4()), forced=forced)
            tally = synced(sides.source, backup, run)
            assert (tally.counts.updated, [note.count("right TEMPORARY") for note in tally.notes]) == (40, [1])
            bench.sql("backup", "UPDATE {table} SET version = 1")
        images = RecycleBin(backup, RUN.service).images_to_write(run.sync_id, Action.UPDATED)
        with pytest.raises(NotRelayed) as refused:
            list(backup.relational.write_images(images, sides.keep(9)))  # type: ignore[union-attr]
        assert "right TEMPORARY" in str(refused.value.error)
    finally:
        bench.sql("backup", f"GRANT TEMPORARY ON DATABASE {bench.quote(url.database or '')} TO PUBLIC")
        bench.sql("backup", f"DROP OWNED BY {login}")
        bench.sql("backup", f"DROP ROLE {login}")


def test_updates_for_which_postgresql_has_no_room_beside_the_table_are_written_one_by_one(
    postgresql_bench: PostgresBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, write = list[int](), SqlBatch.write

    def noted(batch: SqlBatch, *values: Any, **how: Any) -> Any:
        written.append(1)
        return write(batch, *values, **how)

    monkeypatch.setattr(SqlBatch, "write", noted)
    bench, name = postgresql_bench, f"full_{uuid.uuid4().hex[:8]}"
    bench.create(Item(n, 2, "new") for n in range(1, 41))
    sides = recycled(bench, batch_size=40)
    bench.put("backup", *(Item(n, 1, "old") for n in range(1, 41)))
    refusing = "BEGIN RAISE 'the disk is full' USING ERRCODE = '53100'; END"
    bench.sql("backup", f"CREATE FUNCTION {name}() RETURNS event_trigger LANGUAGE plpgsql AS $${refusing}$$")
    when = "ON ddl_command_end WHEN TAG IN ('CREATE TABLE AS')"
    bench.sql("backup", f"CREATE EVENT TRIGGER {name} {when} EXECUTE FUNCTION {name}()")
    try:
        tally = synced(sides.source, sides.backup, RUN)
    finally:
        bench.sql("backup", f"DROP EVENT TRIGGER {name}")
        bench.sql("backup", f"DROP FUNCTION {name}")
    assert (tally.counts.updated, len(written)) == (40, 1)
    assert bench.items("backup") == bench.items("source")


def test_nothing_is_relayed_of_a_part_with_a_record_that_is_gone(sides: Recycled, making_bench: SqlBench) -> None:
    making_bench.remove("source", 20)
    before = making_bench.rows("backup")
    assert sides.backup.relational is not None
    with pytest.raises(NotRelayed) as refused:
        [*sides.backup.relational.relay_changes(sides.source, numbers(*range(1, 41)), NOTE, sides.keep(1))]
    assert (refused.value.rest, refused.value.error) == (numbers(*range(1, 41)), None)
    assert making_bench.rows("backup") == before
    assert sides.of(1) == {}


def test_nothing_is_in_the_bin_of_new_records_that_are_not_relayed_for_a_large_one(making_bench: SqlBench) -> None:
    bench = making_bench
    bench.sql("source", "CREATE TABLE {table} (id varchar(9) PRIMARY KEY, version integer NOT NULL, name text)")
    sides = recycled(bench)
    sides.backup.catalog.match(sides.source)
    bench.sql("source", "INSERT INTO {table} (id, version) VALUES ('new', 2), ('old', 2)")
    values = f"VALUES ('old', 1, {bench.mark})"
    bench.sql("backup", f"INSERT INTO {{table}} (id, version, name) {values}", [("é" * LARGEST_BYTES,)])
    assert sides.backup.relational is not None
    with pytest.raises(NotRelayed):
        [*sides.backup.relational.relay_changes(sides.source, [("new",), ("old",)], NOTE, sides.keep(1))]
    assert sides.of(1) == {}


@pytest.mark.parametrize("by", ["keys", "chunk"])
def test_changes_are_relayed_in_parts_behind_the_fence(making_bench: SqlBench, made: list[int | None], by: str) -> None:
    making_bench.create(Item(n, 2) for n in range(1, 101))
    sides = recycled(making_bench, batch_size=10, chunk_size=50)
    sides.backup.catalog.match(sides.source)
    making_bench.put("backup", *(Item(n, 1) for n in range(1, 101)))
    sides.lose_lock_at(3)
    relational = sides.backup.relational
    assert relational is not None
    if by == "keys":
        parts = relational.relay_changes(sides.source, numbers(*range(1, 101)), NOTE, sides.keep(1))
    else:
        parts = relational.overwrite(sides.source, WHOLE, NOTE, sides.keep(1))
    assert [next(parts).updated for _ in range(2)] == [10, 40]
    with pytest.raises(LockLost):
        next(parts)
    assert made == [10, 40, 50]
    assert len(sides.of(1)) == 50
    assert {item.n for item in making_bench.items("backup").values() if item.version == 2} == {*range(1, 51)}


# --- ranges of keys that the server deletes -----------------------------------------------------------------------


def ranges_deleted(sides: Recycled, ranges: list[KeyRange]) -> list[tuple[list[KeyRange], int]]:
    """What the server has deleted of these ranges, up to the first refusal, which it raises."""
    assert sides.backup.relational is not None
    return [([*part], deleted) for part, deleted in sides.backup.relational.delete_ranges(ranges, sides.keep(1))]


@pytest.mark.parametrize("ranges", [[(3, 12), (20, 99)], [(n, n) for n in range(1, 30, 2)]])
def test_ranges_are_deleted_with_their_images_in_parts(
    making_bench: SqlBench, monkeypatch: pytest.MonkeyPatch, made: list[int | None], ranges: list[KeyRange]
) -> None:
    monkeypatch.setattr(range_deletes, "_RANGES_NAMED", 4)
    making_bench.create(Item(n) for n in range(1, 31))
    sides = recycled(making_bench, batch_size=5, chunk_size=15)
    run_sync(sides.source, sides.backup)
    images = [image for batch in sides.backup.images(keys_of(ranges), Action.DELETED) for image in batch]
    parts = ranges_deleted(sides, ranges)
    assert [count_keys(part) for part, _ in parts][:2] == [5, min(15, count_keys(ranges) - 5)]
    assert [deleted for _, deleted in parts] == made
    assert sum(deleted for _, deleted in parts) == len(images)
    equal_entries(sides.backup, run_at(1)[0].sync_id, images)
    assert sides.backup.relational is not None
    assert sides.backup.relational.keys_in([(1, 40)]) == numbers(*sorted({*range(1, 31)} - {i.key[0] for i in images}))


OBSTACLES = {
    ("postgresql", "delete"): "CREATE RULE swallows AS ON DELETE TO {table} WHERE old.id = 7 DO INSTEAD NOTHING",
    (
        "postgresql",
        "image",
    ): "CREATE RULE swallows AS ON INSERT TO {bin} WHERE new.\"RecordKey\" = '[7]' DO INSTEAD NOTHING",
    ("postgresql", "reference"): "ALTER TABLE {table} ADD other integer REFERENCES {table} (id) ON DELETE SET NULL",
    ("sqlite", "delete"): "CREATE TRIGGER swallows BEFORE DELETE ON {table} WHEN old.id = 7 BEGIN {ignore} END",
    ("sqlite", "image"): "CREATE TRIGGER swallows BEFORE INSERT ON {bin} WHEN new.RecordKey = '[7]' BEGIN {ignore} END",
    ("sqlite", "reference"): "ALTER TABLE {table} ADD other integer REFERENCES {table} (id) ON DELETE SET NULL",
}


@pytest.mark.parametrize("obstacle", ["delete", "image", "reference"])
def test_what_the_server_cannot_delete_exactly_is_left_as_it_was(
    sides: Recycled, making_bench: SqlBench, obstacle: str
) -> None:
    statement = OBSTACLES[making_bench.kind, obstacle].replace("{bin}", making_bench.quoted("RecycleBin"))
    making_bench.sql("backup", statement.replace("{ignore}", "SELECT RAISE(IGNORE);"))
    before = making_bench.rows("backup")
    with pytest.raises(RangesNotDeleted) as refused:
        ranges_deleted(sides, [(1, 30)])
    assert refused.value.rest == [(1, 30)]
    assert making_bench.rows("backup") == before
    assert sides.of(1) == {}
