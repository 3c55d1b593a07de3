"""The app's own containers beside a store's: sync-history and the sample's sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import Any

from backup.stores.base import Shape
from backup.stores.cosmos_access import CosmosAccess, path_of, select


def utc_text(value: datetime) -> str:
    """ISO 8601 in UTC with microseconds and Z: sorts as text in the order of time. Refuses naive times."""
    if value.tzinfo is None:
        raise ValueError("a time without a time zone")
    return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


class CosmosSibling:
    """A container of the app's own, in the store's database. Documents have its fields in camelCase, and `id`."""

    def __init__(self, access: CosmosAccess, shape: Shape) -> None:
        self._access, self._shape = access, shape
        self._properties = {name: name[0].lower() + name[1:] for name in shape.fields}

    def create(self) -> None:
        self._access.create_container(self._shape.container, [f"/{self._properties[self._shape.partition]}"])

    def put(self, entries: Sequence[Mapping[str, Any]]) -> None:
        for entry in entries:
            document = {self._properties[name]: _to_json(value) for name, value in entry.items()}
            document["id"] = entry[self._shape.key]
            self._access.run(f"write {self._shape.container}", partial(self._upsert, document))

    def _upsert(self, document: dict[str, Any]) -> None:
        self._access.container(self._shape.container).upsert_item(document, no_response=True)

    def find(self, where: Mapping[str, Any], *, newest_by: str, limit: int) -> list[dict[str, Any]]:
        conditions = [f"{path_of([self._properties[name]])} = @{self._properties[name]}" for name in where]
        query = f"{select('*', *conditions)} ORDER BY {path_of([self._properties[newest_by]])} DESC"
        parameters = [{"name": f"@{self._properties[name]}", "value": _to_json(value)} for name, value in where.items()]

        def attempt() -> list[dict[str, Any]]:
            found = self._access.container(self._shape.container).query_items(
                query, parameters=parameters, enable_cross_partition_query=True, max_item_count=limit
            )
            return list(islice(found, limit))

        return [self._entry(document) for document in self._access.run(f"read {self._shape.container}", attempt)]

    def _entry(self, document: Mapping[str, Any]) -> dict[str, Any]:
        entry = {}
        for name, kind in self._shape.fields.items():
            value = document.get(self._properties[name])
            entry[name] = datetime.fromisoformat(value) if kind == "time" and value else value
        return entry


def _to_json(value: Any) -> Any:
    return utc_text(value) if isinstance(value, datetime) else value
