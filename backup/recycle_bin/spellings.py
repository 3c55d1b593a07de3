"""Which entries of the bin are about one record, where the server takes several spellings of a key for the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from backup.core.model import Action, Key
from backup.recycle_bin.entries import KeptImage


def first_by_spelling(
    changes: Sequence[KeptImage], own_keys: Sequence[Key], row_keys: Mapping[Key, Key]
) -> dict[Key, KeptImage]:
    """Returns the first of these changes of each record, by every spelling of its key; whether it `came_back` since.

    `changes` are of keys with one hash, oldest first. `own_keys` has, for each, the key as its record spelled it before
    the change. `row_keys` has, for keys under which the server finds a row now, the key as the row spells it: a record
    that was deleted and inserted again may have another spelling, and no image has both.
    """
    # From every spelling of a record's key to the spelling that stands for all of them.
    main_spelling: dict[Key, Key] = {}
    pairs = [(kept.key, own_key) for kept, own_key in zip(changes, own_keys, strict=True)]
    for spelling, other in (*pairs, *row_keys.items()):
        spellings = {spelling, other}
        earlier = {main_spelling[key] for key in spellings if key in main_spelling}
        chosen = next(iter(earlier), spelling)
        main_spelling |= dict.fromkeys(spellings, chosen)
        main_spelling |= {key: chosen for key, main in main_spelling.items() if main in earlier}
    oldest: dict[Key, KeptImage] = {}
    came_back = set[Key]()
    for kept in changes:
        main = main_spelling[kept.key]
        if oldest.setdefault(main, kept) is not kept and kept.action is Action.INSERTED:
            came_back.add(main)
    oldest |= {main: replace(oldest[main], came_back=True) for main in came_back}
    return {key: oldest[main] for key, main in main_spelling.items()}
