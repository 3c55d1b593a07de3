"""Where copies lie in a container whose partition key is not the one by which documents are known.

A document is known by its key: its source's partition key, and its id. Its address is the container's own partition
key, and its id. Where both are the same this module has nothing to do.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from backup.core.model import Key, Record
from backup.stores.cosmos.container import Address, CosmosContainer, Lying
from backup.stores.cosmos.documents import key_to_json

_TAKEN = (
    "Its copy would lie where the copy of {} lies{}: both have this id, and the same value of the copies' partition "
    "key. Neither is written over the other."
)
_KEPT = ", which the source has deleted and the backup keeps"


class Taken(str):
    """Why a document is not written whose address another one has. It may fit once that one is deleted or moves."""

    __slots__ = ()


class Moves(NamedTuple):
    """What must happen before documents are written: which copies leave their `old` addresses, and which documents
    stay unwritten, with the reason. `new` are those that have no copy at their address yet."""

    old: list[Lying]
    refused: dict[Key, Taken]
    new: frozenset[Key]


def moves_of(container: CosmosContainer, documents: Mapping[Key, Record]) -> Moves:
    """The moves that these documents need. One query for each hundred of them; none for a container with the keys of
    its documents. No two documents get one address: who has it already keeps it; else one gets it whose own address
    another one waits for; else the least key."""
    if not container.has_other_addresses:
        return Moves([], {}, frozenset())
    lying = container.lying(documents)
    occupied = {(copy.address, copy.key[-1]): copy for copy in lying}
    wanted = {key: (container.address_of(key, document), key[-1]) for key, document in documents.items()}

    def lies_there(key: Key) -> bool:
        copy = occupied.get(wanted[key])
        return copy is not None and copy.key == key

    places_wanted = {*wanted.values()}
    in_the_way = {copy.key for place, copy in occupied.items() if place in places_wanted}
    in_order = sorted(wanted, key=lambda key: (not lies_there(key), key not in in_the_way, key))
    refused: dict[Key, Taken] = {}
    while taken := _taken(in_order, wanted, occupied, refused):
        # A document that is refused leaves its copy where it is, so that others may not go there either.
        refused |= taken
    places = {key: place for key, place in wanted.items() if key not in refused}
    old = [copy for copy in lying if copy.key in places and (copy.address, copy.key[-1]) != places[copy.key]]
    return Moves(old, refused, frozenset(key for key in places if not lies_there(key)))


def taken_by(container: CosmosContainer, key: Key, address: Address) -> Taken | None:
    """Why the document cannot have this address, where something lies; None if that is its own copy."""
    copies = {copy.key: copy for copy in container.lying([key]) if (copy.address, copy.key[-1]) == (address, key[-1])}
    return None if not copies or key in copies else _why_taken(next(iter(copies)), copies)


_Place = tuple[Address, str]


def _taken(
    in_order: Iterable[Key],
    wanted: Mapping[Key, _Place],
    occupied: Mapping[_Place, Lying],
    refused: Mapping[Key, Taken],
) -> dict[Key, Taken]:
    """Which of the documents that are not refused yet find their place taken by another one that will be there."""
    owners = {place: copy.key for place, copy in occupied.items() if copy.key not in wanted or copy.key in refused}
    copies = {copy.key: copy for copy in occupied.values()}
    taken: dict[Key, Taken] = {}
    for key in in_order:
        if key not in refused and (owner := owners.setdefault(wanted[key], key)) != key:
            taken[key] = _why_taken(owner, copies)
    return taken


def _why_taken(owner: Key, copies: Mapping[Key, Lying]) -> Taken:
    is_kept = owner in copies and copies[owner].is_deleted
    return Taken(_TAKEN.format(json.dumps(key_to_json(owner)), _KEPT if is_kept else ""))
