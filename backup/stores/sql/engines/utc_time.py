"""How the app's own tables store times: as a type that each engine names, always in UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa


class UtcTime(sa.TypeDecorator[datetime]):
    """Aware UTC in Python; in the database a time without a zone, unless the engine says otherwise.

    `stored` is the engine's type. `with_zone`: it keeps the zone itself, so the driver takes and gives aware times.
    Raises ValueError for a naive time.
    """

    impl = sa.DateTime
    cache_ok = True

    def __init__(self, stored: sa.types.TypeEngine[Any] | None = None, with_zone: bool = False) -> None:
        super().__init__()
        self.stored, self.with_zone = stored or sa.DateTime(timezone=with_zone), with_zone

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        return dialect.type_descriptor(self.stored)

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a time zone")
        utc = value.astimezone(UTC)
        return utc if self.with_zone else utc.replace(tzinfo=None)

    def result_processor(self, dialect: sa.Dialect, coltype: Any) -> Any:
        """What reads a value: one function, where SQLAlchemy would call three for each, and most values are NULL."""
        read: Any = self.impl_instance.result_processor(dialect, coltype)

        def process(value: Any) -> Any:
            if value is None:
                return None
            time = value if read is None else read(value)
            if not isinstance(time, datetime):
                return time
            return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)

        return process
