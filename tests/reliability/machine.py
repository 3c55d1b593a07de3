"""Random histories of writes, deletes, clock jumps, schema changes; of syncs, resumed syncs, kills, undos and restores.

Each step happens twice: the product does it on two SQLite files, and plain.py does it on dicts. Both must agree on the
rows of both sides, and on what the recycle bin keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from backup.core.errors import BadRequest, Conflict, GuardTripped
from backup.core.model import Action, Chunk
from backup.core.run_values import Counts, Run, Status, Trigger, Verb
from backup.core.timeline import Timeline
from backup.mirror.checkpoint import Checkpoint
from backup.mirror.proof import DifferenceKind
from backup.mirror.verification import Depth
from backup.runs.opening import NEWEST
from backup.runs.outcome import Outcome
from backup.services.service import NO_OPTIONS, Options
from backup.verbs.overwrite import LEFT_ALONE
from backup.verbs.restore_spec import RestoreSpec
from tests.reliability import plain
from tests.reliability.bench import (
    RECYCLE_DAYS,
    START,
    Bench,
    Entry,
    Kill,
    Killed,
    Side,
    as_utc,
    dying,
    stopping,
)
from tests.reliability.keys import LETTERS, NUMBERS, PAIRS, Key, Keys
from tests.reliability.plain import Row, State

HOUR, DAY = 3600, 86_400


@dataclass(frozen=True)
class Write:
    """Rows to insert or overwrite, with a new version, or with none if `unversioned`."""

    places: Sequence[int]
    value: str | None
    unversioned: bool


@dataclass(frozen=True)
class Delete:
    places: Sequence[int]


class Schema(Enum):
    """A change of the source's columns."""

    ADD = auto()
    ADD_WITH_DEFAULT = auto()
    DROP = auto()
    WIDEN = auto()


Edit = Write | Delete | Schema | timedelta
"""What users do to the source, or a jump of the clock."""

places = st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True)
seldom = st.sampled_from([False, False, False, True])
edits = st.lists(
    st.one_of(
        st.builds(Write, places, st.sampled_from([None, "", "a", "ä ", "\x00"]), seldom),
        st.builds(Delete, places),
        st.sampled_from([timedelta(seconds=seconds) for seconds in (-3 * DAY, -HOUR, -1, 1, HOUR, DAY, 3 * DAY)]),
        st.sampled_from(Schema),
    ),
    max_size=4,
)
recent = st.integers(0, 5)
asks = st.one_of(st.none(), st.none(), st.integers(0, 8))
"""How often a run may ask for the time left before its time is up; None: its time is never up."""
deaths = st.one_of(
    st.none(), st.none(), st.builds(Kill, st.integers(1, 50), st.sampled_from(["before", "uncommitted", "after"]))
)


@dataclass
class Ran:
    """A past run: what undos and restores need to know of it."""

    sync_id: str
    started_at: datetime
    ended_at: datetime | None = None
    columns: set[str] = field(default_factory=set)
    changes_nothing: bool = False
    images: dict[Key, Row | None] = field(default_factory=dict)
    """The backup's rows before the run, of all keys that the run changed in the backup."""
    hashes: set[str] = field(default_factory=set)
    undone: set[str] = field(default_factory=set)
    purged: bool = False


def cut(state: State, columns: set[str]) -> State:
    """The rows with only these columns."""
    return {key: {name: value for name, value in row.items() if name in columns} for key, row in state.items()}


class Machine(RuleBasedStateMachine):
    """One history. `source` and `backup` are the rows that the two sides must have."""

    keys: ClassVar[Keys] = NUMBERS
    knows_the_past: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self._folder = TemporaryDirectory()
        self.bench = Bench(Path(self._folder.name), self.keys)
        self.source: State = {}
        self.backup: State = {}
        self.runs: list[Ran] = []
        self.kept: dict[str, Entry] = {}
        self.moments: list[tuple[datetime, State, set[str]]] = [(START, {}, self.bench.columns("backup"))]
        self.purged_before = START - timedelta(days=1)
        self.unfilled: set[str] = set()
        self.undone_columns: set[str] = set()
        self._versions, self._names = count(1), count(1)

    def teardown(self) -> None:
        self.bench.close()
        self._folder.cleanup()

    # --- what users do to the source, and the clock -------------------------------------------------------------------

    def edit(self, edits: Sequence[Edit]) -> None:
        for edit in edits:
            match edit:
                case Write(places, value, unversioned):
                    self._write(places, value, unversioned)
                case Delete(places):
                    keys = [self.keys.pool[place] for place in places]
                    self.bench.delete(keys)
                    gone = {*map(self.keys.fold, keys)}
                    self.source = {key: row for key, row in self.source.items() if key not in gone}
                case timedelta():
                    self.bench.clock.now += edit
                case Schema():
                    self._alter(edit)

    def _write(self, places: Sequence[int], value: str | None, unversioned: bool) -> None:
        rows = []
        for place in places:
            row: Row = dict(zip(self.keys.columns, self.keys.pool[place], strict=True))
            row |= dict.fromkeys(self.bench.columns("source") - {*row, "Version"}, value)
            rows.append(row | {"Version": None if unversioned else next(self._versions)})
        self.bench.write(rows)
        self.source = self.source | {self.bench.key_of(row): self.bench.row(row) for row in rows}

    def _alter(self, how: Schema) -> None:
        added = self.bench.columns("source") - {*self.keys.columns, "Name", "Version"}
        match how:
            case Schema.WIDEN:
                self.bench.widen(50)
            case Schema.DROP if added:
                name = min(added)
                self.bench.drop_column(name)
                self.source = cut(self.source, self.bench.columns("source"))
            case Schema.ADD | Schema.ADD_WITH_DEFAULT if len(added) < 3:
                name = f"c{next(self._names)}"
                default = "d" if how is Schema.ADD_WITH_DEFAULT else None
                self.bench.add_column(name, default)
                if default is not None:
                    self.source = {key: {**row, name: default} for key, row in self.source.items()}

    @initialize(copied=st.booleans())
    def fill(self, copied: bool) -> None:
        self.edit([Write(range(10), "", False)])
        if copied:
            self.sync([], None, NO_OPTIONS)

    # --- what the product does ----------------------------------------------------------------------------------------

    @rule(edits=edits, kill=deaths, options=st.builds(Options, seldom, seldom, seldom), stop=asks)
    def sync(self, edits: Sequence[Edit], kill: Kill | None, options: Options, stop: int | None = None) -> None:
        self.edit(edits)
        open_entry = self._open_sync()
        if open_entry is not None and not (
            not open_entry["DryRun"]
            and not options.dry_run
            and bool(open_entry["AllowMassDelete"]) is options.allow_mass_delete
            and (open_entry["Forced"] or not options.force)
        ):
            open_entry = None
        columns, copied = self.bench.columns("source"), self.bench.columns("backup")
        to_fill = self._to_fill()
        force = options.force or bool(open_entry and open_entry["Forced"])
        unsure = bool(self.undone_columns) and not (force or to_fill)  # then a sync may copy more than it must
        plan = plain.sync(
            *(self.source, self.backup, columns, copied, [*self.keys.columns]),
            force=force or bool(to_fill or self.undone_columns),
        )
        before = Counts() if open_entry is None else self._in_bin(open_entry)
        with stopping(stop):
            outcome, ran = self._run(lambda: self.bench.service.sync(Trigger.CLI, options), kill, open_entry)
        self._check_sync(outcome, ran, plan, options.dry_run, options.allow_mass_delete, exact=not unsure)
        if outcome is not None and not outcome.in_progress:
            again = None if open_entry is None or outcome.error is not None else self._in_bin(open_entry)
            expected = _counts(plan, options.allow_mass_delete, before, Counts(), again)
            assert outcome.run.counts == expected or unsure
            assert options.dry_run or outcome.error or cut(self.backup, columns) == self.source
        self._forget_filled(ran, to_fill)

    @rule(edits=edits, kill=deaths, stop=asks)
    def resume(self, edits: Sequence[Edit], kill: Kill | None, stop: int | None) -> None:
        self.edit(edits)
        open_entry = self._open_sync()
        with stopping(stop):
            outcome = self._resumed(open_entry, kill)
        if open_entry is None:
            assert outcome is None
            self._settle(None, self.source, self.backup, "backup", set(), exact=True)

    def _resumed(self, open_entry: Entry | None, kill: Kill | None) -> Outcome | None:
        if open_entry is None:
            return self._run(lambda: self.bench.service.resume(Trigger.TIMER), kill)[0]
        columns, copied = self.bench.columns("source"), self.bench.columns("backup")
        to_fill, dry_run, allowed = self._to_fill(), bool(open_entry["DryRun"]), bool(open_entry["AllowMassDelete"])
        before = self._in_bin(open_entry)
        outcome, ran = self._run(lambda: self.bench.service.resume(Trigger.TIMER), kill, open_entry)
        assert ran is not None
        at = Checkpoint.from_text(open_entry["Checkpoint"])
        # Only the product knows which columns an undo has emptied.
        if not to_fill | (ran.columns & self.undone_columns) <= {*open_entry["AddedColumns"]}:
            at = at.begun_anew()
        force = bool(open_entry["Forced"] or to_fill or ran.columns)
        plan = plain.resume(
            *(self.source, self.backup, self._keys_in(at.parts_left), self._keys_in(at.deleting)),
            (at.source_records, at.backup_records),
            *(columns, copied, [*self.keys.columns]),
            *(force, dry_run, allowed),
        )
        self._check_sync(outcome, ran, plan, dry_run, allowed, exact=True)
        if outcome is not None and not outcome.in_progress:
            again = None if dry_run or outcome.error is not None else self._in_bin(open_entry)
            before = at.counts if dry_run else before
            assert outcome.run.counts == _counts(plan, allowed, before, at.counts, again)
        self._forget_filled(ran, to_fill)
        return outcome

    def _check_sync(
        self, outcome: Outcome | None, ran: Ran | None, plan: plain.Sync, dry_run: bool, allowed: bool, *, exact: bool
    ) -> None:
        """Checks that the backup is as planned; or in part as planned, if the sync died or its time was up."""
        tripped = plan.tripped and not allowed
        backup = self.backup if dry_run else plan.written if tripped else plan.done
        touched = set() if dry_run else plan.writes if tripped else plan.writes | plan.deletes
        if outcome is None or outcome.in_progress:
            backup = self.backup if dry_run else self._part_of(plan, tripped)
            assert outcome is None or (outcome.run.percent is not None and 0 <= outcome.run.percent < 100)
        else:
            assert isinstance(outcome.error, GuardTripped) if tripped else outcome.error is None, outcome.run.error
            assert dry_run or outcome.run.verified is not tripped
        exact = exact and outcome is not None and not outcome.in_progress
        self._settle(ran, self.source, backup, "backup", touched, exact)

    def _part_of(self, plan: plain.Sync, tripped: bool) -> State:
        """The backup after a sync that has not ended. Checks that each record is whole, and that no record was deleted
        before all others were written."""
        now = self.bench.rows("backup")
        for key in self.backup.keys() | now.keys() | plan.done.keys():
            assert now.get(key) in (self.backup.get(key), plan.written.get(key), plan.done.get(key)), key
        if plan.deletes - now.keys():
            assert not tripped
            early = plan.writes - plan.late
            assert {key: now.get(key) for key in early} == {key: plan.written[key] for key in early}
        return now

    def _to_fill(self) -> set[str]:
        """The columns that the next sync must fill, without those that the source no longer has."""
        columns = self.bench.columns("source")
        return (columns - self.bench.columns("backup")) | (self.unfilled & columns)

    def _forget_filled(self, ran: Ran | None, to_fill: set[str]) -> None:
        if ran is None or ran.changes_nothing:
            return
        if self.bench.history()[ran.sync_id]["Status"] == Status.COMPLETED:
            self.unfilled, self.undone_columns = set(), set()
        else:
            assert ran.columns <= to_fill | self.undone_columns | self.unfilled
            self.unfilled |= ran.columns

    def _open_sync(self) -> Entry | None:
        """The entry of the unfinished sync that a run may resume, if any."""
        entries = [entry for entry in self.bench.history().values() if entry["Status"] == Status.IN_PROGRESS]
        assert len(entries) <= 1
        return next((entry for entry in entries if entry["Checkpoint"] is not None), None)

    def _in_bin(self, run_entry: Entry) -> Counts:
        """How many records the run has changed so far, by its images in the bin."""
        images = [image for image in self.kept.values() if image["SyncId"] == run_entry["SyncId"]]
        return Counts(*(sum(image["Action"] == action for image in images) for action in Action))

    def _keys_in(self, parts: Sequence[Chunk]) -> set[Key]:
        """The keys in these parts of the key space. Python orders folded keys as the server orders keys."""

        def inside(key: Key, part: Chunk) -> bool:
            after, upto = (bound and self.keys.fold(bound) for bound in part)
            return (after is None or key > after) and (upto is None or key <= upto)

        return {key for key in map(self.keys.fold, self.keys.pool) if any(inside(key, part) for part in parts)}

    @precondition(lambda self: self.runs)
    @rule(edits=edits, which=recent, through=st.booleans(), dry_run=seldom, kill=deaths)
    def undo(self, edits: Sequence[Edit], which: int, through: bool, dry_run: bool, kill: Kill | None) -> None:
        self.edit(edits)
        through = through and self.knows_the_past
        places = [at for at, run in enumerate(self.runs) if not run.changes_nothing] or [0]
        at = places[max(0, len(places) - 1 - which)]
        first = self.runs[at]
        undone = [run for run in reversed(self.runs[at:]) if not run.changes_nothing] if through else [first]
        own = {run.sync_id for run in undone}
        later_runs = [run for run in self.runs[at + 1 :] if run not in undone and not own & run.undone]
        images = [run.images for run in undone]
        outcome, ran = self._run(lambda: self.bench.service.undo(first.sync_id, through=through, dry_run=dry_run), kill)
        refused = outcome is not None and isinstance(outcome.error, Conflict | BadRequest)
        backup, touched = plain.undo(self.backup, [] if dry_run or refused else images)
        if outcome is None:
            backup = self.bench.rows("backup")
            for key in self.backup.keys() | backup.keys():
                values = [self.backup.get(key), *(image[key] for image in images if key in image and not dry_run)]
                assert backup.get(key) in values, key
        elif first.changes_nothing:
            assert isinstance(outcome.error, BadRequest)
        elif refused:
            # Keys that some server might take for the same count as one. An undo may refuse runs older than the bin.
            old = any(run.purged or run.started_at < self._reach(outcome) for run in undone)
            assert old or any(run.hashes & first.hashes for run in later_runs)
        else:
            assert outcome.error is None, outcome.run.error
            assert not any(run.purged for run in undone)
            assert not any(run.images.keys() & first.images.keys() for run in later_runs)
        self._settle(ran, self.source, backup, "backup", touched, outcome is not None)
        if ran is not None and not dry_run:
            self.undone_columns |= ran.columns
            assert not ran.images or ran.columns == {name for run in undone for name in run.columns}

    @rule(
        edits=edits,
        which=st.none() | recent,
        places=st.just([]) | places,
        overwrite_newer=st.booleans(),
        delete_extra=st.booleans(),
        options=st.builds(Options, dry_run=seldom, allow_mass_delete=seldom),
        kill=deaths,
    )
    def restore(
        self,
        edits: Sequence[Edit],
        which: int | None,
        places: list[int],
        overwrite_newer: bool,
        delete_extra: bool,
        options: Options,
        kill: Kill | None,
    ) -> None:
        self.edit(edits)
        columns, copied = self.bench.columns("source"), self.bench.columns("backup")
        at, then, columns_then = self._moment(which)
        images = [entry for entry in self.kept.values() if entry["Side"] == "backup"]
        since = {entry["Key"] for entry in images if at is not None and entry["RecycledAt"] > at}
        asked = [self.keys.pool[place] for place in places]
        spec = RestoreSpec(at, tuple(map(self.keys.text, asked)), overwrite_newer, delete_extra)
        keys = {*map(self.keys.fold, asked)}
        plan = plain.restore(
            *(self.source, self.backup, then, since, columns & copied, [*self.keys.columns], keys), overwrite_newer
        )
        outcome, ran = self._run(lambda: self.bench.service.restore(spec, options), kill)
        tripped = delete_extra and plan.tripped and not options.allow_mass_delete
        extra = plan.extra if delete_extra and not tripped else set()
        refused = outcome is not None and isinstance(outcome.error, BadRequest)
        if outcome is not None:
            assert refused is (
                at is not None
                and not max(self._reach(outcome), self._first_synced(outcome.run.started_at))
                <= at
                <= outcome.run.started_at
            )
        if outcome is not None and not refused:
            assert isinstance(outcome.error, GuardTripped) if tripped else outcome.error is None, outcome.run.error
            counts = outcome.run.counts
            assert (counts.inserted, counts.updated, counts.deleted) == (
                *(len(plan.inserts), len(plan.updates), len(extra)),
            )
            assert {self.keys.fold(key) for key, change in outcome.changes if change == LEFT_ALONE} == plan.newer
        writes = {} if options.dry_run or refused else {**plan.inserts, **plan.updates}
        gone = set() if options.dry_run or refused else extra
        source = self.bench.rows("source")
        for key in self.source.keys() | source.keys() | writes.keys():
            if outcome is None and source.get(key) == self.source.get(key):
                continue
            if key in writes:
                self._expect_restored(key, source[key], writes[key], columns, columns_then)
            else:
                assert source.get(key) == (None if key in gone else self.source.get(key)), key
        touched = (writes.keys() | gone) & self.source.keys()
        self._settle(ran, source, self.backup, "source", touched, outcome is not None)

    def _expect_restored(self, key: Key, row: Row, then: Row, columns: set[str], columns_then: set[str]) -> None:
        """Checks that the row is as it was then, in the columns of then. Other columns may have several values."""
        assert cut({key: row}, columns & columns_then) == cut({key: then}, columns & columns_then)
        candidates = [self.source.get(key, {}), self.backup.get(key, {}), dict.fromkeys(columns, "d"), {}]
        for name in columns - columns_then:
            assert row.get(name) in [candidate.get(name) for candidate in candidates], (key, name)

    @rule(full=st.booleans())
    def verify(self, full: bool) -> None:
        columns, copied = self.bench.columns("source"), self.bench.columns("backup")
        plan = plain.sync(self.source, self.backup, columns, copied, [*self.keys.columns], force=False)
        outcome, ran = self._run(lambda: self.bench.service.verify(Depth(full=full)), None)
        assert outcome is not None
        assert outcome.error is None
        assert outcome.report is not None
        differences = outcome.report.differences
        keys = {
            self.keys.fold(difference.key) for difference in differences if difference.kind != DifferenceKind.CONTENT
        }
        assert keys == plan.writes | plan.deletes
        if not (self.unfilled or self.undone_columns):
            assert outcome.run.verified is not bool(keys)
            assert len(differences) >= len(keys)
        self._settle(ran, self.source, self.backup, "backup", set(), exact=True)

    @rule(place=st.integers(0, 9), which=st.none() | recent)
    def show(self, place: int, which: int | None) -> None:
        key = self.keys.pool[place]
        folded = self.keys.fold(key)
        at, then, _ = self._moment(which)
        try:
            shown = self.bench.service.past.show(self.keys.text(key), at)
        except BadRequest:
            assert at is not None
            assert at < self._kept_since()
            return
        assert at is None or at >= self._kept_since()
        assert (shown.record and self.bench.row(shown.record)) == then.get(folded)
        expected = [
            name for name, entry in self.kept.items() if (entry["Key"], entry["Side"]) == (folded, "backup")
        ]  # `kept` is in the order of the runs
        names = [f"{change.entry_id} {change.key}" for change in shown.changes]
        assert [name for name in names if name in expected] == expected

    @rule()
    def purge(self) -> None:
        self.bench.service.past.purge()
        self.purged_before = max(self.purged_before, self._kept_since())
        now, entries = (
            self.bench.clock.now,
            sorted(self.bench.history().values(), key=lambda entry: -int(entry["RunNumber"])),
        )
        begun = [as_utc(entry["StartedAt"]) for entry in entries[:NEWEST]]
        confirmed = max((at for at in begun if at < now - timedelta(hours=1)), default=now)
        before = min(now, confirmed + timedelta(days=RECYCLE_DAYS / 2)) - timedelta(days=RECYCLE_DAYS)
        runs = {run.sync_id: run for run in self.runs}
        times = Timeline(map(_begun, self.bench.history().values()), self.bench.clock.now)
        for name, entry in list(self.kept.items()):
            if times.moment(entry["SyncId"], entry["RecycledAt"]) < before:
                del self.kept[name]
                run = runs[entry["SyncId"]]
                run.purged = True
                run.images = {key: row for key, row in run.images.items() if key != entry["Key"]}
        assert self.bench.entries() == self.kept

    # --- how a run is watched -----------------------------------------------------------------------------------------

    def _run(
        self, call: Callable[[], Outcome | None], kill: Kill | None, resumed: Entry | None = None
    ) -> tuple[Outcome | None, Ran | None]:
        """Calls the product. Returns the outcome, None if the run died, and the run, None if it died before its entry.

        The call resumes the run of `resumed`, or begins a new run.
        """
        self._rows_before: dict[Side, State] = {"source": self.source, "backup": self.backup}
        past_runs = {run.sync_id: run for run in self.runs}
        outcome = None
        with suppress(Killed), dying(kill):
            outcome = call()
        history = self.bench.history()
        new = [entry for sync_id, entry in history.items() if sync_id not in past_runs]
        if resumed is None:
            assert len(new) == 1 or (new == [] and outcome is None)
            if not new:
                return None, None
        else:
            assert new == []
        entry = (resumed and history[resumed["SyncId"]]) or new[0]
        started, ended = (entry[name] and as_utc(entry[name]) for name in ("StartedAt", "CompletedAt"))
        ran = past_runs.get(entry["SyncId"]) or Ran(entry["SyncId"], started)
        assert ran.started_at == started
        ran.ended_at, ran.columns = ended, {*entry["AddedColumns"]}
        ran.changes_nothing = bool(entry["DryRun"]) or entry["Verb"] in (Verb.VERIFY, Verb.RESTORE)
        ran.undone = {*entry["UndoneRuns"]}
        open_ids = {sync_id for sync_id, entry in history.items() if entry["Status"] == Status.IN_PROGRESS}
        if outcome is not None:
            assert (outcome.run.sync_id, outcome.run.status) == (ran.sync_id, entry["Status"])
            assert outcome.in_progress is (ended is None)
        assert entry["Verb"] == Verb.VERIFY or open_ids == ({ran.sync_id} if ended is None else set())
        return outcome, ran

    def _settle(
        self, ran: Ran | None, source: State, backup: State, side: Side, touched: set[Key], exact: bool
    ) -> None:
        """Checks the rows of both sides, and the bin: it has each record that the run changed, as it was, and lost
        nothing."""
        now: dict[Side, State] = {"source": source, "backup": backup}
        assert self.bench.rows("source") == source
        assert self.bench.rows("backup") == backup
        entries = self.bench.entries()
        assert {name: entries.get(name) for name in self.kept} == self.kept
        new = {name: entry for name, entry in entries.items() if name not in self.kept}
        before, after = self._rows_before[side], now[side]
        for entry in new.values():
            assert ran is not None
            assert (entry["SyncId"], entry["Side"]) == (ran.sync_id, side)
            assert entry["Row"] == before.get(entry["Key"]), entry
        images = {entry["Key"]: entry["Row"] for entry in new.values()}
        changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
        if side == "source":
            changed &= before.keys()  # the bin keeps nothing of records that a restore inserts
        # Records that an earlier call of the run changed have their images since that call.
        earlier = ran.images.keys() if ran is not None else set()
        assert changed - earlier <= images.keys() <= touched - earlier
        assert not exact or images.keys() == touched - earlier
        self.source, self.backup = source, backup
        self.kept |= new
        if ran is not None:
            # The clock may be set back before the first run. No restore can ask for a time between two calls of the
            # same run: a record that both changed has only one image.
            self.moments = [moment for moment in self.moments if moment[0] < ran.started_at]
            if side == "backup":
                ran.images = images | ran.images
                ran.hashes |= {entry["KeyHash"] for entry in new.values()}
            if ran.sync_id not in {run.sync_id for run in self.runs}:
                self.runs.append(ran)
            own = (entry["RecycledAt"] for entry in self.kept.values() if entry["SyncId"] == ran.sync_id)
            at = max((ran.ended_at or ran.started_at, *own))
            self.moments.append((at, backup, self.bench.columns("backup")))

    def _moment(self, which: int | None) -> tuple[datetime | None, State, set[str]]:
        """A time that the bin reaches, or None for now; and the backup's rows and columns at that time."""
        if which is None or not self.knows_the_past:
            return None, self.backup, self.bench.columns("backup")
        moment = self.moments[max(0, len(self.moments) - 1 - which)]
        # Nobody knows how far a purge went while the clock was ahead, so no rule asks for times before it.
        return moment if moment[0] >= self.purged_before else self._moment(None)

    def _first_synced(self, now: datetime) -> datetime:
        """When the first sync completed; nothing is known of the backup before. For clocks that were wrong see
        `unit/test_timeline.py`."""
        entries = sorted(self.bench.history().values(), key=lambda entry: int(entry["RunNumber"]))
        for entry in entries:
            if entry["Status"] == Status.COMPLETED and entry["Verb"] == Verb.SYNC and not entry["DryRun"]:
                return Timeline(map(_begun, entries), now).moment(entry["SyncId"], as_utc(entry["CompletedAt"]))
        return datetime.max.replace(tzinfo=UTC)

    def _kept_since(self) -> datetime:
        """The time before which the bin counts as purged, by the clock now."""
        return self.bench.clock.now - timedelta(days=RECYCLE_DAYS)

    def _reach(self, outcome: Outcome) -> datetime:
        """The time before which the bin counts as purged, by the clock at the run's start."""
        return outcome.run.started_at - timedelta(days=RECYCLE_DAYS)


def _begun(entry: Entry) -> Run:
    started = as_utc(entry["StartedAt"])
    return Run("customer", Trigger.CLI, False, started, entry["SyncId"], number=entry["RunNumber"])


def _counts(plan: plain.Sync, allowed: bool, before: Counts, walked: Counts, images: Counts | None) -> Counts:
    """The counts of a sync at its end: what it changed `before` this call, and what this call does.

    A resumed sync that succeeded counts its `images`: each record once, however often the sync changed it.
    """
    inserted, updated = len(plan.inserts), len(plan.updates)
    deleted = 0 if plan.tripped and not allowed else len(plan.deletes)
    if images is None:
        return before.plus(inserted=inserted, updated=updated, deleted=deleted).plus(
            skipped=walked.skipped + plan.skipped - before.skipped
        )
    met = walked.seen + inserted + updated + plan.skipped
    return images.plus(skipped=max(0, met - images.inserted - images.updated))


class PairsMachine(Machine):
    """Keys of two columns; some keys look alike."""

    keys = PAIRS


class LettersMachine(Machine):
    """Keys that the server compares without regard to case.

    No rule asks for the past. If a key is deleted in one spelling and inserted in another, the bin has two keys: nobody
    can ask a server whether two keys are equal if it no longer has the first.
    """

    keys = LETTERS
    knows_the_past = False
