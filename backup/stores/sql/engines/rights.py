"""Finds the right that a login lacks in a server's refusal, and the statement that grants it. No I/O."""

from __future__ import annotations

import re

_NOTHING_MADE = "Nothing was made."
_WRITES = " Where the app writes (a backup, a source to restore into): SELECT, INSERT, UPDATE, DELETE."

# PostgreSQL's refusal names a table without its schema.
_ALL = "`python -m backup grant --print` prints all that it needs, with the schema of each table."


def mssql_hint(text: str, login: str | None) -> str | None:
    """What to do about "The SELECT permission was denied …" and similar texts of SQL Server; None for other texts."""
    user = _bracketed(login) if login else "the app's user"
    if re.search(r"CREATE DATABASE permission (?:was )?denied in database 'master'|denied to create database", text):
        return f"Make the database beforehand, or in master: GRANT CREATE ANY DATABASE TO {user}. {_NOTHING_MADE}"
    text = re.sub(r"\s*\(\d+\) \(SQL\w+\)\.?$", "", text)
    if match := re.search(
        # Names may have quotes, and another message may follow.
        r"The (\w[\w ]*?) permission was denied on the (?:column '.+?' of the )?object '(.+?)', database '.+?', "
        r"schema '(.+?)'(?=\.|$)",
        text,
    ):
        right, name, schema = match.groups()
        return f"In the database: GRANT {right} ON {_bracketed(schema)}.{_bracketed(name)} TO {user}." + _and_writes(
            right
        )
    if match := re.search(r"([A-Z][A-Z ]+) permission (?:was )?denied in database '([^']*)'", text):
        return f"In the database {match[2]}: GRANT {match[1]} TO {user}."
    if "is not able to access the database" in text:
        return f"In the database: CREATE USER {user} FOR LOGIN {user}, or FROM EXTERNAL PROVIDER for an identity."
    if "because it does not exist or you do not have permission" in text or "does not have permission" in text:
        return f"In the database: GRANT the right on the object, or ALTER and VIEW DEFINITION on its schema, TO {user}."
    if match := re.search(r"permission denied for (?:table|view|relation) (\S+)$", text):  # Babelfish's words
        return f"In the database: GRANT SELECT ON {_bracketed(match[1])} TO {user}.{_WRITES}"
    if "permission denied for" in text or "must be owner of" in text:
        return f"In the database: GRANT the right that the message names, or ALTER on the schema, TO {user}."
    return None


def mssql_unseen_hint(schema: str, table: str, login: str | None) -> str:
    """What to do if SQL Server's catalogue has no such table: it shows a login only tables on which it has a right."""
    user = _bracketed(login) if login else "the app's user"
    return (
        f"Or the table is there and this login, without a right on it, does not see it: GRANT SELECT ON "
        f"{_bracketed(schema)}.{_bracketed(table)} TO {user}.{_WRITES}"
    )


def postgresql_hint(text: str, login: str | None) -> str | None:
    """What to do about "permission denied for table …" and similar texts of PostgreSQL; None for other texts."""
    role = _quoted(login) if login else "the app's role"
    if "permission denied to create database" in text:
        return f"Make the database beforehand, or ALTER ROLE {role} CREATEDB. {_NOTHING_MADE}"
    match = re.search(r"(permission denied for|must be owner of) ([a-z ]+?) (\S.*?)\.?$", text)
    if match is None:
        return None
    refusal, kind, name = match.groups()
    if refusal == "must be owner of":
        return f"ALTER {kind.upper()} {_quoted(name)} OWNER TO {role}: only its owner alters it."
    if kind == "schema":
        makes = f"Where it makes tables (a backup): GRANT USAGE, CREATE ON SCHEMA {_quoted(name)} TO {role}."
        return f"GRANT USAGE ON SCHEMA {_quoted(name)} TO {role}. {makes} {_ALL}"
    right = {
        "database": "CREATE",
        "sequence": "SELECT, UPDATE",  # a restore reads its last number and sets it
        "function": "EXECUTE",
        "type": "USAGE",
    }.get(kind, "SELECT")
    kind = kind if kind != "relation" else "table"
    hint = f"GRANT {right} ON {kind.upper()} {_quoted(name)} TO {role}." + _and_writes(right)
    return f"{hint} {_ALL}" if kind == "table" else hint


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _bracketed(name: str) -> str:
    return f"[{name.replace(']', ']]')}]"


def _and_writes(right: str) -> str:
    return _WRITES if right == "SELECT" else ""


def row_security_hint(table: str, role: str | None) -> str:
    """What to do about a table of PostgreSQL whose policies may hide rows from the role."""
    who = f'"{role}"' if role else "the app's role"
    return (
        f"A copy of what a role may see would lose the rest. ALTER ROLE {who} BYPASSRLS, or make it the owner of "
        f"{table} (without FORCE ROW LEVEL SECURITY). A policy that lets it see all rows is not enough."
    )
