"""Sample customers and orders for the configured, empty sources. Never touches a source that holds data."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from backup.config.given_services import ALL
from backup.core.errors import ConfigError, SourceMissing
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
    """One service's sample: its source's shape, how many entries, and the entry of number `n` (from 1)."""

    shape: Callable[[Store], Shape]
    count: int
    entry: Callable[[int], SampleRecord]


def customer(n: int, version: int = 1) -> SampleRecord:
    """Customer number `n`; a higher version has a later ModifiedAt and another balance."""
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
    """Order number `n`; a higher revision has a later LastModified and another status."""
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
    """Creates the configured sources that have a sample, where missing, and fills them; the number of records by
    service.

    Raises ConfigError, before anything is written, when one of them holds data, or none has a sample.
    """
    names = [name for name in registry.chosen(ALL) if name in SAMPLES]
    if not names:
        raise ConfigError("None of the services has a sample.", hint=f"There is one of {' and '.join(SAMPLES)}.")
    for name in names:
        with registry.get(name).stores() as (source, _):
            try:
                held = source.count()
            except SourceMissing:
                continue
            if held:
                raise ConfigError(
                    f"The {source.place.label} holds {held} records. Nothing was written.",
                    hint="sample fills empty sources only.",
                )
    return {name: put(registry, name, map(SAMPLES[name].entry, range(1, SAMPLES[name].count + 1))) for name in names}


def put(registry: Registry, name: str, entries: Iterable[SampleRecord]) -> int:
    """Inserts or replaces entries in the service's source, creating it where missing; how many these were."""
    rows = list(entries)
    with registry.get(name).stores() as (source, _):
        sibling = source.sibling(SAMPLES[name].shape(source))
        sibling.create()
        sibling.put(rows)
    return len(rows)
