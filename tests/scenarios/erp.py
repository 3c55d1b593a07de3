"""Transforms of one's own, as a person writes them beside backup.toml. `LEAVES_OUT` and `FAILS` are set by tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LEAVES_OUT: set[Any] = set()
FAILS: set[Any] = set()


def contact(record: dict[str, Any]) -> Mapping[str, Any] | None:
    """A contact of the CRM as the ERP has it."""
    if record["Id"] in LEAVES_OUT:
        return None
    if record["Id"] in FAILS:
        raise KeyError(record["Name"])
    return {"Id": record["Id"], "Name": record["Name"].upper(), "Source": "crm", "Score": record["Id"] * 1.5}


def lead(document: dict[str, Any]) -> Mapping[str, Any] | None:
    """A document of the CRM as the ERP has it."""
    if document["id"] in LEAVES_OUT:
        return None
    return {**document, "name": document["name"].upper()}


def other_key(record: dict[str, Any]) -> Mapping[str, Any]:
    """Changes the key, which no transform may."""
    return {**record, "Id": -record["Id"]}


not_a_function = 1


def no_number(record: dict[str, Any]) -> dict[str, Any]:
    """Gives one contact a name that is no number."""
    return {**record, "Name": float("nan")} if record["Id"] == 1 else record
