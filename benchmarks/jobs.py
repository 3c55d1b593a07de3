"""The request and the answer of a turn, as JSON between two processes. Imports the standard library alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).parent.parent
"""The repository."""

EngineName = Literal["sqlite", "postgresql", "sqlserver", "cosmos"]
Task = Literal["copy", "sync", "force", "undo"]
"""copy: make the first copy. sync: make an older copy equal again. force: copy everything again over an older copy.
undo: take the first copy back."""


@dataclass(frozen=True)
class Place:
    """Where the source and the backup of one contender are. Tables are `schema.table`, containers `database/name`.

    `folder` belongs to the contender, for its other files.
    """

    engine: EngineName
    service: Literal["customer", "order"]
    source: str
    source_table: str
    backup: str
    backup_table: str
    folder: str


@dataclass(frozen=True)
class Job:
    """One turn of one contender. `part`: what the floor does. `counting`: the turn counts and is not timed."""

    contender: str
    task: Task
    place: Place
    rows: int
    part: str = ""
    counting: bool = False

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        fields = json.loads(text)
        return cls(**{**fields, "place": Place(**fields["place"])})


@dataclass(frozen=True)
class Reads:
    """What a turn asked the source. None: nothing could count it.

    `bytes`: see README, the unit differs by engine. `longest_seconds`: from a statement's start to its last row.
    `documents` and `charge` (request units, if the server says them) are only for Cosmos DB.
    """

    statements: int | None = None
    bytes: int | None = None
    longest_seconds: float | None = None
    documents: int | None = None
    charge: float | None = None


@dataclass(frozen=True)
class Measured:
    """What a turn cost.

    `cpu_seconds` is the time of the client, without the server. `idle_bytes`: memory of the process before the work.
    `peak_bytes`: its most memory during the work. `records`: how many records of the source it read, where nothing else
    can be checked. `error`: why it failed.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    idle_bytes: int = 0
    peak_bytes: int = 0
    records: int | None = None
    error: str | None = None
    reads: Reads = field(default_factory=Reads)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Measured:
        fields = json.loads(text)
        return cls(**{**fields, "reads": Reads(**fields["reads"])})


@dataclass(frozen=True)
class OwnMeasures:
    """The measures that a contender takes itself, because it knows better than the process around it."""

    seconds: float | None = None
    cpu_seconds: float | None = None
    idle_bytes: int | None = None
    peak_bytes: int | None = None
    records: int | None = None


Work = Callable[[], OwnMeasures | None]
"""The part of a turn that is timed."""

Details = dict[str, Any]
