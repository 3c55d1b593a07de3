"""Which entries of the bin are about one record, where the server takes several spellings of a key for the same."""

from __future__ import annotations

from collections.abc import Sequence

from backup.core.model import Key
from backup.recycle_bin.entries import KeptImage


def first_by_spelling(changes: Sequence[KeptImage], own_keys: Sequence[Key]) -> dict[Key, KeptImage]:
    """Returns the first of these changes of each record, by every spelling of its key.

    `changes` are of keys with one hash, oldest first. `own_keys` has, for each, the key as its record spelled it before
    the change.
    """
    # From every spelling of a record's key to the spelling that stands for all of them.
    main_spelling: dict[Key, Key] = {}
    for kept, own_key in zip(changes, own_keys, strict=True):
        spellings = {kept.key, own_key}
        earlier = {main_spelling[key] for key in spellings if key in main_spelling}
        chosen = next(iter(earlier), kept.key)
        main_spelling |= dict.fromkeys(spellings, chosen)
        main_spelling |= {key: chosen for key, spelling in main_spelling.items() if spelling in earlier}
    oldest: dict[Key, KeptImage] = {}
    for kept in changes:
        oldest.setdefault(main_spelling[kept.key], kept)
    return {key: oldest[main_spelling[key]] for key in main_spelling}
