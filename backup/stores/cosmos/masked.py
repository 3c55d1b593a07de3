"""The masks of a container's documents, and how masked copies are told from others. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any

from backup.core.errors import ConfigError
from backup.core.masks import Masking
from backup.core.model import Record
from backup.stores.cosmos.documents import MARK

_MARK_DIGITS = 7  # 28 bits: added to a time of 31 bits, sums stay exact


def marked_etag(masking: Masking, etag: str | None) -> str | None:
    """The etag under which a masked copy knows its document: another one for other masks."""
    return f"{etag} {masking.mark}" if etag and masking else etag


def marked_seconds(masking: Masking) -> int:
    """What a masked copy's `ts` has more than the `_ts` of its document: another number for other masks."""
    return 1 + int(masking.mark[:_MARK_DIGITS], 16) if masking else 0


class MaskedDocuments:
    """The masks of one service over its documents. A mask's name is a property, or a path like `customer.email`, which
    may lead through lists."""

    def __init__(self, masking: Masking, compared: Sequence[Sequence[str]], label: str) -> None:
        """`compared` are the paths of the key, the version and the filter, which cannot be masked.

        Raises ConfigError for a mask of one of them, or of a part of one.
        """
        self._masking = masking
        self._paths = {name: name.split(".") for name in masking.masks}
        for name, path in self._paths.items():
            if path[0].startswith("_") or any(_overlap(name, ".".join(other)) for other in compared):
                raise ConfigError(
                    f"The property {name} of the {label} cannot be masked: it is part of the key, the version or the "
                    "filter, or it is the server's. Nothing was read or written.",
                    hint="Mask other properties.",
                )

    def of(self, document: Record) -> Record:
        """The source's document as a copy may have it: with masked values, and the etag and `_ts` of its note."""
        masked = self.masked(document)
        masked["_etag"] = marked_etag(self._masking, document.get("_etag"))
        if isinstance(document.get("_ts"), int):
            masked["_ts"] = document["_ts"] + marked_seconds(self._masking)
        return masked

    def masked(self, document: Record) -> dict[str, Any]:
        """The document with masked values."""
        masked = deepcopy(dict(document))
        for name, path in self._paths.items():
            for holder, last in _holders(masked, path):
                holder[last] = self._masking.masked(name, holder[last])
        return masked

    def image(self, copy: Record) -> Record:
        """A copy as the bin may keep it: masked, unless these masks have made it."""
        note = copy.get(MARK)
        is_made = isinstance(note, dict) and str(note.get("etag")).endswith(f" {self._masking.mark}")
        return copy if is_made else self.masked(copy)

    def merged(self, document: Record, copy: Record) -> Record:
        """What a restore writes over the source's document: the copy, with each property of the document that has a
        mask in it."""
        names = properties_of(self._masking)
        own = {name: value for name, value in document.items() if name in names}
        return {**{name: value for name, value in copy.items() if name not in names}, **own}


def properties_of(masking: Masking) -> frozenset[str]:
    """The properties of a document that a mask may change: of `a.b.c` these are `a`, `a.b` and `a.b.c`."""
    paths = [name.split(".") for name in masking.masks]
    return frozenset(".".join(path[:length]) for path in paths for length in range(1, len(path) + 1))


def _overlap(path: str, other: str) -> bool:
    """Whether one of the two paths leads to the other, or to a part of it."""
    return f"{path}.".startswith(f"{other}.") or f"{other}.".startswith(f"{path}.")


def _holders(value: Any, path: Sequence[str]) -> Iterator[tuple[dict[str, Any], str]]:
    """The objects that hold the last name of the path, each with this name. A name may have dots of its own."""
    if isinstance(value, list):
        for part in value:
            yield from _holders(part, path)
    elif isinstance(value, dict):
        for length in range(1, len(path) + 1):
            name = ".".join(path[:length])
            if name in value and length == len(path):
                yield value, name
            elif name in value:
                yield from _holders(value[name], path[length:])
