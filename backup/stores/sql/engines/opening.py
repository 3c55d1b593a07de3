"""How a dialect is opened: its connections, and how long it waits."""

from __future__ import annotations

from typing import NamedTuple

CONNECTIONS = 6
"""How many connections a dialect opens at most, by default."""

LOCK_SECONDS = 60
"""How long a statement waits for a lock of another connection, on servers that would otherwise wait for ever."""

CALL_SECONDS = 600.0
"""After how many seconds a call ends, by default."""


class DialectOptions(NamedTuple):
    """How to open a dialect: the arguments of `engines.open_dialect`. Errors name the `setting`."""

    setting: str
    default_database: str | None = None
    connections: int = CONNECTIONS
    call_seconds: float = CALL_SECONDS
    read_only_by_default: bool = False
