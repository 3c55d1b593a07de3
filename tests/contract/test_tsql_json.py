"""Rows that go to SQL Server in one JSON parameter. Needs no server."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backup.stores.sql.engines.mssql.json import (
    JsonRows,
    Spelled,
    insert_statement,
    is_long,
    to_json,
    update_statement,
)
from backup.stores.sql.engines.prepared import Prepared
from backup.stores.sql.table import TableShape
from tests.contract.test_sqlserver_servers import PLAIN
from tests.contract.tsql import COLUMNS, dialect, shape, unasked_server


def prepared(things: TableShape, change: str, names: tuple[str, ...]) -> Prepared:
    places = {f"v{i}": i for i in range(len(names))} | {f"k{i}": names.index(n) for i, n in enumerate(things.key_names)}
    statement = things.insert(names) if change == "insert" else things.update(names)
    return Prepared.of(statement, names, places, dialect())


def sent(things: TableShape, names: tuple[str, ...], *rows: tuple[Any, ...]) -> JsonRows:
    as_json = to_json([things.table.c[name].type for name in names], rows)
    assert as_json is not None
    return as_json


def spelled(statement: Spelled) -> str:
    return " ".join(statement.text.split()).replace("[my shop].[Things]", "T")


EVERY_KIND = ("Id", "Region", "Notes", "Amount", "At", "Doc", "Stamp", "Node", "Version")


def test_rows_in_json_are_converted_as_parameters_are() -> None:
    things = shape()
    row = (1, "EU", "漢", Decimal("1E+2"), "2024-01-02", "<a/>", b"\x00\xff", b"\x58", 2**63 - 1)
    sent_rows = sent(things, EVERY_KIND, row, (-1, *(None,) * 8))
    assert sent_rows.text == (
        '[[1,"EU","漢","100","2024-01-02","<a/>","00ff","58",9223372036854775807],'
        "[-1,null,null,null,null,null,null,null,null]]"
    )
    assert spelled(insert_statement(prepared(things, "insert", EVERY_KIND), sent_rows.forms, dialect())) == (
        "INSERT INTO T ([Id], [Region], [Notes], [Amount], [At], [Doc], [Stamp], [Node], [Version])"
        " SELECT sent.c0, sent.c1, sent.c2, sent.c3, sent.c4, sent.c5, sent.c6, sent.c7, sent.c8 FROM ("
        "SELECT j.c0 AS c0, CAST(j.c1 COLLATE SQL_Latin1_General_CP1_CI_AS AS varchar(8000)) AS c1, j.c2 AS c2,"
        " CAST(j.c3 AS decimal(18, 4)) AS c3, convert(datetime2(7), j.c4, 121) AS c4, convert(xml, j.c5, 1) AS c5,"
        " convert(varbinary(max), CAST(j.c6 AS varchar(4000)), 2) AS c6,"
        " CAST(convert(varbinary(max), CAST(j.c7 AS varchar(4000)), 2) AS hierarchyid) AS c7,"
        " j.c8 AS c8 FROM OPENJSON(?) WITH (c0 bigint '$[0]', c1 nvarchar(4000) '$[1]', c2 nvarchar(4000) '$[2]',"
        " c3 nvarchar(4000) '$[3]', c4 nvarchar(4000) '$[4]', c5 nvarchar(4000) '$[5]', c6 nvarchar(4000) '$[6]',"
        " c7 nvarchar(4000) '$[7]', c8 bigint '$[8]') AS j) AS sent"
    )


def test_a_time_that_all_rows_share_goes_once_beside_them() -> None:
    names, now = ("At", "Id", "Amount"), "2026-01-02 03:04:05.678"
    rows = [(now, number, Decimal(1)) for number in (1, 2)]
    sent_rows = sent(shape(), names, *rows)
    assert (sent_rows.text, sent_rows.shared) == ('[[1,"1"],[2,"1"]]', {"c0": now})
    rest = (
        " convert(datetime2(7), ?, 121) AS c0, j.c1 AS c1, CAST(j.c2 AS decimal(18, 4)) AS c2 FROM"
        " OPENJSON(?) WITH (c1 bigint '$[0]', c2 nvarchar(4000) '$[1]') AS j) AS sent"
    )
    for change, spell in (("insert", insert_statement), ("update", update_statement)):
        statement = spell(prepared(shape(), change, names), sent_rows.forms, dialect())
        assert f"(SELECT{rest}" in spelled(statement)
        assert statement.parameters == ("c0", "rows")
    equal = [("2026-01-02 03:04:05.67" + str(number), number, Decimal(1)) for number in (8, 8)]
    assert [sent(shape(), names, *some).shared for some in (rows[:1], equal)] == [{}, {}], "one row, and two objects"


def test_an_update_from_json_finds_its_rows_as_the_key_compares() -> None:
    names = ("Region", "Id", "Name")
    things = shape(("Region", "Id", "Name"))
    sent_rows = sent(things, names, ("EU", 1, "a"))
    assert spelled(update_statement(prepared(things, "update", names), sent_rows.forms, dialect())) == (
        "UPDATE T SET [Region]=sent.c0, [Name]=sent.c2 FROM T, ("
        "SELECT CAST(j.c0 COLLATE SQL_Latin1_General_CP1_CI_AS AS varchar(8000)) AS c0, j.c1 AS c1, j.c2 AS c2"
        " FROM OPENJSON(?) WITH (c0 nvarchar(4000) '$[0]', c1 bigint '$[1]', c2 nvarchar(4000) '$[2]') AS j) AS sent"
        " WHERE T.[Region] = (sent.c0 COLLATE SQL_Latin1_General_CP1_CI_AS) AND T.[Id] = CAST(sent.c1 AS int)"
        " AND T.[Name] = (sent.c2 COLLATE Latin1_General_CI_AS)"
    )


def test_an_update_writes_no_integer_of_the_key_unless_there_is_nothing_else() -> None:
    things = shape(("Id",))
    for names, written in ((("Id", "Name"), "[Name]=sent.c1"), (("Id",), "[Id]=sent.c0")):
        sent_rows = sent(things, names, (1, "a")[: len(names)])
        update = spelled(update_statement(prepared(things, "update", names), sent_rows.forms, dialect()))
        assert update.startswith(f"UPDATE T SET {written} FROM T, (")


def test_what_json_escapes_travels_as_characters_that_the_rows_do_not_have() -> None:
    things = shape()
    names = ("Id", "Name", "Notes")
    sent_rows = sent(things, names, (1, 'say "x"', "\ue000 and a\ttab"), (2, "C:\\", "plain"))
    assert sent_rows.text == '[[1,"say \ue002x\ue002","\ue000 and a\ue001tab"],[2,"C:\ue003","plain"]]'
    assert sent_rows.forms[1].replaced == (("\ue002", '"'), ("\ue003", "\\"))
    assert sent_rows.forms[2].replaced == (("\ue001", "\t"),)
    assert (
        "replace(replace(j.c1 COLLATE Latin1_General_BIN2, nchar(57346), nchar(34)), nchar(57347), nchar(92)) AS c1,"
        " replace(j.c2 COLLATE Latin1_General_BIN2, nchar(57345), nchar(9)) AS c2"
    ) in spelled(insert_statement(prepared(things, "insert", names), sent_rows.forms, dialect()))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("100% [odd]", 0.1, id="float"),
        pytest.param("Notes", "a\0b", id="NUL"),
        pytest.param("Notes", "".join(map(chr, range(1, 8))), id="too many characters to be replaced"),
        pytest.param("Id", 2**63, id="no 64 bits"),
        pytest.param("Id", "1", id="no integer"),
        pytest.param("Stamp", "00", id="no bytes"),
    ],
)
def test_what_json_might_not_give_back_goes_another_way(name: str, value: Any) -> None:
    assert to_json([shape().table.c[name].type], [(None,), (value,)]) is None


@pytest.mark.parametrize(("name", "value"), [("Stamp", b"\n"), ("Node", b"\n"), ("Id", 1), ("Notes", "0A")])
def test_bytes_go_another_way_to_a_server_that_takes_digits_for_bytes(name: str, value: Any) -> None:
    server = unasked_server()
    for reads_hex in (1, 0):
        server._columns([{**PLAIN, "reads_hex": reads_hex}])
        rows = to_json([shape().table.c[name].type], [(value,)], reads_hex=server.reads_hex)
        assert (rows is None) is (isinstance(value, bytes) and not reads_hex)


def test_rows_of_many_columns_go_another_way() -> None:
    assert to_json([COLUMNS[0].type] * 91, [(1,) * 91]) is None
    assert to_json([COLUMNS[0].type] * 90, [(1,) * 90]) is not None


@given(st.lists(st.tuples(st.text(), st.integers(-(1 << 63), (1 << 63) - 1), st.binary()), min_size=1))
def test_no_escape_is_ever_sent(rows: list[tuple[str, int, bytes]]) -> None:
    sent_rows = to_json([shape().table.c[name].type for name in ("Notes", "Version", "Stamp")], rows)
    if sent_rows is None:
        assert len(set("".join(text for text, _, _ in rows)) & {*map(chr, range(32)), '"', "\\"}) > 6 or any(
            "\0" in text for text, _, _ in rows
        )
        return
    assert "\\" not in sent_rows.text
    back = str.maketrans(dict(sent_rows.forms[0].replaced))
    assert [(t.translate(back), n, bytes.fromhex(h)) for t, n, h in json.loads(sent_rows.text)] == rows


@pytest.mark.parametrize(
    ("value", "long"),
    [
        ("x" * 4000, False),
        ("x" * 4001, True),
        ("ä" * 2001, True),
        (b"x" * 2000, False),
        (b"x" * 2001, True),
        (1, False),
    ],
)
def test_long_values_are_known_by_the_places_they_take(value: Any, long: bool) -> None:
    assert is_long((None, value)) is long
