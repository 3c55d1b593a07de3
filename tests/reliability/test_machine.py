"""Random histories of source writes, deletes, clock jumps, schema changes, syncs, kills, undos and restores.

Every step is done twice: by the product on two SQLite files, and on the dicts of plain.py. Both must agree, on the
rows of both sides and on what the recycle bin keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, assume, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from backup.errors import BadRequest, Conflict, GuardTripped
from backup.models import Status, Trigger
from backup.recorded import Outcome
from backup.restore import LEFT_ALONE, Wish
from backup.services import Options
from backup.stores.exact import key_hash
from backup.verify import Depth
from tests.reliability import plain
from tests.reliability.bench import RECYCLE_DAYS, START, Bench, Kill, Killed, dying, unsafe_but_fast
from tests.reliability.effort import LONG, SEED, rounds
from tests.reliability.keys import LETTERS, NUMBERS, PAIRS, Key, Keys
from tests.reliability.plain import Row, State

pytestmark = pytest.mark.timeout(rounds(600, 10 * 3600))

STEPS = 25
RETENTION = timedelta(days=RECYCLE_DAYS)
HOUR, DAY = 3600, 86_400

places = st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True)
recent = st.integers(0, 5)
deaths = st.none() | st.builds(Kill, st.integers(1, 40), st.sampled_from(["before", "uncommitted", "after"]))
seldom = st.sampled_from([False, False, False, True])


@dataclass
class Ran:
    """A run of the past, as far as undos and restores ask for it."""

    sync_id: str
    trigger: str
    started_at: datetime
    died: bool = False
    changes_nothing: bool = False
    images: dict[Key, Row | None] = field(default_factory=dict)
    """What the backup had before it, of all keys that it changed there."""
    hashes: set[str] = field(default_factory=set)
    columns: set[str] = field(default_factory=set)
    purged: bool = False


class Machine(RuleBasedStateMachine):
    """One history. `source` and `backup` are what must be there."""

    keys: ClassVar[Keys] = NUMBERS

    def __init__(self) -> None:
        super().__init__()
        self._folder = TemporaryDirectory()
        self.bench = Bench(Path(self._folder.name), self.keys)
        self.source: State = {}
        self.backup: State = {}
        self.runs: list[Ran] = []
        self.kept: dict[str, dict[str, Any]] = {}
        self.moments: list[tuple[datetime, State, set[str]]] = [(START, {}, self.bench.columns("backup"))]
        self.purged_before = START - timedelta(days=1)
        self.unfilled: set[str] = set()
        self.undone_columns: set[str] = set()
        self._versions, self._names = count(1), count(1)

    def teardown(self) -> None:
        self.bench.close()
        self._folder.cleanup()

    # --- what others do to the source, and to the clock ---------------------------------------------------------------

    @rule(places=places, value=st.sampled_from([None, "", "a", "ä ", "\x00"]), unversioned=seldom)
    def write(self, places: list[int], value: str | None, unversioned: bool) -> None:
        rows = []
        for place in places:
            key = self.keys.pool[place]
            row = dict(zip(self.keys.columns, key, strict=True))
            row |= {name: value for name in self.bench.columns("source") - {*row, "Version"}}
            rows.append(row | {"Version": None if unversioned else next(self._versions)})
        self.bench.write(rows)
        self.source |= {self.bench.key_of(row): self.bench.row(row) for row in rows}

    @rule(places=places)
    def delete(self, places: list[int]) -> None:
        keys = [self.keys.pool[place] for place in places]
        self.bench.delete(keys)
        for key in keys:
            self.source.pop(self.keys.fold(key), None)

    @rule(seconds=st.sampled_from([-3 * DAY, -HOUR, -1, 1, HOUR, DAY, 3 * DAY]))
    def jump(self, seconds: int) -> None:
        self.bench.clock.now += timedelta(seconds=seconds)

    @precondition(lambda self: len(self.bench.columns("source")) < 6)
    @rule(default=st.none() | st.just("d"))
    def add_column(self, default: str | None) -> None:
        name = f"c{next(self._names)}"
        self.bench.add_column(name, default)
        if default is not None:
            self.source = {key: row | {name: default} for key, row in self.source.items()}

    @precondition(lambda self: self._added())
    @rule(which=recent)
    def drop_column(self, which: int) -> None:
        names = sorted(self._added())
        name = names[which % len(names)]
        self.bench.drop_column(name)
        self.source = {key: {n: v for n, v in row.items() if n != name} for key, row in self.source.items()}

    @rule(size=st.sampled_from([10, 50]))
    def widen(self, size: int) -> None:
        self.bench.widen(50 if size == 50 else 10)

    def _added(self) -> set[str]:
        return self.bench.columns("source") - {*self.keys.columns, "Name", "Version"}
