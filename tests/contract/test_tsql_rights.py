"""What `grant` says to SQL Server, and which rights a login has too few or too many. Needs no server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.mssql.pyodbc import dialect as mssql_dialect

from backup.stores.grants import Grantee, Needed
from backup.stores.sql.engines.base import PlannedWrite
from backup.stores.sql.engines.mssql import rights
from backup.stores.sql.engines.tables import whole_schema


def test_rights_are_spelled_for_any_name_and_a_named_identity() -> None:
    client_id = UUID("00112233-4455-6677-8899-aabbccddeeff")
    needed = Needed("source", ("sh]op's",), unmasks=True)
    texts = [statement.sql for statement in rights.grant_statements(Grantee("a]pp'", client_id=client_id), needed)]
    sid = "0x33221100554477668899AABBCCDDEEFF"
    assert texts == [
        "IF EXISTS (SELECT 1 FROM sys.database_principals WHERE name = N'a]pp''' AND sid <> "
        f"{sid}) RAISERROR(N'[a]]pp''] is the user of another identity. DROP USER it first.', 16, 1)",
        f"IF DATABASE_PRINCIPAL_ID(N'a]pp''') IS NULL CREATE USER [a]]pp'] WITH SID = {sid}, TYPE = E",
        "GRANT SELECT ON SCHEMA::[sh]]op's] TO [a]]pp']",
        "GRANT VIEW DEFINITION TO [a]]pp']",
        "GRANT UNMASK TO [a]]pp']",
    ]
    of_object = rights.grant_statements(Grantee("app", object_id=client_id), Needed("backup", ("a'b",)))
    external = f"CREATE USER [app] FROM EXTERNAL PROVIDER WITH OBJECT_ID = '{client_id}'"
    assert [statement.sql for statement in of_object][:2] == [
        "IF SCHEMA_ID(N'a''b') IS NULL EXEC(N'CREATE SCHEMA [a''b]')",
        f"IF DATABASE_PRINCIPAL_ID(N'app') IS NULL {external}",
    ]
    with_password = rights.grant_statements(Grantee("app", has_password=True), Needed("source", ("dbo",)))
    assert with_password[0].sql == "IF DATABASE_PRINCIPAL_ID(N'app') IS NULL CREATE USER [app] FOR LOGIN [app]"


class _Rows(list[Any]):
    def one(self) -> Any:
        return self[0]


class _Catalogue:
    """Answers the queries of rights like a server on which the user is what the test says."""

    def __init__(
        self,
        database: dict[str, int],
        tables: list[dict[str, Any]],
        masked: int = 0,
        schema: dict[str, Any] | None = None,
    ) -> None:
        self.database, self.tables, self.masked = database, tables, masked
        self.schema = schema or {"id": 5, "ALTER": 1}
        self.sent: list[str] = []

    def execute(self, query: sa.TextClause, values: Mapping[str, Any] | None = None) -> Any:
        compiled = str(query.compile(dialect=mssql_dialect()))  # type: ignore[no-untyped-call]
        self.sent.append(compiled)
        rows = [self.database] if "IS_ROLEMEMBER" in compiled else self.tables
        rows = [self.schema] if "SCHEMA_ID" in compiled else rows
        return SimpleNamespace(mappings=lambda: _Rows(rows))

    def scalar(self, query: sa.TextClause, values: Mapping[str, Any] | None = None) -> int:
        return self.masked

    def exec_driver_sql(self, text: str, execution_options: Any = None) -> None:
        self.sent.append(text)


RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE", "ALTER")


@pytest.mark.parametrize(
    ("role", "granted", "expected"),
    [
        ("source", ("SELECT",), []),
        ("source", (), ["missing SELECT"]),
        ("source", ("SELECT", "INSERT", "ALTER"), ["excess INSERT", "excess ALTER"]),
        ("backup", RIGHTS, []),
        ("backup", ("SELECT", "INSERT"), ["missing UPDATE", "missing DELETE", "later ALTER"]),
    ],
)
def test_rights_on_tables_that_are_missing_or_too_many(role: Any, granted: Sequence[str], expected: list[str]) -> None:
    table = {"schema_name": "dbo", "table_name": "T", **{right: right in granted for right in RIGHTS}}
    cx: Any = _Catalogue({"definition": 1, "unmask": 1, "owner": 0}, [table, {**table, "table_name": "Other"}])
    findings = rights.look_at_rights(cx, Needed(role, ("dbo",), (("dbo", "T"),)), "o'app")
    assert [f"{right.kind} {right.right}" for right in findings] == expected
    assert {right.of for right in findings} <= {"dbo.T"}
    assert (cx.sent[0], cx.sent[-1]) == ("EXECUTE AS USER = N'o''app'", "REVERT")


def test_what_a_login_needs_to_make_the_tables_of_a_backup_is_missing_only_while_they_are() -> None:
    table = {"schema_name": "DBO", "table_name": "t", **dict.fromkeys(RIGHTS, 1)}
    needed = Needed("backup", ("dbo",), (("dbo", "T"), ("dbo", "SyncHistory")))
    history = {**table, "table_name": "SyncHistory"}
    rights_of = {"definition": 1, "unmask": 1, "owner": 0, "make_table": 0, "make_schema": 0}
    for tables, database, schema, expected in (
        ([table, history], {}, {}, []),  # it may be revoked once they are made, but for the new tables of a set
        ([table], {}, {}, ["CREATE TABLE on the database"]),
        ([], {}, {"ALTER": 0}, ["ALTER on schema dbo", "CREATE TABLE on the database"]),
        ([], {}, {"id": None, "ALTER": None}, ["CREATE SCHEMA on the database", "CREATE TABLE on the database"]),
        ([], {"make_table": 1, "make_schema": 1}, {"id": None, "ALTER": None}, []),
    ):
        cx: Any = _Catalogue({**rights_of, **database}, tables, schema={"id": 5, "ALTER": 1, **schema})
        findings = rights.look_at_rights(cx, needed, None)
        assert [f"{right.right} on {right.of}" for right in findings if right.kind == "missing"] == expected, expected
    of_set: Any = _Catalogue(rights_of, [table, history])
    [later] = rights.look_at_rights(of_set, replace(needed, grows=True), None)
    assert later == ("later", "CREATE TABLE", "the database")
    assert "QUOTENAME(DB_NAME())" in of_set.sent[0], "of `shop.2026` the server would know nothing"


def test_masked_columns_an_owner_and_hidden_definitions_are_seen() -> None:
    cx: Any = _Catalogue({"definition": 0, "unmask": 0, "owner": 1}, [], masked=2)
    findings = rights.look_at_rights(cx, Needed("source", ("dbo",)), None)
    expected = ["missing VIEW DEFINITION", "excess db_owner", "missing UNMASK"]
    assert [f"{right.kind} {right.right}" for right in findings] == expected


@pytest.mark.parametrize(
    ("answer", "column", "expected"),
    [
        (0, None, "The INSERT permission was denied on the object 'O']Brien', database 'shop', schema 'my shop'."),
        (0, "Na]me", "The UPDATE permission was denied on the object 'O']Brien', database 'shop', schema 'my shop'."),
        (1, None, None),
        (None, None, None),  # it does not say
    ],
)
def test_a_write_that_a_login_may_not_make_is_known_without_one(
    answer: int | None, column: str | None, expected: str | None
) -> None:
    sent: list[tuple[str, Mapping[str, str]]] = []

    def execute(query: sa.TextClause, values: Mapping[str, str]) -> Any:
        sent.append((str(query), values))
        return SimpleNamespace(one=lambda: (answer, "shop"))

    write = PlannedWrite("INSERT" if column is None else "UPDATE", "", column)
    table = sa.Table("O']Brien", sa.MetaData(), schema=whole_schema("my shop"))
    cx: Any = SimpleNamespace(execute=execute)
    refused = rights.refusal(cx, table, write, "app")
    assert (refused and (refused.kind, refused.text)) == (expected and ("denied", expected))
    assert refused is None or f"GRANT {write.right} ON [my shop].[O']]Brien] TO [app]" in str(refused.hint)
    [(query, values)] = sent
    assert (values["table"], values["right"]) == ("[my shop].[O']]Brien]", write.right)
    assert (values.get("column"), "'COLUMN'" in query) == (column, column is not None), "a name without brackets"
