"""What a turn is asked and what it answers, as JSON between two processes. Imports the standard library alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).parent.parent
"""The repository."""

EngineName = Literal["sqlite", "postgresql", "sqlserver", "cosmos"]
Task = Literal["copy", "sync", "force"]
"""Make the first copy into nothing; make an older copy equal again; copy everything again over an older copy."""


@dataclass(frozen=True)
class Place:
    """Where one contender finds the source and has its backup. Tables are `schema.table`, containers `database/name`.

    `folder` is the contender's own, for what it keeps beside its backup.
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
    """One turn of one contender. `part` names what the floor does; `counting` turns are not timed."""

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
        given = json.loads(text)
        return cls(**{**given, "place": Place(**given["place"])})


@dataclass(frozen=True)
class Reads:
    """What a turn asked of the source. None: it could not be counted.

    `bytes`: see README, the unit differs by engine. `longest_seconds`: from a statement's start to its last row.
    `documents` and `charge` (request units, where the server tells them) are Cosmos DB's.
    """

    statements: int | None = None
    bytes: int | None = None
    longest_seconds: float | None = None
    documents: int | None = None
    charge: float | None = None


@dataclass(frozen=True)
class Measured:
    """What a turn cost.

    `cpu_seconds` is the client's alone, not its server's. `idle_bytes` is the process before the work, `peak_bytes` its
    most memory during it. `records`: how many of the source's records it saw, where only that can be checked. `error`:
    why it failed.
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
        given = json.loads(text)
        return cls(**{**given, "reads": Reads(**given["reads"])})


@dataclass(frozen=True)
class Told:
    """What a work measured itself, because it knows better than the process around it."""

    seconds: float | None = None
    cpu_seconds: float | None = None
    idle_bytes: int | None = None
    peak_bytes: int | None = None
    records: int | None = None


Work = Callable[[], Told | None]
"""The part of a turn that is timed."""

Details = dict[str, Any]
