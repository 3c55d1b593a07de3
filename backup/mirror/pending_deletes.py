"""Keys to delete, which wait until both sides were read. Holds any number of keys in bounded memory."""

from __future__ import annotations

import pickle
from collections.abc import Collection, Iterator
from tempfile import SpooledTemporaryFile
from threading import Lock
from types import TracebackType
from typing import Self

from backup.core.model import Key

_MAX_BYTES_IN_MEMORY = 4 * 1024 * 1024


class PendingDeletes:
    """Keys in the order they were added. Beyond 4 MiB they lie in a temporary file, which is gone after the run."""

    def __init__(self) -> None:
        self._file = SpooledTemporaryFile(max_size=_MAX_BYTES_IN_MEMORY)  # noqa: SIM115 - closed by __exit__
        self._count = 0
        self._lock = Lock()

    def __len__(self) -> int:
        return self._count

    def add(self, keys: Collection[Key]) -> None:
        """Adds these keys, which must fit into memory together. Several threads may add at once."""
        if keys:
            with self._lock:
                pickle.dump(list(keys), self._file, protocol=pickle.HIGHEST_PROTOCOL)
                self._count += len(keys)

    def batches(self, size: int) -> Iterator[list[Key]]:
        """Yields all keys in batches of `size`; the last batch may have fewer."""
        self._file.seek(0)
        keys: list[Key] = []
        keys_left = self._count
        while keys_left:
            added: list[Key] = pickle.load(self._file)  # noqa: S301 - this run's own file, which has no name
            keys_left -= len(added)
            keys += added
            while len(keys) >= size or (keys and not keys_left):
                yield keys[:size]
                keys = keys[size:]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
