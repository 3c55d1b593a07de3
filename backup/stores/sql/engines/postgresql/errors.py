"""What errors of psycopg and PostgreSQL mean, by their states and their words."""

from __future__ import annotations

import re

from backup.stores.sql.engines.failures import FULL_HINT, Failure, driver_text, name_in
from backup.stores.sql.engines.rights import postgresql_hint, row_security_hint

# libpq's own words: such errors have no state.
_UNANSWERED = (
    *("Connection refused", "could not translate host name", "failed to resolve host", "Name or service not known"),
    *("No route to host", "Network is unreachable", "No such file or directory"),
)
_NOT_VERIFIED = (
    *("server does not support SSL", "certificate verify failed", "root certificate", "server certificate for"),
    *("weak sslmode", "SSL error: certificate"),
)
_NOT_VERIFIED_HINT = (
    "A server that is not on this machine must prove who it is, so that no password goes to another. Give it a "
    "certificate of a known authority, or name your own: ?sslrootcert=/path/root.crt. Or say ?sslmode=require in the "
    "connection string (encrypted, to whomever), or ?sslmode=disable."
)
_EXCHANGED = ("23505", "23P01")
"""A unique value, or one that an exclusion constraint forbids: another record may be about to give it up."""
_READS_ONLY = "25006"
_READS_ONLY_HINT = (
    "The server is a standby, or the database or the login has default_transaction_read_only. Name the primary, or "
    "ALTER … SET default_transaction_read_only = off."
)
FULL = ("53100", "53400")
"""A disk is full, or a limit is reached, such as temp_file_limit."""
# The database or the role is gone or was made again; the server only reads now, since another one took its place.
_OF_OLD_SESSIONS = ("3D000", "42704", _READS_ONLY, "XX000", "42501")


def is_session_lost(error: Exception, was_idle: bool) -> bool:
    """Whether the session may be the reason of the error. Only one that was idle can be out of date."""
    state = getattr(error, "sqlstate", None) or ""
    if not was_idle or state not in _OF_OLD_SESSIONS:
        return False
    # A policy refuses a row, not the session; there may be thousands.
    return not (state == "42501" and "new row violates" in str(error))


def is_login_refused(error: Exception) -> bool:
    """Whether the server refuses the login's password. It has no state where no connection was made."""
    return getattr(error, "sqlstate", None) == "28P01" or "authentication failed for user" in str(error)


def failure(error: Exception, login: str | None) -> Failure:
    """What a driver's error means; hints name this login."""
    state = getattr(error, "sqlstate", None) or ""
    diagnosis = getattr(error, "diag", None)
    text = driver_text(Exception(getattr(diagnosis, "message_primary", None) or str(error)))
    whole = str(error)
    if state == "3D000" or (not state and "FATAL" in whole and "does not exist" in whole and "database" in whole):
        return Failure("database_missing", text)
    if state in ("42P01", "3F000") and getattr(diagnosis, "statement_position", None):
        # Without a position a value or a function names the table, not the statement.
        return Failure("missing", text, name=name_in(text))
    if state == "42703" and getattr(diagnosis, "statement_position", None):
        return Failure("column_missing", text)
    # A database with SQL_ASCII may have bytes that are not valid UTF-8; any other encoding lacks characters.
    if state in ("22021", "22P05"):
        return Failure("undecoded", text)
    if state == "42501":
        policy = re.search(r"row-level security policy for table (.+?)\.?$", text)
        hint = row_security_hint(policy[1], login) if policy else postgresql_hint(text, login)
        # A policy that refuses a new row refuses only that row.
        return Failure("refused" if text.startswith("new row violates") else "denied", text, hint)
    if not state and any(words in whole for words in _NOT_VERIFIED):
        return Failure("unavailable", text, _NOT_VERIFIED_HINT)
    if not state and any(words in whole for words in _UNANSWERED):
        return Failure("unanswered", text)
    if not state and type(error).__name__ == "ProgrammingError":  # libpq does not know an option of the URL
        return Failure("unavailable", text)
    refused = "authentication failed" in whole or "pg_hba.conf" in whole or ("role" in whole and not state)
    if state[:2] == "28" or refused:
        return Failure("unavailable", text)
    if state == _READS_ONLY:
        return Failure("unavailable", text, _READS_ONLY_HINT)
    if state in FULL:
        return Failure("unavailable", text, FULL_HINT)
    if state[:2] in ("08", "53", "57") or state in ("40001", "40P01", "55P03", "25P03", "25P04"):
        return Failure("transient", text)
    if not state and type(error).__name__ == "OperationalError":  # no server has answered
        return Failure("transient", text)
    if state in _EXCHANGED:
        return Failure("unique", text)
    return Failure("constraint" if state[:2] == "23" else "refused", text)
