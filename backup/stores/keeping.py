"""What a store hands to its caller before it changes a record: its image, to be kept, and a question about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from backup.core.model import Action, Image, Key
from backup.stores.sibling import EntriesToMake


class Keep(Protocol):
    """What keeps images in the recycle bin."""

    def __call__(self, images: Sequence[Image], transaction: Any, inserted: Sequence[Key] = ()) -> None:
        """Keeps the images, and the keys of the inserted records. Keeps each only once, however often it is called.

        Empties a list of images, so that memory does not hold them beside what is kept. `transaction` is the one that
        makes the change, or None where the store has none.
        """


@runtime_checkable
class KeepByServer(Protocol):
    """A `Keep` that can also say how the entries of images look, so that the store's server makes them of its rows."""

    def entries_to_make(self, keys: Sequence[Key] | None, action: Action, transaction: Any) -> EntriesToMake | None:
        """How the entries of the records with these keys look, before this change of them in this transaction. None
        stands for keys that the caller does not know one by one. The backup spells each of its keys in one way alone.

        None where the images have to be handed over: another side than the backup, or a record that is, or without keys
        may be, in an entry of many keys of this run already.
        """


Accept = Callable[[Image], bool]
"""Decides about each existing record whether it may be overwritten or deleted. Nobody else can change it meanwhile."""
