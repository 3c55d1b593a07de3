"""The data: customers and orders made by a rule, so that every run has the same ones, and changes of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

from benchmarks.jobs import EngineName

Kind = Literal["key", "text", "decimal", "flag", "time", "version"]

_START = datetime(2020, 1, 1)  # noqa: DTZ001 - the columns have no time zone
LATER = "2024-01-01T00:00:00"
"""ModifiedAt of changed rows, and lastModified of changed orders: later than in all other records."""

_NAMES = ["Ada Lovelace", "Grace Hopper", "Édouard Lucas", "Zoë Ångström", "Nguyễn Văn An", "山田 花子", "O'Brien, Pat"]
_CITIES = ["Berlin", "São Paulo", "Kraków", "東京", "Reykjavík"]
_NOTE = "Called about the invoice; will call again after the holidays, and wants the address changed. "


@dataclass(frozen=True)
class Column:
    """A column, and its type on each server."""

    name: str
    kind: Kind
    sqlite: str
    postgresql: str
    sqlserver: str
    nullable: bool = True

    def declared(self, engine: EngineName) -> str:
        """Returns its type on that server."""
        return str(getattr(self, engine))


def _text(name: str, length: int) -> Column:
    return Column(name, "text", f"NVARCHAR({length})", f"varchar({length})", f"nvarchar({length})")


COLUMNS = (
    Column("Id", "key", "INTEGER", "bigint", "bigint", nullable=False),
    _text("Name", 100),
    _text("Email", 200),
    _text("City", 60),
    Column("Balance", "decimal", "DECIMAL(18,2)", "numeric(18,2)", "decimal(18,2)"),
    Column("IsActive", "flag", "BOOLEAN", "boolean", "bit"),
    _text("Note", 400),
    Column("CreatedAt", "time", "DATETIME", "timestamp(6)", "datetime2(6)"),
    Column("ModifiedAt", "time", "DATETIME", "timestamp(6)", "datetime2(6)"),
    Column("Version", "version", "BIGINT", "bigint", "bigint", nullable=False),
)
NAMES = tuple(column.name for column in COLUMNS)


def customers(engine: EngineName, first: int, last: int) -> Iterator[tuple[Any, ...]]:
    """Yields rows number `first` to `last`, with the values that the engine's driver takes."""
    embedded = engine == "sqlite"
    for n in range(first, last + 1):
        created: Any = _START + timedelta(seconds=n)
        modified: Any = created + timedelta(microseconds=n % 1_000_000)
        balance: Any = n % 100_000 + 0.25
        if embedded:
            created, modified = f"{created}.000000", modified.isoformat(" ", "microseconds")
        else:
            balance = Decimal(balance)
        yield (
            n,
            _NAMES[n % 7],
            f"customer{n}@example.com",
            _CITIES[n % 5],
            balance,
            n % 10 != 0,
            _NOTE[: n % 90] if n % 4 else None,
            created,
            modified,
            1 + n % 7,
        )


def order(n: int, revision: int = 1) -> dict[str, Any]:
    """Returns order number `n`. A higher revision is later and has another status and total."""
    modified = LATER if revision > 1 else (_START + timedelta(seconds=n)).isoformat()
    return {
        "id": f"order-{n:08}",
        "type": "Order",
        "customerId": f"customer-{n % 1000}",
        "status": {"id": 1 + (n + revision) % 3, "name": ["New", "Paid", "Shipped"][(n + revision) % 3]},
        "lastModified": f"{modified}Z",
        "items": [
            {"sku": f"SKU-{n % 97}", "quantity": 1 + n % 3, "price": 9.5},
            {"sku": "GIFT", "quantity": 1, "price": 0},
        ],
        "total": 9.5 * (1 + n % 3) + revision,
        "note": _NOTE[: n % 90],
    }


@dataclass(frozen=True)
class Change:
    """An update or delete of `count` records of the source: spread evenly, or the last ones (`at_the_end`)."""

    kind: Literal["update", "delete"]
    rows: int
    count: int
    at_the_end: bool = False

    @property
    def condition(self) -> str:
        """The rows to change, as a condition in SQL without the column's name."""
        return f"> {self.rows - self.count}" if self.at_the_end else f"% {self._every} = 0"

    @property
    def numbers(self) -> range:
        """The numbers of the records to change."""
        if self.at_the_end:
            return range(self.rows - self.count + 1, self.rows + 1)
        return range(self._every, self.rows + 1, self._every)

    @property
    def _every(self) -> int:
        return max(1, self.rows // self.count)
