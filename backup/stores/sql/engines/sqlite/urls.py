"""Checks the URLs of SQLite files. Opens nothing."""

from __future__ import annotations

import re
from urllib.parse import unquote

from sqlalchemy.engine import URL

from backup.core.errors import ConfigError
from backup.core.suggestions import subject

_USED = ("mode", "immutable")
_OF_THE_DRIVER = ("uri", "timeout", "check_same_thread", "cached_statements", "detect_types", "isolation_level")


def checked_url(url: URL, setting: str) -> URL:
    """The URL with a plain path, also for a `file:` URL, and with only its parameters `mode` and `immutable`.

    Raises ConfigError for a URL without a file, and for other parameters than those and the driver's.
    """
    path = url.database or ""
    if path.startswith("file:"):
        path = unquote(re.sub(r"^file:(//[^/]*(?=/))?", "", path))
    if path in ("", ":memory:"):
        raise ConfigError(f"{subject(setting)} names no database.", hint="A database in memory cannot be backed up.")
    parameters = {name: value for name, value in url.query.items() if name not in _OF_THE_DRIVER}
    immutable = parameters.pop("immutable", "0")
    mode = parameters.pop("mode", "")
    if parameters or mode not in ("", "ro", "rw") or immutable not in ("0", "1"):
        raise ConfigError(
            f"{subject(setting)} has a parameter for its SQLite file that this app does not use.",
            hint="It knows mode=ro, mode=rw and immutable=1. Only initialize creates a missing file.",
        )
    if path == url.database and not url.query:
        return url
    return url.set(database=path, query={name: value for name, value in url.query.items() if name in _USED})
