"""The base of engines: a source that a workload changes and restores, and a backup for each contender."""

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
    """Something that the engine needs is missing; the message says how to get it."""


class Engine(ABC):
    """A source of `rows` records, and a place for each contender.

    `keeps`: whether `save` and `restore` work here. If not, each contender makes its backup equal again by its own
    sync, which is not timed.
    """

    name: ClassVar[EngineName]
    keeps: bool = True

    def __init__(self, rows: int, folder: Path) -> None:
        self.rows, self.folder = rows, folder
        self.deleted = 0
        """How many records the source lacks now."""

    @abstractmethod
    def build(self) -> None:
        """Builds the source anew."""

    @abstractmethod
    def place(self, contender: str) -> Place:
        """Returns where the contender finds the source and puts its backup."""

    @abstractmethod
    def change(self, change: Change) -> None:
        """Changes the source."""

    @abstractmethod
    def undo(self, change: Change) -> None:
        """Makes the source what it was before the change."""

    @abstractmethod
    def clear(self, contender: str) -> None:
        """Removes the contender's backup and everything in its folder."""

    def save(self, contender: str) -> None:
        """Saves a copy of the contender's backup and folder."""
        _replace(self.saved_folder(contender), self.own_folder(contender))

    def restore(self, contender: str) -> None:
        """Restores the contender's backup and folder from the saved copy."""
        _replace(self.own_folder(contender), self.saved_folder(contender))

    def finish_writes(self) -> None:  # noqa: B027 - most have nothing to finish
        """Has the server write what earlier turns left in its memory, so that no later turn waits for that."""

    def without_requests(self) -> AbstractContextManager[None] | None:
        """Returns a context in which this process fills a contender's backup faster than another process could; None
        where there is none."""
        return None

    @abstractmethod
    def difference(self, place: Place, *, exact: bool) -> str | None:
        """Returns how the place's backup differs from the source; None if it does not.

        Without `exact`, values may have another type with the same meaning: a time as text, a flag as 'true'.
        """

    def has_copies(self, place: Place) -> bool:
        """Returns whether the place's backup has any record."""
        raise NotImplementedError(f"{self.name} is not asked whether {place.backup_table} is empty")

    def counted(self, place: Place) -> AbstractContextManager[tuple[Place, Meter | None]]:
        """Yields the place and, where something outside the client counts, a source that counts, and its meter."""
        return nullcontext((place, None))

    def own_folder(self, contender: str) -> Path:
        """Returns the contender's folder."""
        return self.folder / contender

    def saved_folder(self, contender: str) -> Path:
        """Returns the folder of the saved copy."""
        return self.folder / "saved" / contender


def _replace(folder: Path, new: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if new.exists():
        shutil.copytree(new, folder)
    else:
        folder.mkdir(parents=True)
