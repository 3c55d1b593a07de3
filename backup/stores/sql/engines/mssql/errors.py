"""What errors of SQL Server and its driver mean, by their states and codes."""

from __future__ import annotations

import re

from backup.stores.sql.engines.failures import FULL_HINT, Failure, driver_text, name_in
from backup.stores.sql.engines.rights import mssql_hint

_STATE_TRANSIENT = {"08S01", "08001", "08003", "08007", "HYT00", "HYT01", "40001", "01002"}
# Deadlock, lock timeout, snapshot conflicts, connection resets, and Azure SQL's list of transient errors.
_CODE_TRANSIENT = {20, 64, 233, 1205, 1222, 1807, 3960, 3961, 8645, 8651, 10053, 10054, 10060, 10928, 10929, 10936}
_CODE_TRANSIENT |= {40020, 40143, 40166, 40197, 40501, 40540, 40613, 42108, 42109, 49918, 49919, 49920}
# The server has too little of something at the moment, or another transaction was in the way.
_CODE_AGAIN = {669, 701, 802, 845, 846, 847, 1204, 1221, 3966, 3967, 8628, 9515, 10922}
_CODE_AGAIN |= {41301, 41302, 41305, 41325, 41839}  # of tables in memory
_CODE_AGAIN |= {3702}  # somebody is in the database that is to be dropped: perhaps a session that was lost
_CODE_TRANSIENT |= _CODE_AGAIN
# Of sessions: it is being killed, the server shuts down, or the database is not back yet after a failover.
_CODE_TRANSIENT |= {596, 615, 921, 922, 926, 952, 983, 4221, 6005}
_CODE_TRANSIENT |= {40549, 40550, 40551, 40552, 40553}  # Azure SQL has ended it: it held or used too much
# The session is as good as before: it lost against another one, or the server has too much to do.
_CODE_OF_GOOD_SESSIONS = {1205, 1222, 1807, 3960, 3961, 8645, 8651, 10928, 10929, 10936, 40501, 49918, 49919, 49920}
_CODE_OF_GOOD_SESSIONS |= _CODE_AGAIN
_CODE_READS_ONLY = 3906
# The login or the database may have been made again, or the database only reads, since another server took its place.
_CODE_OF_OLD_SESSIONS = {229, 230, 262, 297, 300, 911, 916, 976, 978, 4060, 15247, 15404, 15517, 18456}
_CODE_OF_OLD_SESSIONS |= {_CODE_READS_ONLY}
# A file group, also of tempdb; a log; the versions of rows in tempdb; the quota of Azure SQL, or of tables in memory.
_CODE_FULL = {1101, 1105, 9002, 3958, 3959, 40544, 41823, 41840}
_READS_ONLY_HINT = (
    "The database is a readable secondary, or read-only. Name the primary, without ApplicationIntent=ReadOnly, or "
    "ALTER DATABASE … SET READ_WRITE."
)
_CODE_CONSTRAINT = {515, 547}
_CODE_UNIQUE = {2601, 2627}
_CODE_IN_MEMORY = {41332, 41368}  # a table in memory, read under SNAPSHOT or under READ COMMITTED
_OF_USERS = 50_000  # RAISERROR and THROW use codes from here on
_CODE_LOGIN = {18452, 18456, 18470, 18486, 18487, 18488, 40615}
_AGAIN_IN_BABELFISH = re.compile("due to lock timeout|Cannot drop database .* because it is currently in use")
_IN_MEMORY_HINT = (
    "A memory-optimized table can be read where the database has MEMORY_OPTIMIZED_ELEVATE_TO_SNAPSHOT and "
    "READ_COMMITTED_SNAPSHOT on: ALTER DATABASE … SET … ON. Or leave it out by exclude in backup.toml."
)
_NOT_VERIFIED_HINT = (
    "The server must prove who it is. Give it a certificate of a known authority, or say TrustServerCertificate=True "
    "in the connection string for a server of your own."
)


def is_session_lost(error: Exception, was_idle: bool) -> bool:
    """Whether the session may be the reason of the error, by its number. Only one that was idle can be out of date."""
    codes = _codes(error)
    lost = _CODE_TRANSIENT - _CODE_OF_GOOD_SESSIONS
    return bool(codes & (lost | _CODE_OF_OLD_SESSIONS if was_idle else lost))


def is_login_refused(error: Exception) -> bool:
    """Whether the server refuses the login's password, or has locked the login."""
    return bool(_codes(error) & {18456, 18486})


def failure(error: Exception, login: str | None) -> Failure:
    """What a driver's error means; hints name this login."""
    state, codes, text = str(error.args[0]) if error.args else "", _codes(error), driver_text(error)
    if codes & {4060, 911}:
        return Failure("database_missing", text)
    if state == "42S02" or 208 in codes or re.search(r'relation "[^"]*" does not exist', text):  # Babelfish's words
        return Failure("missing", text, name=name_in(text))
    if state == "42S22" or 207 in codes or re.search(r'column ("[^"]*"|\S+) does not exist', text):  # Babelfish's words
        return Failure("column_missing", text)
    if isinstance(error, OSError):  # from `connect`
        return Failure("unanswered", text)
    hint = mssql_hint(text, login)
    if state == "28000" or codes & _CODE_LOGIN:
        return Failure("unavailable", text, hint)
    if state == "08001" and "certificate" in text.lower():
        return Failure("unavailable", text, _NOT_VERIFIED_HINT)
    if state in ("IM002", "01000") and "Can't open lib" in text:
        return Failure("unavailable", text)
    if state in _STATE_TRANSIENT or codes & _CODE_TRANSIENT or _AGAIN_IN_BABELFISH.search(text):
        return Failure("transient", text)
    if codes & _CODE_IN_MEMORY:
        return Failure("refused", text, _IN_MEMORY_HINT)
    if _CODE_READS_ONLY in codes:
        return Failure("unavailable", text, _READS_ONLY_HINT)
    if codes & _CODE_FULL:
        return Failure("unavailable", text, FULL_HINT)
    if codes & _CODE_UNIQUE:
        return Failure("unique", text)
    if codes & _CODE_CONSTRAINT or state == "23000":
        return Failure("constraint", text)
    if hint is None or any(code >= _OF_USERS for code in codes):  # a trigger's own error is about a row
        return Failure("refused", text)
    return Failure("denied", text, hint)


def _codes(error: BaseException | None) -> set[int]:
    # After each message stands `(its number) (the function)`. A message itself may say `nvarchar(64)`.
    text = " ".join(str(part) for part in (error.args if error else ()))
    return {int(code) for code in re.findall(r"\((\d{2,6})\)(?= \(SQL|; \[|$)", text)}
