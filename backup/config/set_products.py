"""Which options of backup.toml mean nothing for the product of a set: tables of SQL, or containers of Cosmos DB."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from pydantic import BaseModel

_FOR_TABLES = {
    "indexes": "A container that the app makes is indexed like its source's",
    "consistent": "Cosmos DB cannot give a state of several containers as of one moment",
    "modified_by": "Cosmos DB knows by itself what was written lately",
    "on_new_column": "A document is copied with all its properties",
    "where_sql": "Write conditions for documents in where",
    "columns": "A transform can leave properties of documents out",
    "key": "A document's key is its partition key and its id",
    "types": "A property of a document has no declared type",
    "renamed_from": "Cosmos DB cannot rename a container: the next sync copies it again, and the old copy stays",
}
_FOR_CONTAINERS = {
    "throughput": "A table has no request units",
    "partition_key": "A table has no partition key",
}
# A string of an account of Cosmos DB names no database. One of SQL Server may name master in place of its own.
_NAMES_NONE = re.compile(
    r"accountendpoint|^mssql[^?]*/master(?:\?|$)|(?:^|;)\s*(?:database|initial catalog)\s*=\s*[{\"']?master\W*(?:;|$)",
    re.I,
)


class Misplaced(NamedTuple):
    """An option that does nothing where it stands: the keys that lead to it, and why."""

    path: tuple[str, ...]
    reason: str


def misplaced(section: BaseModel, path: tuple[str, ...], whose: str, *, is_cosmos: bool) -> Iterator[Misplaced]:
    """Yields what the section at this path says in vain for containers, or for tables. `whose` says what has these."""
    fitting, other, whys = (
        ("tables", "containers", _FOR_TABLES) if is_cosmos else ("containers", "tables", _FOR_CONTAINERS)
    )
    for option in section.model_fields_set & whys.keys():
        if getattr(section, option) is not False:  # as it is without the line
            reason = f"this is for {fitting}, and {whose} has {other}. {whys[option]}. Remove it"
            yield Misplaced((*path, option), reason)


def names_its_database(connection_string: str) -> bool:
    """Whether it leads to one database, so that the file cannot name another."""
    return not _NAMES_NONE.search(connection_string)
