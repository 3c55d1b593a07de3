"""URLs of SQLite files → what they stand for. Opens nothing."""

from __future__ import annotations

import re
from urllib.parse import unquote

from sqlalchemy.engine import URL

from backup.core.errors import ConfigError

_MEANT = ("mode", "immutable")
_OF_THE_DRIVER = ("uri", "timeout", "check_same_thread", "cached_statements", "detect_types", "isolation_level")


def checked_url(url: URL, setting: str) -> URL:
    """The URL with the plain path of a `file:` one; of its parameters only `mode` and `immutable` mean anything."""
    path = url.database or ""
    if path.startswith("file:"):
        path = unquote(re.sub(r"^file:(//[^/]*(?=/))?", "", path))
    if path in ("", ":memory:"):
        raise ConfigError(f"Setting {setting} names no database.", hint="A database in memory cannot be backed up.")
    given = {name: value for name, value in url.query.items() if name not in _OF_THE_DRIVER}
    immutable = given.pop("immutable", "0")
    mode = given.pop("mode", "")
    if given or mode not in ("", "ro", "rw") or immutable not in ("0", "1"):
        raise ConfigError(
            f"Setting {setting} has a parameter for its SQLite file that this app does not use.",
            hint="It knows mode=ro, mode=rw and immutable=1. A file that is missing is made by initialize alone.",
        )
    return url.set(database=path, query={name: value for name, value in url.query.items() if name in _MEANT})
