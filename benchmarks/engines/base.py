"""What a workload needs of an engine: a source to change and put right, and a backup for each contender to keep."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import ClassVar

from benchmarks.data import Change
from benchmarks.jobs import EngineName, Place
from benchmarks.proxy import Meter


class EngineMissing(Exception):
    """What the engine needs is not there; the message says how to get it."""


class Engine(ABC):
    """A source of `rows` records, and a place for each contender.

    `keeps`: whether `save` and `restore` work here. Where they do not, a contender's backup is put right by its own
    sync, untimed.
    """

    name: ClassVar[EngineName]
    keeps: ClassVar[bool] = True

    def __init__(self, rows: int, folder: Path) -> None:
        self.rows, self.folder = rows, folder
        self.deleted = 0
        """How many records the source lacks now."""

    @abstractmethod
    def build(self) -> None:
        """Makes the source anew."""

    @abstractmethod
    def place(self, contender: str) -> Place:
        """Where the contender finds the source, and has its backup."""

    @abstractmethod
    def change(self, change: Change) -> None:
        """Changes the source."""

    @abstractmethod
    def undo(self, change: Change) -> None:
        """Makes the source what it was before the change."""

    @abstractmethod
    def clear(self, contender: str) -> None:
        """Leaves nothing of the contender's backup, nor in its folder."""

    def save(self, contender: str) -> None:
        """Keeps the contender's backup and folder as they are."""
        _replace(self.saved_folder(contender), self.own_folder(contender))

    def restore(self, contender: str) -> None:
        """Makes the contender's backup and folder what they were when saved."""
        _replace(self.own_folder(contender), self.saved_folder(contender))

    @abstractmethod
    def difference(self, place: Place, *, exact: bool) -> str | None:
        """How the place's backup differs from the source; None if it does not.

        Not `exact`, values may be of another type that means the same: a time as text, a flag as 'true'.
        """

    def counted(self, place: Place) -> AbstractContextManager[tuple[Place, Meter | None]]:
        """The place with a source that counts what is asked of it, where that is done outside of the client."""
        return nullcontext((place, None))

    def own_folder(self, contender: str) -> Path:
        """The contender's folder."""
        return self.folder / contender

    def saved_folder(self, contender: str) -> Path:
        """Where `save` keeps it."""
        return self.folder / "saved" / contender


def _replace(folder: Path, other: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if other.exists():
        shutil.copytree(other, folder)
    else:
        folder.mkdir(parents=True)
