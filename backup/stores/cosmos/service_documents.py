"""The documents of one service, whole: as a backup takes them from its source, and as the recycle bin keeps them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

from backup.core.batched import batched
from backup.core.errors import RecordRefused
from backup.core.model import WHOLE, Action, Chunk, Image, Key, Record, SideName, Version
from backup.core.suggestions import quantity
from backup.stores.cosmos.addresses import Taken
from backup.stores.cosmos.container import CosmosContainer
from backup.stores.cosmos.documents import DELETED_NOTE, MARK, belongs, key_to_json, note_of, own, path_in, texts
from backup.stores.cosmos.keys import CosmosKeys
from backup.stores.cosmos.masked import MaskedDocuments, marked_etag, noted
from backup.stores.cosmos.transformed import TransformedDocuments
from backup.stores.values import LeftOut, Rules


class ServiceDocuments:
    """The documents of one side by the rules of its service: filter, masks, transform. For any number of threads."""

    def __init__(
        self, container: CosmosContainer, keys: CosmosKeys, rules: Rules, side: SideName, label: str, batch_size: int
    ) -> None:
        self._container, self._keys, self._rules, self._side = container, keys, rules, side
        self._label, self._batch_size = label, batch_size

    @cached_property
    def _masked(self) -> MaskedDocuments | None:
        """The masks of the service; None where there are none."""
        if not self._rules.masking:
            return None
        return MaskedDocuments(self._rules.masking, self._compared, self._label, self._rules.transform)

    @cached_property
    def _transformed(self) -> TransformedDocuments | None:
        """The transform of a source's documents; None where there is none."""
        if self._rules.transform is None or self._side != "source":
            return None
        return TransformedDocuments(self._rules.transform, self._compared, self._label)

    @property
    def _compared(self) -> list[list[str]]:
        """The paths of what neither masks nor a transform may change."""
        names, where = ("id", *self._rules.version), map(path_in, self._rules.where)
        return [*([name] for name in names), *where, *self._container.partition_paths]

    def _hidden(self, document: Record) -> Record:
        """A source's document with masked values, and the etag and `_ts` of its copy's note."""
        document = document if self._masked is None else self._masked.masked(document)
        return noted(self._rules.stamping, document) if self._rules.stamping else document

    @property
    def may_leave_out(self) -> bool:
        """As `Transforming.may_leave_out`."""
        return self._rules.transform is not None and self._rules.transform.may_leave_out

    def left_out(self, keys: Sequence[Key]) -> LeftOut:
        """As `Transforming.left_out`."""
        left_out, transformed = LeftOut(), self._transformed
        if transformed is None:
            return left_out
        for records in self._read(frozenset(keys), WHOLE):
            left_out += transformed.applied(map(self._hidden, records), self._keys.of)[1]
            del records
        return left_out

    def read(self, keys: frozenset[Key] | None, chunk: Chunk) -> Iterator[list[Record]]:
        """As `Store.read`."""
        _, transformed = self._masked, self._transformed  # rules that do not fit are refused before anything is read
        for records in self._read(keys, chunk):
            if transformed is None:
                yield records if self._side == "backup" else list(map(self._hidden, records))
                del records  # else memory would hold them beside the next batch
                continue
            copies, left_out = transformed.applied(map(self._hidden, records), self._keys.of)
            del records
            if copies:
                yield copies
            del copies
            if left_out.failed:
                raise_refused("transform", left_out.failed, self._label)

    def _read(self, keys: frozenset[Key] | None, chunk: Chunk) -> Iterator[list[Record]]:
        if keys is None:
            yield from self._container.every_document(chunk)
            return
        for part in batched(list(keys), self._batch_size):  # ids suffice, so the chunk does not matter
            yield from self._container.documents(part, of_service=True)

    def images(self, keys: Sequence[Key], action: Action) -> Iterator[list[Image]]:
        """As `Store.images`."""
        # A write would also overwrite another service's document under such a key: so its image is kept too.
        for records in self._container.documents(keys, of_service=False):
            yield [self.image(record, action) for record in records]

    def image(self, document: Record, action: Action) -> Image:
        """Returns the document as it is before the change, which need not be one of the service."""
        version = texts(map(document.get, self._rules.version))
        is_ours = belongs(document, self._rules.where)
        if self._side == "source":
            document = self._hidden(document)
            etag = document.get("_etag")
        else:
            document = document if self._masked is None else self._masked.image(document)
            etag = note_of(document).get("etag")
        if self._side == "backup" and DELETED_NOTE in note_of(document):  # no record of the service any more
            action = Action.INSERTED if action is Action.UPDATED else action
            return Image(self._keys.of(document), action, own(document))
        stamp = Version(version, etag) if is_ours else None
        return Image(self._keys.of(document), action, own(document), version, stamp)

    def masked_anew(self, copy: Record) -> Record | None:
        """A marked copy as the service's masks make it, under their mark; None if they have made it, or there are none.
        Its note stays."""
        if self._masked is None or (masked := self._masked.image(copy)) is copy:
            return None
        note = note_of(copy)
        etag = marked_etag(self._rules.stamping, str(note.get("etag") or "-").partition(" ")[0])
        return {**own(masked), MARK: {**note, "etag": etag}}


def raise_refused(operation: str, refused: Mapping[Key, str], label: str) -> None:
    """Raises RecordRefused for these documents of the place that is called `label`, if there are any. A reason that is
    `Taken` says that another document is in the way."""
    if not refused:
        return
    key, reason = next(iter(refused.items()))
    raise RecordRefused(
        f"Could not {operation} {quantity(len(refused), 'document')} in the {label}; all others of the batch were "
        f"done. {json.dumps(key_to_json(key))}: {reason}",
        refused=refused,
        in_the_way=[key for key, reason in refused.items() if isinstance(reason, Taken)],
    )
