"""Where copies lie in a container whose partition key is not the one by which documents are known.

A document is known by its key: its source's partition key, and its id. Its address is the container's own partition
key, and its id. Where both are the same this module has nothing to do.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from backup.core.model import Key, Record
from backup.stores.cosmos.container import Address, CosmosContainer
from backup.stores.cosmos.documents import key_to_json

_TAKEN = (
    "Its copy would lie where the copy of {} lies: both have this id, and the same value of the copies' partition key. "
    "Neither is written over the other."
)


class Moves(NamedTuple):
    """What must happen before documents are written: which copies leave their `old` addresses, and which documents
    stay unwritten, with the reason. `new` are those that have no copy at their address yet."""

    old: list[tuple[Key, Address]]
    refused: dict[Key, str]
    new: frozenset[Key]


def moves_of(container: CosmosContainer, documents: Mapping[Key, Record]) -> Moves:
    """The moves that these documents need. One query for each hundred of them; none for a container with the keys of
    its documents. No two documents get one address: who has it already keeps it, else the least key gets it."""
    if not container.has_other_addresses:
        return Moves([], {}, frozenset())
    lying = container.addresses(documents)
    occupied = {(address, key[-1]): key for key, address in lying}
    wanted = {key: (container.address_of(key, document), key[-1]) for key, document in documents.items()}
    in_order = sorted(wanted, key=lambda key: (occupied.get(wanted[key]) != key, key))
    refused: dict[Key, str] = {}
    while taken := _taken(in_order, wanted, occupied, refused):
        # A document that is refused leaves its copy where it is, so that others may not go there either.
        refused |= taken
    places = {key: place for key, place in wanted.items() if key not in refused}
    old = [(key, address) for key, address in lying if key in places and (address, key[-1]) != places[key]]
    return Moves(old, refused, frozenset(key for key, place in places.items() if occupied.get(place) != key))


def taken_by(container: CosmosContainer, key: Key, address: Address) -> str | None:
    """Why the document cannot have this address, where something lies; None if that is its own copy."""
    owners = [other for other, place in container.addresses([key]) if (place, other[-1]) == (address, key[-1])]
    return None if not owners or key in owners else _TAKEN.format(json.dumps(key_to_json(owners[0])))


_Place = tuple[Address, str]


def _taken(
    in_order: Iterable[Key], wanted: Mapping[Key, _Place], occupied: Mapping[_Place, Key], refused: Mapping[Key, str]
) -> dict[Key, str]:
    """Which of the documents that are not refused yet find their place taken by another one that will be there."""
    owners = {place: key for place, key in occupied.items() if key not in wanted or key in refused}
    taken: dict[Key, str] = {}
    for key in in_order:
        if key not in refused and (owner := owners.setdefault(wanted[key], key)) != key:
            taken[key] = _TAKEN.format(json.dumps(key_to_json(owner)))
    return taken
