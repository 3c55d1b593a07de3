"""The transform of a container's documents: checked against its key, then applied to what is read. No I/O."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence

from backup.core.errors import ConfigError
from backup.core.model import Key, Record
from backup.core.transforms import Constant, Drop, FromJson, Rename, Transform, TransformFailed, number_of
from backup.stores.cosmos.documents import MARK, double_of, own, partition_part
from backup.stores.values import LeftOut


class TransformedDocuments:
    """The transform of one service over its source's documents. A step names properties of the document itself."""

    def __init__(self, transform: Transform, compared: Sequence[Sequence[str]], label: str) -> None:
        """`compared` are the paths of the key, the version and the filter, which no transform may change.

        Raises ConfigError for a step that changes one of them, or a property of the server's or the app's.
        """
        self._transform, self._compared = transform, compared
        fixed = {path[0] for path in compared}
        if wrong := sorted(name for name in touched_by(transform) if name in fixed or name.startswith("_")):
            raise ConfigError(
                f"The transform cannot change the property {wrong[0]} of the {label}: it is part of the key, the "
                "version or the filter, or it is the server's. Nothing was read or written.",
                hint="Correct the transform in backup.toml.",
            )

    @property
    def may_leave_out(self) -> bool:
        """As `Transform.may_leave_out`."""
        return self._transform.may_leave_out

    def applied(self, documents: Iterable[Record], key_of: Callable[[Record], Key]) -> tuple[list[Record], LeftOut]:
        """The documents of the copy, and which of these documents do not belong to it or could not be transformed."""
        copies, keys, failed = list[Record](), set[Key](), dict[Key, str]()
        for document in documents:
            key = key_of(document)  # now: a function may change what it gets
            try:
                copy = self._applied(document)
                if copy is None:
                    keys.add(key)
                else:
                    copies.append(copy)
            except TransformFailed as error:
                failed[key] = str(error)
        return copies, LeftOut(frozenset(keys), failed)

    def _applied(self, document: Record) -> Record | None:
        before = [partition_part(document, path) for path in self._compared]
        copy = self._transform.applied(own(document))
        if copy is None:
            return None
        if MARK in copy and MARK in document:
            raise TransformFailed(f"The document has a property {MARK}, which its copy cannot keep: rename it.")
        if own(copy) != copy or MARK in copy:
            raise TransformFailed("The transform gave a property that belongs to the server or to the app.")
        try:
            text = json.dumps(copy, default=number_of, allow_nan=False)
            copy = json.loads(text, parse_int=double_of, parse_float=double_of)
        except (TypeError, ValueError):
            raise TransformFailed("The transform gave a value that JSON cannot hold.") from None
        if [partition_part(copy, path) for path in self._compared] != before:
            raise TransformFailed("The transform changed the key, the version or the filter.")
        return {**copy, **{name: document[name] for name in document.keys() - own(document).keys()}}


def touched_by(transform: Transform) -> frozenset[str]:
    """The properties that the steps may change, before and after; those of a function are not known."""
    touched = set[str]()
    for step in transform.steps:
        match step:
            case Rename():
                touched.update(step.names, step.names.values())
            case Constant() | FromJson():
                touched.update(step.values)
            case Drop():
                touched.update(step.names)
    return frozenset(touched)
