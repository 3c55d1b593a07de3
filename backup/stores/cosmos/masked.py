"""The masks of a container's documents, and how masked copies are told from others. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any

from backup.core.errors import ConfigError
from backup.core.masks import Masking
from backup.core.model import Record
from backup.core.transforms import MARK_DIGITS, Stamping, Transform
from backup.stores.cosmos.documents import MARK, note_of


def marked_etag(stamping: Stamping, etag: str | None) -> str | None:
    """The etag under which a masked or transformed copy knows its document: another one for other rules."""
    return f"{etag} {stamping.mark}" if etag and stamping else etag


def marked_seconds(stamping: Stamping) -> int:
    """What the `ts` of such a copy has more than the `_ts` of its document: another number for other rules."""
    return 1 + stamping.number if stamping else 0


def noted(stamping: Stamping, document: Record) -> Record:
    """The document with the etag and the `_ts` of its copy's note."""
    copy = {**document, "_etag": marked_etag(stamping, document.get("_etag"))}
    if isinstance(document.get("_ts"), int):
        copy["_ts"] = document["_ts"] + marked_seconds(stamping)
    return copy


class MaskedDocuments:
    """The masks of one service over its documents. A mask's name is a property, or a path like `customer.email`, which
    may lead through lists."""

    def __init__(
        self, masking: Masking, compared: Sequence[Sequence[str]], label: str, transform: Transform | None = None
    ) -> None:
        """`compared` are the paths of the key, the version and the filter, which cannot be masked. The properties of a
        copy have the names that its `transform` gives them.

        Raises ConfigError for a mask of one of them, or of a part of one.
        """
        self._masking, self._transform = masking, transform
        self._kept = {path[0] for path in compared} | {MARK}
        self._paths = {name: name.split(".") for name in masking.masks}
        for name, path in self._paths.items():
            if path[0].startswith("_") or any(_overlap(name, ".".join(other)) for other in compared):
                raise ConfigError(
                    f"The property {name} of the {label} cannot be masked: it is part of the key, the version or the "
                    "filter, or it is the server's. Nothing was read or written.",
                    hint="Mask other properties.",
                )

    def masked(self, document: Record, transform: Transform | None = None) -> dict[str, Any]:
        """The document with masked values; with a `transform`, the copy under whose names they stand."""
        masked = deepcopy(dict(document))
        for name, path in self._paths.items():
            if transform is not None:
                path = [transform.named(path[0]), *path[1:]]
            for holder, last in _holders(masked, path):
                holder[last] = self._masking.masked(name, holder[last])
        return masked

    def image(self, copy: Record) -> Record:
        """A copy as the bin may keep it: masked, unless these masks have made it. Nobody knows where a function has put
        the values of a copy, so of such a one the bin keeps the key, the version and the filter alone."""
        _, space, mark = str(note_of(copy).get("etag") or "").rpartition(" ")
        if space and mark[:MARK_DIGITS] == self._masking.mark[:MARK_DIGITS]:
            return copy
        if self._transform is not None and self._transform.may_leave_out:
            return {name: value for name, value in copy.items() if name in self._kept}
        return self.masked(copy, self._transform)


def merged(names: frozenset[str], document: Record, copy: Record) -> Record:
    """What a restore writes over the source's document: the copy, with the document's own properties of these names."""
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
