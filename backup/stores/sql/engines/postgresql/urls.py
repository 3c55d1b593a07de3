"""Checks the URLs of PostgreSQL databases. Connects nowhere."""

from __future__ import annotations

from sqlalchemy.engine import URL

from backup.core.errors import ConfigError
from backup.core.log import register_secret
from backup.core.suggestions import subject
from backup.stores.secure import postgresql_url

_DRIVERS = {"", "psycopg", "psycopg2", "psycopg2cffi", "psycopg_async"}


def checked_url(url: URL, setting: str) -> URL:
    """The URL for the app's driver, which verifies the server as `postgresql_url` says. Raises ConfigError for another
    driver."""
    if url.drivername.lower().partition("+")[2] not in _DRIVERS:
        raise ConfigError(
            f"{subject(setting)} names a driver for PostgreSQL that this app does not use.",
            hint="Write postgresql://….",
        )
    for name in ("password", "sslpassword"):
        value = url.query.get(name, "")
        for secret in (value,) if isinstance(value, str) else value:
            register_secret(secret)
    return postgresql_url(url.set(drivername="postgresql+psycopg"), setting)
