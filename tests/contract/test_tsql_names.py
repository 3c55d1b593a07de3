"""Names that nobody should choose, in every statement of T-SQL that is made of a table's names. Needs no server."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from backup.stores import Rules
from backup.stores.grants import Grantee, Needed
from backup.stores.sql.engines.column import spelled_table
from backup.stores.sql.engines.mssql import altering, rights
from backup.stores.sql.engines.mssql.altering import MSSQL
from backup.stores.sql.engines.mssql.counters import own_identities
from backup.stores.sql.engines.mssql.fingerprint import fingerprint_query
from backup.stores.sql.engines.mssql.json import insert_statement, to_json, update_statement
from backup.stores.sql.engines.mssql.relay import empty_staging_table
from backup.stores.sql.engines.mssql.snapshot import anchor
from backup.stores.sql.engines.prepared import Prepared
from backup.stores.sql.engines.tables import TableName
from backup.stores.sql.table import TableShape
from tests.contract.tsql import Session, column, dialect, unasked_server

_MARK = "\N{SKULL AND CROSSBONES}"  # no statement has it by itself
_QUOTED = re.compile(r"\[(?:[^\]]|\]\])*\]|N?'(?:[^']|'')*'")


def names_in(statement: str) -> set[str]:
    """The names with the mark that the statement has in brackets, also in its literals."""
    quoted = [token for token in _QUOTED.findall(statement) if _MARK in token]
    assert _MARK not in _QUOTED.sub("", statement), statement
    literals = [token.removeprefix("N")[1:-1].replace("''", "'") for token in quoted if token[0] != "["]
    within = [token for literal in literals for token in _QUOTED.findall(literal)]
    return {token[1:-1].replace("]]", "]") for token in [*quoted, *within] if token[0] == "["}


def statements(schema: str, name: str, key: str, text: str, user: str) -> list[Any]:
    columns = [
        column(key, "int", nullable=False),
        column(text, "nvarchar", 80, collation="Latin1_General_CI_AS"),
    ]
    place = TableName(schema, name)
    shape, server, session = TableShape(columns, (key,), Rules(), place, "table"), unasked_server(), Session()
    rows = to_json([column.type for column in shape.table.columns], [(1, "a")])
    assert rows is not None
    made: list[Any] = []
    for statement, spell in (
        (shape.insert(shape.names), insert_statement),
        (shape.update(shape.names), update_statement),
    ):
        prepared = Prepared.of(statement, shape.names, {"v0": 0, "v1": 1, "k0": 0}, dialect())
        made += [prepared.text, spell(prepared, rows.forms, dialect()).text]
    cx: Any = session
    empty_staging_table(cx, shape.table, shape.names)
    session.info["identity insert"] = spelled_table(MSSQL, shape.table)  # as an error leaves it
    with own_identities(cx, spelled_table(MSSQL, shape.table)):
        pass
    granted = rights.grant_statements(Grantee(user), Needed("backup", (schema,)))
    return [
        *made,
        *session.asked[1:],
        *altering.alter_column(shape.table, columns[1], replace(columns[1], nullable=False), ""),
        altering.add_column(shape.table, columns[1]),
        sa.schema.CreateTable(shape.table),
        sa.schema.CreateSchema(schema),
        *(statement.sql for statement in granted),
        fingerprint_query(shape.stamps(server), [shape.key[0] > 1]),
        server.locked(shape.select.where(shape.is_one_of([(1,), (2,)])).order_by(*shape.key).limit(7)),
        shape.table.delete().where(shape.is_one_of([(1,)])),
        anchor(place),
    ]


@pytest.mark.parametrize("odd", ["]", "[", "]]--", "']", "a.b", " ", "%s?", ":x", '"', "\n/*", "select"])
def test_every_statement_has_such_names_in_brackets_and_nothing_of_them_elsewhere(odd: str) -> None:
    names = [f"{kind}{odd}{_MARK}{odd}" for kind in ("schema", "name", "key", "text", "user")]
    for statement in statements(*names):
        spelled = statement if isinstance(statement, str) else str(statement.compile(dialect=dialect()))
        assert names_in(spelled), spelled
        assert names_in(spelled) <= {*names}, spelled
