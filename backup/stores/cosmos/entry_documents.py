"""Entries of the app's own containers as documents, and the conditions of queries for them. Asks no server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from backup.stores.cosmos.queries import path_of
from backup.stores.sibling import Entry, LongText, OneOf, Shape


def utc_text(value: datetime) -> str:
    """The time as ISO 8601 in UTC with microseconds and Z: sorts as the time. Raises ValueError for a naive time."""
    if value.tzinfo is None:
        raise ValueError("a time without a time zone")
    return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


class EntryDocuments:
    """The documents of one container: the shape's fields in camelCase, and `id`."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._properties = {name: name[0].lower() + name[1:] for name in shape.fields}

    @property
    def partition_path(self) -> str:
        """The path of the partition key, as the server writes it."""
        return f"/{self._properties[self._shape.partition]}"

    def path(self, name: str) -> str:
        """The field in a query."""
        return path_of([self._properties[name]])

    def column(self, name: str) -> str:
        """The field in the list of what a query selects."""
        return f"{self.path(name)} AS {self._properties[name]}"

    def document(self, entry: Entry) -> dict[str, Any]:
        """The entry as a document."""
        return {**self.properties(entry), "id": entry[self._shape.key]}

    def properties(self, fields: Entry) -> dict[str, Any]:
        """These fields as properties of a document."""
        return {self._properties[name]: _to_json(value) for name, value in fields.items()}

    def entry(self, document: Mapping[str, Any], fields: Sequence[str] = ()) -> dict[str, Any]:
        """The entry in a document; only these fields of it, if there are any. A field that the document lacks is
        None."""
        entry = {}
        for name in fields or self._shape.fields:
            value = document.get(self._properties[name])
            entry[name] = _time(value) if self._shape.fields[name] == "time" else value
        return entry

    def partition_of(self, document: Mapping[str, Any]) -> Any:
        """The document's partition key."""
        return document.get(self._properties[self._shape.partition])

    def of_parts(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """The properties that each part of a large entry has, too."""
        names = {self._properties[name] for name in (self._shape.partition, *self._shape.parts_with)}
        return {name: value for name, value in document.items() if name in names}

    def fulfils(self, document: Mapping[str, Any], only_if: OneOf) -> bool:
        """Whether each of these fields has one of its values in the document."""
        return all(document.get(self._properties[name]) in map(_to_json, values) for name, values in only_if.items())

    def conditions(
        self, where: Mapping[str, Any], by: str, above: Any, below: Any
    ) -> tuple[list[str], list[dict[str, Any]]]:
        """The conditions of a query, and its parameters: `where` as `Sibling.find` takes it, and the field `by` above
        and below these values."""
        parameters: list[dict[str, Any]] = []

        def parameter(value: Any) -> str:
            name = f"@v{len(parameters)}"
            parameters.append({"name": name, "value": _to_json(value)})
            return name

        conditions = []
        for name, value in where.items():
            path, values = self.path(name), value if isinstance(value, list) else [value]
            plain = [value for value in values if value is not None]
            choices = [f"{path} IN ({', '.join(map(parameter, plain))})"] if len(plain) > 1 else []
            choices += [f"{path} = {parameter(plain[0])}"] if len(plain) == 1 else []
            # An entry of an earlier release does not have the property at all.
            choices += [f"NOT IS_DEFINED({path}) OR IS_NULL({path})"] if None in values else []
            conditions.append(f"({' OR '.join(choices) or 'false'})")
        conditions += [f"{self.path(by)} > {parameter(above)}"] if above is not None else []
        conditions += [f"{self.path(by)} < {parameter(below)}"] if below is not None else []
        return conditions, parameters


def _time(value: Any) -> Any:
    """The time in a text; any other value as it is."""
    try:
        return datetime.fromisoformat(value)
    except (ValueError, TypeError):
        return value


def _to_json(value: Any) -> Any:
    if isinstance(value, LongText):
        return "".join(value)
    return utc_text(value) if isinstance(value, datetime) else value
