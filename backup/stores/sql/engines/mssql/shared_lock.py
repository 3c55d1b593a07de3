"""Whether two connections lead to one database of SQL Server: they share an application lock."""

from __future__ import annotations

from uuid import uuid4

import sqlalchemy as sa

from backup.core.errors import StoreError

# The session's lock, not the transaction's: the driver leaves it to the server to begin a transaction, and EXEC does
# not begin one. Then the server would print a message, and take no lock. It belongs to one database. But other servers
# that speak T-SQL may share locks: so compare DB_ID() as well.
_LOCK = sa.text(
    "EXEC sp_getapplock @Resource = :name, @LockMode = 'Exclusive', @LockOwner = 'Session', @LockTimeout = 0"
)
_UNLOCK = sa.text("EXEC sp_releaseapplock @Resource = :name, @LockOwner = 'Session'")
# A readable secondary has locks of its own. But all replicas of a database have one number in their availability group.
_OF_GROUP = "(SELECT group_database_id FROM sys.databases WHERE database_id = DB_ID())"
_HELD = sa.text(f"SELECT APPLOCK_MODE('public', :name, 'Session'), DB_ID(), {_OF_GROUP}")
_FREE = sa.text(f"SELECT APPLOCK_TEST('public', :name, 'Exclusive', 'Session'), DB_ID(), {_OF_GROUP}")


def share_a_lock(here: sa.Connection, there: sa.Connection, location: str) -> bool:
    """Takes a lock with a new name on one connection. If the other cannot take it, their database is the same. So it is
    if both are replicas of one database.

    Leaves no lock. Raises StoreError, which names the `location`, if the server gives no such lock: then nothing tells
    the two apart.
    """
    name = {"name": f"backup-{uuid4()}"}
    here.execute(_LOCK, name)
    held, database_here, replicated_here = here.execute(_HELD, name).one()
    if held != "Exclusive":
        raise StoreError(
            f"{location} gives no application lock, so nothing tells whether both sides are one database.",
            hint="Nothing was read or written. Let the login EXECUTE sp_getapplock.",
        )
    try:
        free_there, database_there, replicated_there = there.execute(_FREE, name).one()
    finally:
        here.execute(_UNLOCK, name)
    if replicated_here is not None and replicated_here == replicated_there:
        return True
    return bool(free_there == 0 and database_here == database_there)
