"""The rights on a SQLite file, which are those of its file and folder: nothing is granted in it."""

from __future__ import annotations

import os
from pathlib import Path

import sqlalchemy as sa

from backup.stores.grants import Grantee, Needed, RightSeen, Statement

_FILE = sa.text("SELECT file FROM pragma_database_list WHERE name = 'main'")


def grant_statements(grantee: Grantee, needed: Needed) -> list[Statement]:  # noqa: ARG001 - a file has no users
    """None: the system decides who may use a file."""
    return []


def revocations(grantee: Grantee, needed: Needed) -> list[Statement]:  # noqa: ARG001 - a file has no users
    """None: the system decides who may use a file."""
    return []


def look_at_rights(cx: sa.Connection, needed: Needed, role: str | None) -> list[RightSeen]:  # noqa: ARG001
    """Which rights this process lacks on a backup's file and folder. A source is opened for reading alone, whatever its
    file allows."""
    if needed.role == "source":
        return []
    path = Path(str(cx.scalar(_FILE)))
    return [
        RightSeen("missing", "writing", str(place)) for place in (path, path.parent) if not os.access(place, os.W_OK)
    ]
