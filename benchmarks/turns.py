"""One workload: rounds in which every contender has a turn, from the same state, each turn in a new process.

The clock does not measure how the state before a turn is restored, nor how its result is checked.
"""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

from benchmarks.contenders.base import Contender
from benchmarks.contenders.floor import inserted
from benchmarks.engines.base import Engine
from benchmarks.jobs import ROOT, Job, Measured, Reads, Task
from benchmarks.workloads import Workload

LONG_SECONDS = 30.0
"""A contender whose turn took longer has no further turn."""

Tell = Callable[[str], None]


@dataclass
class Line:
    """One contender's turns in one workload."""

    workload: str
    rows: int
    contender: str
    part: str = ""
    turns: list[Measured] = field(default_factory=list)
    reads: Reads = field(default_factory=Reads)
    cannot: str | None = None
    wrong: str | None = None
    failed: bool = False
    cut_short: bool = False
    """Whether it has fewer turns, because they take long."""

    @property
    def name(self) -> str:
        """Contender and part."""
        return f"{self.contender}: {self.part}" if self.part else self.contender

    @property
    def seconds(self) -> float | None:
        """The median; None without a turn that is right."""
        return median(turn.seconds for turn in self.turns) if self.turns and not self.wrong else None

    @property
    def cpu_seconds(self) -> float | None:
        """The median of the client's processor time; None without a turn that is right."""
        return median(turn.cpu_seconds for turn in self.turns) if self.turns and not self.wrong else None

    @property
    def idle_bytes(self) -> int:
        """The median of the memory of the process before its work."""
        return round(median(turn.idle_bytes for turn in self.turns)) if self.turns else 0

    @property
    def peak_bytes(self) -> int:
        """The median of the most memory during the work, above `idle_bytes`."""
        return round(median(max(0, turn.peak_bytes - turn.idle_bytes) for turn in self.turns)) if self.turns else 0


class Turns:
    """The contenders of one engine. Remembers whose backup is still as the first copy left it."""

    def __init__(self, engine: Engine, contenders: Sequence[Contender], repeat: int, tell: Tell) -> None:
        self._engine, self._contenders, self._repeat, self._tell = engine, contenders, repeat, tell
        self._copied: set[str] = set()
        self._changed: set[str] = set()

    def run(self, workload: Workload) -> list[Line]:
        """Makes all turns of the workload and returns a line for each contender and part.

        The last round is not timed: it counts what contenders ask the source.
        """
        engine = self._engine
        change = workload.change(engine.rows)
        pairs = [
            (contender, Line(workload.name, engine.rows, contender.name, part))
            for contender in self._contenders
            for part in contender.parts(workload.name)
        ]
        for contender, line in pairs:
            line.cannot = contender.cannot(engine.name, workload.name)
            if workload.task == "undo" and contender.mirrors and not contender.undoes:
                line.cannot = "cannot take a copy back"
        for number in range(self._repeat + 1):
            counting = number == self._repeat
            playing = [(contender, line) for contender, line in pairs if not line.cannot and not line.wrong]
            for contender, line in playing:
                if workload.task != "copy" or not contender.mirrors:
                    line.cannot = line.cannot or self._make_ready(contender)
            if change is not None:
                engine.change(change)
            for contender, line in playing:
                if not counting and line.turns and line.turns[-1].seconds > LONG_SECONDS:
                    line.cut_short = True
                if line.cannot or (line.cut_short and not counting):
                    continue
                round_name = "counting" if counting else f"round {number + 1}"
                self._tell(f"{engine.name}, {engine.rows:,} rows, {workload.title}, {round_name}: {line.name}")
                self._turn(contender, line, workload, counting)
            if change is not None:
                engine.undo(change)
        return [line for _, line in pairs]

    def _turn(self, contender: Contender, line: Line, workload: Workload, counting: bool) -> None:
        engine, name = self._engine, contender.name
        place = engine.place(name)
        if workload.task == "copy" and contender.mirrors:
            engine.clear(name)
        engine.finish_writes()
        job = Job(name, workload.task, place, engine.rows, line.part, counting)
        if counting:
            with engine.counted(place) as (watched, meter):
                measured = measure(replace(job, place=watched), contender.interpreter())
            if meter is not None:
                line.reads = meter.reads()
            elif contender.drives_python:
                line.reads = measured.reads
        else:
            measured = measure(job, contender.interpreter())
            line.turns.append(measured)
        line.wrong = self._wrong(contender, line, measured, workload.task)
        line.failed = measured.error is not None
        if not contender.mirrors:
            return
        if workload.task == "copy" and not line.wrong:
            self._keep(name)
        elif workload.writes or line.wrong:
            self._changed.add(name)

    def _wrong(self, contender: Contender, line: Line, measured: Measured, task: Task) -> str | None:
        """Returns what is wrong with the backup after the turn, or with what it read; None if nothing is."""
        engine = self._engine
        place = engine.place(contender.name)
        if measured.error:
            return measured.error
        if contender.mirrors and task == "undo":
            return "records are left" if engine.has_copies(place) else None
        if contender.mirrors:
            return engine.difference(place, exact=contender.exact)
        if line.part == "insert":
            return engine.difference(inserted(place), exact=True)
        expected = engine.rows - engine.deleted
        return None if measured.records == expected else f"saw {measured.records} of {expected} records"

    def _make_ready(self, contender: Contender) -> str | None:
        """Makes the contender's backup a first copy of the source as it is now. Returns why it cannot, or None."""
        engine, name = self._engine, contender.name
        if name in self._copied and name not in self._changed:
            return None
        if name in self._copied and engine.keeps:
            engine.restore(name)
        else:
            action = "makes its copy equal again" if name in self._copied else "makes its copy"
            self._tell(f"{engine.name}, {engine.rows:,} rows: {name} {action}")
            if name not in self._copied:
                engine.clear(name)
            task: Task = "sync" if name in self._copied else "copy"
            error = self._make_equal(contender, Job(name, task, engine.place(name), engine.rows))
            wrong = error or engine.difference(engine.place(name), exact=contender.exact)
            if wrong:
                return f"its first copy failed: {wrong}"
            self._keep(name)
        self._changed.discard(name)
        return None

    def _make_equal(self, contender: Contender, job: Job) -> str | None:
        """Does the job, untimed. Returns why it failed, or None."""
        context = self._engine.without_requests()
        if context is None or contender.interpreter() != Path(sys.executable):
            return measure(job, contender.interpreter()).error
        try:
            with context:
                contender.prepare(job)()
        except Exception:  # the line of the table tells it
            return _last_error(traceback.format_exc())
        return None

    def _keep(self, name: str) -> None:
        if name not in self._copied:
            self._engine.save(name)
        self._copied.add(name)
        self._changed.discard(name)


def measure(job: Job, interpreter: Path) -> Measured:
    """Does the job in a new process, which does not see the app's settings of this process."""
    environment = {
        name: value for name, value in os.environ.items() if "__" not in name and not name.startswith("AzureWebJobs")
    }
    ended = subprocess.run(
        [str(interpreter), "-m", "benchmarks.child"],
        input=job.to_json(),
        cwd=ROOT,
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        return Measured(error=_last_error(ended.stderr))
    return Measured.from_json(ended.stdout.splitlines()[-1])


def _last_error(text: str) -> str:
    """Returns the name of the last exception and the start of its message, without lines of code."""
    lines = text.rpartition("Traceback (most recent call last):")[2].splitlines()
    message = " ".join(" ".join(line for line in lines if not line.startswith("  ")).split())
    return message[:600] or "it ended without a message"
