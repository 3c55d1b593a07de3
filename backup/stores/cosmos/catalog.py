"""A container as its server knows it: created, compared and dropped. Documents have no columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from backup.core.errors import SchemaMismatch
from backup.core.model import PartitionPaths
from backup.stores.base import Store
from backup.stores.cosmos.access import CosmosAccess
from backup.stores.cosmos.app_containers import CosmosSibling
from backup.stores.cosmos.container import CosmosContainer
from backup.stores.cosmos.documents import DELETED_NOTE, MARK
from backup.stores.cosmos.queries import path_of
from backup.stores.values import Drift, Place, Rules

_NOTE_PATHS = tuple(f"/{MARK}/{part}/?" for part in ("ts", DELETED_NOTE))


class CosmosCatalog:
    """The catalog of one store. `siblings` are those that the store has opened, by container."""

    def __init__(
        self,
        access: CosmosAccess,
        container: CosmosContainer,
        place: Place,
        siblings: Mapping[str, CosmosSibling],
        open_at: Callable[[str], Store],
        rules: Rules,
        paths: PartitionPaths | None,
    ) -> None:
        """`open_at` opens the container with a name, with the rules of this store, which also say how much
        throughput a new one has. `paths`: those of both sides, in a backup that has another partition key."""
        self._rules, self._paths = rules, paths
        self._access, self._container, self._place = access, container, place
        self._siblings, self._open_at = siblings, open_at

    @property
    def partition_paths(self) -> list[list[str]]:
        """The partition key of the documents' keys, each path as property names; several when it is hierarchical."""
        return self._container.partition_paths

    def qualified_name(self) -> str:
        return self._place.name

    def is_same_place(self, other: Store) -> bool:
        if self._place.name != other.place.name:
            return False
        resource = self._container.resource()
        return resource is not None and resource == _catalog_of(other)._container.resource()

    def is_another(self) -> bool:
        return self._container.is_another()

    def copies_beside(self) -> Sequence[str]:
        """The names of other containers of the database that have a document with the app's note."""
        return [name for name in self._access.containers() if name != self._place.name and self._has_copies(name)]

    def _has_copies(self, name: str) -> bool:
        return self._has_any(f"look for copies in {name}", name, f"IS_DEFINED({path_of([MARK])})")

    def is_marked(self, source: Store) -> bool:  # noqa: ARG002 - a document of the source has no such note
        name = self._place.name
        return not self._has_any("look for documents of others", name, f"NOT IS_DEFINED({path_of([MARK])})")

    def _has_any(self, operation: str, name: str, condition: str) -> bool:
        query = f"SELECT VALUE c.id FROM c WHERE {condition}"  # noqa: S608 - quoted
        for attempt in self._access.attempts(operation):
            with attempt:
                container = self._access.container(name)
                ids = container.query_items(query, enable_cross_partition_query=True, max_item_count=1)
                first = next(iter(ids), None)
        return first is not None

    def make_database(self, source: Store) -> None:  # noqa: ARG002 - it is like no other
        self._access.create_database(self._rules.database_throughput)

    def initialize(self, source: Store) -> None:
        self.make_like(source)
        self.match(source)

    def make_like(self, other: Store) -> None:
        """As `Catalog.make_like`, with the other's indexing policy, and without its unique keys: a copy may hold what
        the other held at two moments."""
        original = _catalog_of(other)
        paths = ["/" + "/".join(path) for path in original.partition_paths] if self._paths is None else self._paths.copy
        policy = with_note(original._container.indexing_policy)
        units = self._rules.throughput, self._rules.database_throughput
        self._access.create_container(self._place.name, paths, policy, *units)
        self._container.forget()

    def make_source_of(self, backup: Store) -> None:
        self.make_like(backup)

    def match(self, source: Store) -> Drift:
        paths, source_paths = self.partition_paths, _catalog_of(source).partition_paths
        if self._paths is not None:
            named, own = (", ".join(self._paths.source), ", ".join(self._paths.copy)), self._container.own_paths
            if (_shown(source_paths), _shown(own)) != named:
                raise SchemaMismatch(
                    f"backup.toml says that the source of the {self._place.label} is partitioned by {named[0]} and the "
                    f"copy by {named[1]}. They are by {_shown(source_paths)} and by {_shown(own)}.",
                    hint="Correct partition_key in backup.toml. Or give the backup another database and run initialize:"
                    " a partition key cannot be changed. Nothing was changed.",
                )
        if paths != source_paths:
            raise SchemaMismatch(
                f"The {self._place.label} is partitioned by {_shown(paths)}, its source by {_shown(source_paths)}.",
                hint="A container's partition key cannot be changed: give the backup another ContainerName, or a set "
                "another backup_database, and run initialize. If the copy is meant to have another one, name both with "
                "partition_key in backup.toml. Nothing was changed.",
            )
        return Drift()

    def check_there(self) -> None:
        _ = self._container.default_ttl  # a property of the container, which is read once

    def seconds_to_live(self) -> Mapping[str, int]:
        ttls = {self._place.name: self._container.default_ttl}
        ttls |= {name: sibling.default_ttl for name, sibling in self._siblings.items()}
        return {name: seconds for name, seconds in ttls.items() if seconds is not None and seconds >= 0}

    def beside(self, name: str) -> Store:
        return self._open_at(name)

    def drop(self) -> None:
        self._access.drop_container(self._place.name)


def _catalog_of(store: Store) -> CosmosCatalog:
    if not isinstance(store.catalog, CosmosCatalog):
        raise TypeError("the sides of a service are of one kind")
    return store.catalog


def with_note(policy: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The indexing policy, which covers also what a run asks of the copies' notes. One without paths covers all."""
    if policy is None or "includedPaths" not in policy:
        return policy
    included = [path for path in policy.get("includedPaths", ()) if path.get("path") not in _NOTE_PATHS]
    return {**policy, "includedPaths": [*included, *({"path": path} for path in _NOTE_PATHS)]}


def _shown(paths: list[list[str]]) -> str:
    return ", ".join("/" + "/".join(path) for path in paths)
