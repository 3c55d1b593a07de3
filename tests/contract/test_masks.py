"""Masks on every SQL store: what leaves the source is masked, and what differs is found all the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from backup.core.errors import ConfigError, SchemaMismatch, StoreError
from backup.core.masks import Mask, Masking, MaskKind
from backup.core.model import WHOLE, Action, Image, Record
from backup.mirror.verification import Depth, Report, verify
from backup.stores import Rules, Store
from tests.contract.benches import Bench, CosmosBench, Role, SqlBench
from tests.contract.conftest import SQL_KINDS
from tests.contract.test_store import run_sync

KEY = "a key of the masks that is long enough"
ADDRESS = "ada.lovelace@example.org"
COLUMNS = """Id INTEGER NOT NULL PRIMARY KEY, Version INTEGER {null}, Name varchar(40) NOT NULL, Mail varchar(40),
    Code char(20), Born date, Sum INTEGER"""
ROWS = [
    (1, 1, "Ada", ADDRESS, "AA", "1815-12-10", 7),
    (2, 1, "Ada", "no address", None, None, None),
    (3, 1, "O'Neil ünïcödé", f"x@{'d' * 30}.org", "BB", "2024-02-29", 8),
]
MASKS = {
    "name": Mask("hmac"),
    "Mail": Mask("email"),
    "CODE": Mask("text", "hidden"),
    "Born": Mask("year"),
    "Sum": Mask("null"),
}
BOTH_VERSIONS = pytest.mark.parametrize("version", [("Version",), ()], ids=["version", "content"])


def rules(masks: dict[str, Mask] = MASKS, key: str = KEY, version: tuple[str, ...] = ("Version",)) -> Rules:
    return Rules(version=version, masking=Masking(masks, key))


def start(bench: SqlBench, given: Rules, *, null: str = "NOT NULL") -> tuple[Store, Store]:
    """A source of three rows, and its masked backup."""
    bench.sql("source", f"CREATE TABLE {{table}} ({COLUMNS.format(null=null)})")
    mark = ", ".join([bench.mark] * 7)
    bench.sql("source", f"INSERT INTO {{table}} VALUES ({mark})", ROWS)
    source, backup = opened(bench, given)
    backup.catalog.initialize(source)
    assert run_sync(source, backup) == (3, 0, 0, 0)
    return source, backup


def opened(bench: Bench, given: Rules) -> tuple[Store, Store]:
    """Both stores as another run opens them, which has followed the source's columns."""
    source, backup = bench.open("source", rules=given), bench.open("backup", rules=given)
    return source, backup


def adapted(bench: SqlBench, given: Rules) -> tuple[Store, Store]:
    source, backup = opened(bench, given)
    assert backup.relational is not None
    backup.relational.adapt(backup.relational.drift(source, "add"))
    return source, backup


def named(record: Record, *names: str) -> tuple[Any, ...]:
    """The record's values of these names, in whatever case the server spells them."""
    by_name = {name.lower(): value for name, value in record.items()}
    return tuple(by_name[name.lower()] for name in names)


def copies(bench: SqlBench) -> dict[int, tuple[Any, ...]]:
    rows = bench.rows("backup", "SELECT Id, Name, Mail, Code, Born, Sum FROM {table} ORDER BY Id")
    return {row[0]: row[1:] for row in rows}


@BOTH_VERSIONS
def test_a_masked_copy_has_no_clear_value_and_equals_its_source(sql_bench: SqlBench, version: tuple[str, ...]) -> None:
    source, backup = start(sql_bench, rules(version=version))
    masked = copies(sql_bench)
    name, mail, code, born, number = masked[1]
    assert len(name) == 16
    assert name != "Ada"
    assert masked[2][0] == name  # equal texts stay equal
    assert mail == f"{mail.partition('@')[0]}@example.org"
    assert len(mail.partition("@")[0]) == 16
    assert code.strip() == "hidden"
    assert str(born)[:10] == "1815-01-01"
    assert number is None
    assert "@" not in masked[3][1]  # the masked address would be longer than the column
    assert masked[2][2:] == (None, None, None)

    assert run_sync(*opened(sql_bench, rules(version=version))) == (0, 0, 0, 3)
    report = Report()
    source, backup = opened(sql_bench, rules(version=version))
    backup.catalog.match(source)
    assert verify(source, backup, Depth(full=True), report) is None
    assert not report.counts
    assert report.compared == 3


@BOTH_VERSIONS
def test_changes_are_told_by_what_the_source_holds(sql_bench: SqlBench, version: tuple[str, ...]) -> None:
    start(sql_bench, rules(version=version))
    sql_bench.sql("source", "UPDATE {table} SET Name = 'Grace', Version = 2 WHERE Id = 1")
    sql_bench.sql("source", "DELETE FROM {table} WHERE Id = 3")
    before = copies(sql_bench)
    assert run_sync(*opened(sql_bench, rules(version=version))) == (0, 1, 1, 1)
    after = copies(sql_bench)
    assert after[1][0] != before[1][0]
    assert after[1][1:] == before[1][1:]
    assert after.keys() == {1, 2}


@pytest.mark.parametrize(
    ("sql_bench", "version"),
    [("sqlite", ("Version",)), *((kind, ()) for kind in SQL_KINDS)],
    indirect=["sql_bench"],
)
def test_other_masks_write_each_record_anew_once(sql_bench: SqlBench, version: tuple[str, ...]) -> None:
    start(sql_bench, rules(version=version))
    for what, later in {
        "another key": rules(key=f"{KEY}, and another"),
        "another mask": rules({**MASKS, "name": Mask("null")}, f"{KEY}, and another"),
        "fewer masks": rules({"Mail": Mask("email")}, f"{KEY}, and another"),
        "none": rules({}),
    }.items():
        before = copies(sql_bench)
        given = replace(later, version=version)
        assert run_sync(*adapted(sql_bench, given)) == (0, 3, 0, 0), what
        assert copies(sql_bench) != before, what
        assert run_sync(*adapted(sql_bench, given)) == (0, 0, 0, 3), what


@BOTH_VERSIONS
def test_masks_that_begin_later_mask_the_copies_and_their_images(sql_bench: SqlBench, version: tuple[str, ...]) -> None:
    plain = Rules(version=version)
    start(sql_bench, plain)
    assert ADDRESS in repr(copies(sql_bench))
    given = rules(version=version)
    source, backup = adapted(sql_bench, given)
    [images] = backup.images([(1,), (2,), (3,)], Action.UPDATED)
    assert run_sync(source, backup) == (0, 3, 0, 0)
    assert ADDRESS not in repr(copies(sql_bench))
    masked = {image.key: image.record for image in images if image.record is not None}
    for n, copy in copies(sql_bench).items():
        assert named(masked[n,], "Name", "Mail") == copy[:2]
    # A copy that the masks have made is kept as it is.
    _, backup = adapted(sql_bench, given)
    [images] = backup.images([(1,)], Action.DELETED)
    assert images[0].record is not None
    assert named(images[0].record, "Name") == copies(sql_bench)[1][:1]


def test_records_without_a_version_are_told_by_their_content(sql_bench: SqlBench) -> None:
    start(sql_bench, rules(), null="")
    sql_bench.sql("source", "UPDATE {table} SET Version = NULL, Sum = 9 WHERE Id = 1")
    assert run_sync(*opened(sql_bench, rules())) == (0, 1, 0, 2)
    assert run_sync(*opened(sql_bench, rules())) == (0, 0, 0, 3)


def test_a_masked_source_gives_no_clear_value_and_keeps_its_own(sql_bench: SqlBench) -> None:
    source, backup = start(sql_bench, rules())
    clear = sql_bench.rows("source")
    [records] = source.read(None, WHOLE)
    assert ADDRESS not in repr(list(records))
    [images] = source.images([(1,)], Action.UPDATED)
    assert ADDRESS not in repr(images)

    sql_bench.sql("source", "UPDATE {table} SET Version = 2 WHERE Id = 1")
    [copies_of_all] = backup.read(None, WHOLE)
    source.write([copies_of_all[0]])
    assert sql_bench.rows("source") == clear
    sql_bench.sql("source", "DELETE FROM {table} WHERE Id = 1")
    with pytest.raises(StoreError, match="masked or transformed columns cannot be restored"):
        source.write([copies_of_all[0]])
    assert sql_bench.rows("source") == clear[1:]


REFUSED: list[tuple[dict[str, Mask], str]] = [
    ({"Mial": Mask("null")}, "no column Mial.*Did you mean Mail"),
    ({"Mail": Mask("null"), "mail": Mask("null")}, "second mask"),
    ({"id": Mask("null")}, "column Id.*part of the key"),
    ({"Version": Mask("null")}, "part of the key, the version or the filter"),
    ({"Sum": Mask("hmac")}, "column Sum.*holds no text"),
    ({"Sum": Mask("year")}, "column Sum.*holds no dates"),
    ({"Born": Mask("email")}, "column Born.*holds no text"),
    ({"Short": Mask("hmac")}, "column Short.*too short for 16"),
    ({"Code": Mask("text", "x" * 21)}, "column Code.*too short for 21"),
]
"""Masks that a column cannot have, and what is said of them."""


def test_masks_that_a_column_cannot_have_are_refused_before_anything_is_read(sql_bench: SqlBench) -> None:
    sql_bench.sql("source", f"CREATE TABLE {{table}} ({COLUMNS.format(null='')}, Short varchar(15))")
    for masks, reason in REFUSED:
        source, backup = opened(sql_bench, rules(masks))
        with pytest.raises(ConfigError, match=f"(?i){reason}") as refused:
            backup.catalog.initialize(source)
        assert ("Remove the mask" in refused.value.hint) == ("part of the key" in reason)


def test_a_mask_that_may_stand_for_two_columns_is_refused(postgresql_bench: SqlBench) -> None:
    bench = postgresql_bench
    bench.sql("source", 'CREATE TABLE {table} (Id integer PRIMARY KEY, "Mail" text, "mail" text, "Tags" varchar(40)[])')
    source, _ = opened(bench, rules({"MAIL": Mask("null")}))
    with pytest.raises(ConfigError, match=r"several columns .*: Mail, mail"):
        source.count()
    source, _ = opened(bench, rules({"Tags": Mask("hmac")}))
    with pytest.raises(ConfigError, match=r"column Tags .*holds no text"):
        source.count()


def test_a_source_with_a_column_called_as_the_stamp_is_refused(sql_bench: SqlBench) -> None:
    sql_bench.sql("source", f"CREATE TABLE {{table}} ({COLUMNS.format(null='')}, SourceStamp varchar(90))")
    source, _ = opened(sql_bench, rules())
    with pytest.raises(ConfigError, match=r"(?i)a column SourceStamp"):
        source.count()


def test_a_key_that_is_missing_or_short_is_refused() -> None:
    for key in ("", "x" * 15):
        with pytest.raises(ConfigError, match="BackupMask__Key"):
            Masking(MASKS, key)
    assert KEY not in repr(Masking(MASKS, KEY))


@pytest.mark.parametrize(
    ("kind", "text", "masked"),
    [
        ("year", "2024-05-06 Ada Lovelace called", None),
        ("year", "2024-05-06 07:08 in 12 Main Street", None),
        ("year", "2024-05-06T07:08:09.123+02:00", "2024-01-01T00:00:00.000+00:00"),
        ("year", "2024-05-06 07:08:09.1234567 -05:30", "2024-01-01 00:00:00.0000000 -00:00"),
        ("year", "2024-05-06 07:08:09+02", "2024-01-01 00:00:00+00"),
        ("year", "0044-03-15 BC", "0044-01-01 BC"),
        ("year", "2024-05-06  ", "2024-01-01"),
        ("year", "infinity", None),
        ("email", "call me @ home: 12 Main Street", "hmac"),
        ("email", "ada@x.org, telephone 555 1234", "hmac"),
        ("email", "Ada Lovelace@home", "hmac"),
        ("email", "@ada.lovelace", "hmac"),
        ("email", "ada@lovelace@x.org  ", "@x.org"),
        ("email", "ada@bücher.example", "@bücher.example"),
    ],
)
def test_a_text_that_is_no_date_and_no_address_shows_nothing(kind: MaskKind, text: str, masked: str | None) -> None:
    masking = Masking({"Note": Mask(kind)}, KEY)
    if kind == "email":
        local = masking.hmac(text if masked == "hmac" else text.rpartition("@")[0])
        masked = local + (masked or "").removeprefix("hmac")
    assert masking.masked("Note", text) == masked


ORDER = {"id": "1", "type": "Order", "status": "Paid", "lastModified": "2026-01-01T00:00:00Z", "customer": {"id": "a"}}
DOCUMENTS = [
    {
        **ORDER,
        "contact.mail": ADDRESS,
        "contact": {"mail": ADDRESS, "phones": [{"number": 42, "kind": "home"}]},
        "born": "1815-12-10T01:02:03Z",
    },
    {**ORDER, "id": "2", "contact": "none"},
]
KEY_OF_1 = ('"a"', "1")
ORDER_MASKS = {"contact.mail": Mask("email"), "contact.phones.number": Mask("hmac"), "born": Mask("year")}


def order_rules(masks: dict[str, Mask] = ORDER_MASKS, key: str = KEY) -> Rules:
    return replace(CosmosBench.rules, masking=Masking(masks, key))


def documents(bench: CosmosBench, role: Role = "backup") -> dict[str, dict[str, Any]]:
    items = bench.container(role).query_items("SELECT * FROM c", enable_cross_partition_query=True)
    return {item["id"]: item for item in items}


def test_documents_are_masked_in_copies_and_images(cosmos_bench: CosmosBench) -> None:
    cosmos_bench.create()
    for document in DOCUMENTS:
        cosmos_bench.container("source").upsert_item(document)
    source, backup = opened(cosmos_bench, order_rules())
    backup.catalog.initialize(source)
    assert run_sync(source, backup) == (2, 0, 0, 0)
    copy = documents(cosmos_bench)["1"]
    assert copy["contact"]["mail"].endswith("@example.org")
    assert "ada" not in copy["contact"]["mail"]
    assert len(copy["contact"]["phones"][0]["number"]) == 16
    assert copy["contact"]["phones"][0]["kind"] == "home"
    assert copy["contact.mail"] == copy["contact"]["mail"]  # a name may have dots of its own
    assert copy["born"] == "1815-01-01T00:00:00Z"
    assert documents(cosmos_bench)["2"]["contact"] == "none"
    source, backup = opened(cosmos_bench, order_rules())
    assert run_sync(source, backup) == (0, 0, 0, 2)
    report = Report()
    assert verify(source, backup, Depth(full=True), report) is None
    assert (report.counts, report.compared) == ({}, 2)

    assert source.fingerprint(WHOLE) == backup.fingerprint(WHOLE)
    other, _ = opened(cosmos_bench, order_rules({"born": Mask("year")}))
    assert other.fingerprint(WHOLE) != backup.fingerprint(WHOLE)

    # Fewer masks: their document is written anew, and one without masked values only compared.
    assert run_sync(*opened(cosmos_bench, order_rules({"born": Mask("year")})))[1] == 1
    assert documents(cosmos_bench)["1"]["contact"]["mail"] == ADDRESS
    # Its image is masked before it is kept.
    source, backup = opened(cosmos_bench, order_rules())
    [images] = backup.images([KEY_OF_1], Action.UPDATED)
    assert ADDRESS not in repr(images)

    # A restore writes what has no mask, and never a new document.
    [wanted] = backup.read(None, WHOLE)
    copies_of_1 = [{**record, "status": "Sent"} for record in wanted if record["id"] == "1"]
    changed = [backup.copies.original(record) for record in copies_of_1]
    assert source.write(changed, accept=lambda image: ADDRESS not in repr(image)).updated
    restored = documents(cosmos_bench, "source")["1"]
    assert restored["status"] == "Sent"
    assert restored["contact"] == DOCUMENTS[0]["contact"]
    assert restored["contact.mail"] == ADDRESS
    source.delete([KEY_OF_1])
    with pytest.raises(StoreError, match="cannot be restored"):
        source.write(changed, accept=lambda image: True)
    with pytest.raises(StoreError, match="cannot be restored"):
        source.write(changed)


def test_masks_of_what_tells_documents_apart_are_refused(cosmos_bench: CosmosBench) -> None:
    cosmos_bench.create()
    for name in ("id", "status", "lastModified", "type", "customer", "customer.id", "customer.id.x", "_etag"):
        source, _ = opened(cosmos_bench, order_rules({name: Mask("null")}))
        with pytest.raises(ConfigError, match=f"property {name} .* cannot be masked"):
            list(source.read(None, WHOLE))


def test_own_columns_are_known_in_the_case_in_which_the_server_takes_their_names(sql_bench: SqlBench) -> None:
    """Somebody made the backup's table. Where names that differ in case are two names, they are not the app's."""
    given = replace(rules(), of_set=True, keeps_deleted=True)
    start(sql_bench, given)
    for name, other in (("SourceStamp", "sourcestamp"), ("SyncedAt", "SYNCEDAT"), ("DeletedAt", "deletedAT")):
        is_mssql = sql_bench.kind == "mssql"
        renaming = f"EXEC sp_rename '{sql_bench.quoted()}.{name}', '{other}', 'COLUMN'"
        renaming = renaming if is_mssql else f'ALTER TABLE {{table}} RENAME "{name}" TO "{other}"'
        sql_bench.sql("backup", renaming)
    if sql_bench.kind == "postgresql":
        with pytest.raises(SchemaMismatch, match="for itself, and there is another one"):
            adapted(sql_bench, given)
        return
    sql_bench.sql("source", "DELETE FROM {table} WHERE Id = 2")
    sql_bench.sql("source", "UPDATE {table} SET Name = 'Grace', Version = 2 WHERE Id = 1")
    source, backup = adapted(sql_bench, given)
    assert run_sync(source, backup) == (0, 1, 1, 1)
    _, backup = adapted(sql_bench, given)
    assert backup.kept_deletes is not None
    assert backup.kept_deletes.count() == 1
    own = sql_bench.rows("backup", "SELECT SourceStamp, SyncedAt, DeletedAt FROM {table} ORDER BY Id")
    assert [[value is not None for value in row] for row in own] == [
        [True, True, False],
        [True] * 3,
        [True, True, False],
    ]
    [[kept]] = backup.images([(1,)], Action.UPDATED)
    assert kept.record is not None
    assert named(kept.record, "Name") == (copies(sql_bench)[1][0],)  # its stamp says that it is masked already
    assert run_sync(*adapted(sql_bench, given)) == (0, 0, 0, 2)


def test_a_source_may_have_such_a_column_of_its_own_without_masks(sql_bench: SqlBench) -> None:
    declared = {"mssql": "varbinary(40)"}.get(sql_bench.kind, "text")
    sql_bench.sql("source", f'CREATE TABLE {{table}} (Id INTEGER NOT NULL PRIMARY KEY, "SourceStamp" {declared})')
    sql_bench.sql("source", "INSERT INTO {table} (Id) VALUES (1)")
    source, backup = opened(sql_bench, Rules())
    backup.catalog.initialize(source)
    assert run_sync(source, backup) == (1, 0, 0, 0)
    assert run_sync(*opened(sql_bench, Rules())) == (0, 0, 0, 1)


@pytest.mark.parametrize("null", ["", "NOT NULL"], ids=["emptied", "deleted"])
def test_exchanged_values_leave_what_is_not_written_as_it_is(sql_bench: SqlBench, null: str) -> None:
    """Others have values that are unique, too: a masked column, one that is not copied, one that the backup lacks."""
    bench, given = (
        sql_bench,
        Rules(version=("Version",), exclude=("Fax",), masking=Masking({"Mail": Mask("email")}, KEY)),
    )
    names = "Id INTEGER NOT NULL PRIMARY KEY, Version INTEGER, Nick varchar(9)"
    bench.sql(
        "source", f"CREATE TABLE {{table}} ({names} {null} UNIQUE, Mail varchar(40) UNIQUE, Fax varchar(9) UNIQUE)"
    )
    rows = [(1, 1, "a", ADDRESS, "11"), (2, 1, "b", f"x{ADDRESS}", "22")]
    bench.sql("source", f"INSERT INTO {{table}} VALUES ({', '.join([bench.mark] * 5)})", rows)
    source, backup = opened(bench, given)
    backup.catalog.initialize(source)
    assert run_sync(source, backup) == (2, 0, 0, 0)
    [copied] = backup.read(None, WHOLE)
    bench.sql("source", "ALTER TABLE {table} ADD Later varchar(9)")
    bench.sql("source", "UPDATE {table} SET Later = Fax")  # first, for SQL Server takes two NULL for equal
    bench.sql("source", f"CREATE UNIQUE INDEX {bench.quote(f'{bench.name}_later')} ON {{table}} (Later)")
    bench.sql("source", "UPDATE {table} SET Nick = 'c' WHERE Id = 1")
    bench.sql("source", "UPDATE {table} SET Nick = 'a' WHERE Id = 2")
    bench.sql("source", "UPDATE {table} SET Nick = 'b' WHERE Id = 1")

    source, _ = opened(bench, given)
    assert source.relational is not None
    kept: list[Image] = []
    originals = [backup.copies.original(copy) for copy in copied]
    source.relational.exchange(originals, lambda images, *_: kept.extend(images))
    assert bench.rows("source") == [(*row, row[4]) for row in rows]
    assert len(kept) >= 2
    assert ADDRESS not in repr(kept)
