"""Sample customers and orders for configured, empty sources. Never changes a source that has records."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from backup.config.given_services import ALL
from backup.core.errors import ConfigError, SourceMissing
from backup.core.suggestions import quantity
from backup.services.registry import Registry
from backup.stores import Shape, Store

_START = datetime(2024, 1, 1, 8, tzinfo=UTC)
_NAMES = [
    "Ada Lovelace",
    "Grace Hopper",
    "Édouard Lucas",
    "Zoë Ångström",
    "Nguyễn Văn An",
    "山田 花子",
    "O'Brien, Pat",
]
_CITIES = ["Berlin", "São Paulo", "Kraków", "東京", "Reykjavík"]
_STATUSES = [{"id": 1, "name": "New"}, {"id": 2, "name": "Paid"}, {"id": 3, "name": "Shipped"}]

SampleRecord = dict[str, Any]


@dataclass(frozen=True)
class Sample:
    """One service's sample: the shape of its source, how many records, and what makes record number `n` (from 1)."""

    shape: Callable[[Store], Shape]
    count: int
    record: Callable[[int], SampleRecord]


def customer(n: int, version: int = 1) -> SampleRecord:
    """Returns customer number `n`. A higher version has a later ModifiedAt and another balance."""
    return {
        "Id": n,
        "Name": _NAMES[n % len(_NAMES)],
        "Email": f"customer{n}@example.com",
        "City": _CITIES[n % len(_CITIES)],
        "Balance": n * 12.25 + version,
        "IsActive": n % 10 != 0,
        "Version": version,
        "CreatedAt": _START + timedelta(hours=n),
        "ModifiedAt": _START + timedelta(hours=n, minutes=version),
    }


def order(n: int, revision: int = 1) -> SampleRecord:
    """Returns order number `n`. A higher revision has a later LastModified and another status."""
    items = [
        {"sku": f"SKU-{n % 7}", "quantity": 1 + n % 3, "price": 9.5},
        {"sku": "GIFT", "quantity": 1, "price": 0},
    ]
    return {
        "Id": f"order-{n:04}",
        "Type": "Order",
        "CustomerId": f"customer-{n % 20}",
        "Status": _STATUSES[(n + revision) % len(_STATUSES)],
        "LastModified": (_START + timedelta(hours=n, minutes=revision)).isoformat().replace("+00:00", "Z"),
        "Items": items,
        "Total": 9.5 * (1 + n % 3),
    }


def _customers(source: Store) -> Shape:
    return Shape(
        name=source.place.name,
        container=source.place.name,
        key="Id",
        partition="Id",
        fields={
            "Id": "integer",
            "Name": "name",
            "Email": "name",
            "City": "name",
            "Balance": "decimal",
            "IsActive": "flag",
            "Version": "integer",
            "CreatedAt": "time",
            "ModifiedAt": "time",
        },
    )


def _orders(source: Store) -> Shape:
    return Shape(
        name=source.place.name,
        container=source.place.name,
        key="Id",
        partition="CustomerId",
        fields={
            "Id": "name",
            "Type": "name",
            "CustomerId": "name",
            "Status": "json",
            "LastModified": "name",
            "Items": "json",
            "Total": "decimal",
        },
    )


SAMPLES = {"customer": Sample(_customers, 100, customer), "order": Sample(_orders, 55, order)}


def fill(registry: Registry) -> dict[str, int]:
    """Creates the configured sources that have a sample, if missing, and fills them. Returns the number of records by
    service.

    Raises ConfigError before it writes anything when one of them has records, or when no service has a sample.
    """
    names = [name for name in registry.directory.chosen(ALL) if name in SAMPLES]
    if not names:
        raise ConfigError("None of the services has a sample.", hint=f"There is one of {' and '.join(SAMPLES)}.")
    for name in names:
        with registry.get(name).stores() as (source, _):
            try:
                count = source.count()
            except SourceMissing:
                continue
            if count:
                raise ConfigError(
                    f"The {source.place.label} has {quantity(count, 'record')}. Nothing was written.",
                    hint="sample fills empty sources only.",
                )
    return {name: put(registry, name, map(SAMPLES[name].record, range(1, SAMPLES[name].count + 1))) for name in names}


def put(registry: Registry, name: str, records: Iterable[SampleRecord]) -> int:
    """Inserts or replaces records in the service's source, which it creates if missing. Returns their number."""
    rows = list(records)
    with registry.get(name).stores() as (source, _):
        sibling = source.sibling(SAMPLES[name].shape(source))
        sibling.create()
        sibling.put(rows)
    return len(rows)
