"""Which right a login lacks, in every server's words."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from backup.stores.sql.engines.mssql.errors import failure
from backup.stores.sql.engines.rights import mssql_hint, postgresql_hint
from backup.stores.sql.engines.sqlite.connection import SqliteFile

ODBC = "[42000] [Microsoft][ODBC Driver 18 for SQL Server][SQL Server]{} ({}) (SQLExecDirectW)."


@pytest.mark.parametrize(
    ("text", "code", "statement"),
    [
        (
            "The SELECT permission was denied on the object 'Customers', database 'Crm', schema 'customer'.",
            229,
            "GRANT SELECT ON [customer].[Customers] TO [app]",
        ),
        (
            "The INSERT permission was denied on the object 'SyncHistory', database 'Crm', schema 'customer'.",
            229,
            "GRANT INSERT ON [customer].[SyncHistory] TO [app]",
        ),
        (
            "The SELECT permission was denied on the column 'N' of the object 'Customers', database 'Crm', schema 'x'.",
            230,
            "GRANT SELECT ON [x].[Customers] TO [app]",
        ),
        (
            "The SELECT permission was denied on the object 'It's', database 'Crm', schema 'x'. (229) "
            "(SQLExecDirectW); [42000] [Microsoft]The UPDATE permission was denied on the object 'It's', "
            "database 'Crm', schema 'x'.",
            229,
            "GRANT SELECT ON [x].[It's] TO [app]",
        ),
        ("CREATE DATABASE permission denied in database 'master'.", 262, "GRANT CREATE ANY DATABASE TO [app]"),
        ("CREATE TABLE permission denied in database 'Crm'.", 262, "In the database Crm: GRANT CREATE TABLE TO [app]"),
        (
            'The server principal "app" is not able to access the database "Crm" under the current security context.',
            916,
            "CREATE USER [app]",
        ),
        ("permission denied for table rr", 33557097, "GRANT SELECT ON [rr] TO [app]"),
        ("must be owner of table rr", 33557097, "TO [app]"),
        ("Cannot insert the value NULL into column 'x'", 515, None),
    ],
)
def test_sql_servers_refusal_is_answered_with_the_grant(text: str, code: int, statement: str | None) -> None:
    hint = mssql_hint(ODBC.format(text, code), "app")
    assert hint is None if statement is None else statement in (hint or "")


@pytest.mark.parametrize(
    ("text", "statement"),
    [
        ("permission denied for table customers.", 'GRANT SELECT ON TABLE "customers" TO "app"'),
        ("permission denied for relation customers.", 'GRANT SELECT ON TABLE "customers" TO "app"'),
        ("permission denied for schema shop.", 'GRANT USAGE ON SCHEMA "shop" TO "app". '),
        (
            "permission denied for schema shop.",
            'GRANT USAGE, CREATE ON SCHEMA "shop" TO "app". `python -m backup grant',
        ),
        ('permission denied for table a"b.', 'GRANT SELECT ON TABLE "a""b" TO "app"'),
        ("permission denied to create database.", 'Make the database beforehand, or ALTER ROLE "app" CREATEDB.'),
        ("permission denied for database shop.", 'GRANT CREATE ON DATABASE "shop" TO "app"'),
        ("permission denied for sequence ids.", 'GRANT SELECT, UPDATE ON SEQUENCE "ids" TO "app"'),
        ("must be owner of table customers.", 'ALTER TABLE "customers" OWNER TO "app"'),
        ("null value in column x violates not-null constraint.", None),
    ],
)
def test_postgresqls_refusal_is_answered_with_the_grant(text: str, statement: str | None) -> None:
    hint = postgresql_hint(text, "app")
    assert hint is None if statement is None else statement in (hint or "")


@pytest.mark.parametrize(
    ("state", "text", "code", "kind"),
    [
        ("42S22", "Invalid column name 'Verb'.", 207, "column_missing"),
        ("42000", 'column "Verb" does not exist', 33557097, "column_missing"),  # as Babelfish has it
        ("42000", "column notes.later does not exist", 33557097, "column_missing"),
        (
            "42000",
            "The SELECT permission was denied on the column 'Verb' of the object 'SyncHistory', "
            "database 'Crm', schema 'x'.",
            230,
            "denied",
        ),
        ("42S02", "Invalid object name 'SyncHistory'.", 208, "missing"),
        ("42000", "Could not allocate space for object 'dbo.Rows' in database 'B'.", 1105, "unavailable"),
        ("42000", "The transaction log for database 'B' is full due to 'LOG_BACKUP'.", 9002, "unavailable"),
    ],
)
def test_sql_server_tells_what_is_missing_from_what_is_refused(state: str, text: str, code: int, kind: str) -> None:
    assert failure(Exception(state, ODBC.format(text, code)), "app").kind == kind


def test_a_full_disk_is_no_refusal_of_single_records(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "full.db")) as connection:
        connection.execute("CREATE TABLE Things (Id INTEGER PRIMARY KEY, Text TEXT)")
        connection.execute("PRAGMA max_page_count = 2")
        with pytest.raises(sqlite3.OperationalError) as full:
            connection.execute("INSERT INTO Things VALUES (1, ?)", ("x" * 100_000,))
    disk_failure = SqliteFile(make_url(f"sqlite:///{tmp_path / 'full.db'}")).failure(full.value)
    assert (disk_failure.kind, disk_failure.text) == ("unavailable", "database or disk is full.")
