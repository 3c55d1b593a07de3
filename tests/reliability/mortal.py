"""A process that does each run in a fork, which kills itself with SIGKILL at a chosen step.

`python -m tests.reliability.mortal` reads orders from standard input and writes answers to standard output, as JSON, an
object a line. `Mortal` is the other end. The forks have imported everything, so that a death costs little. A run counts
its steps as it reaches them; they are the same in every run of the same order.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, Self
from unittest import mock

import sqlalchemy as sa
import sqlalchemy.dialects.postgresql.psycopg
from azure.cosmos import ContainerProxy
from sqlalchemy.engine.default import DefaultDialect

from backup.config.settings import load_settings
from backup.core.model import CheckLock
from backup.core.run_values import Trigger
from backup.recycle_bin.bin import RecycleBin
from backup.runs import lock
from backup.runs.history import History
from backup.services.registry import Registry
from backup.services.service import Options
from backup.stores.cosmos import throttle
from backup.stores.cosmos.catalog import CosmosCatalog
from backup.stores.cosmos.store import CosmosStore
from backup.stores.sql.buckets import SqlBuckets
from backup.stores.sql.catalog import SqlCatalog
from backup.stores.sql.store import SqlStore
from backup.stores.sql.writes import SqlWrites
from backup.verbs import relaying, sync
from backup.verbs.restore_spec import RestoreSpec
from tests.programs import prepare_to_fork
from tests.reliability.effort import SEED
from tests.scenarios import product

__all__ = ["Mortal", "Point", "carried_out", "one_of_each", "points_of", "written_by"]


def written_by(statement: str) -> str | None:
    """The name of the table that a statement writes to; None for a statement that writes nothing."""
    match = re.match(
        r'(?:INSERT(?: OR ABORT)? INTO|UPDATE(?: OR ABORT)?|DELETE FROM|COPY) (?:ONLY )?(?:[\w"]+\.)?"?(\w+)', statement
    )
    return match and match[1]


class Point(NamedTuple):
    """A step, and which time, from 1, a run reaches it."""

    step: str
    occurrence: int

    def __str__(self) -> str:
        return f"{self.step} #{self.occurrence}"


def points_of(trace: Sequence[str]) -> list[Point]:
    """All points of a run that reached the steps of `trace`."""
    reached: Counter[str] = Counter()
    points = []
    for step in trace:
        reached[step] += 1
        points.append(Point(step, reached[step]))
    return points


def one_of_each(points: Sequence[Point], most: int, turn: int = 0) -> list[Point]:
    """One point of each step, drawn by the seed; at most `most` of them, at even distances, from the `turn`-th on."""
    by_step: dict[str, list[Point]] = {}
    for point in points:
        by_step.setdefault(point.step, []).append(point)
    drawn = [random.Random(f"{SEED} {step}").choice(occurrences) for step, occurrences in by_step.items()]
    number = min(most, len(drawn))
    return [drawn[(i * len(drawn) // number + turn) % len(drawn)] for i in range(number)]


class Mortal:
    """The process that carries out orders, each in a fork. `with` ends it."""

    def __init__(self, folder: Path) -> None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": None}
        quiet = {"PYTHONWARNINGS": "ignore"}  # of certificates that emulators sign themselves
        self._process = product.start(folder, quiet, "-m", "tests.reliability.mortal", **pipes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def run(self, order: dict[str, Any]) -> dict[str, Any]:
        """Runs an order to its end; its `sync_id`, `status`, `counts`, `verified`, `error` and `trace` of steps."""
        ended = self._ask({**order, "kill": None})
        assert ended["signal"] == 0, ended
        return ended

    def kill(self, order: dict[str, Any], point: Point) -> None:
        """Runs an order up to the point, and asserts that the run died there."""
        ended = self._ask({**order, "kill": point})
        assert ended["signal"] == signal.SIGKILL, f"the point was not reached: {ended}"

    def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return dict(json.loads(self._process.stdout.readline()))


def carried_out(order: dict[str, Any]) -> dict[str, Any]:
    """Carries out an order in this process, which costs a third less; what `Mortal.run` returns, but for the steps."""
    service = Registry(load_settings(order["settings"])).get(order["service"])
    match order["do"]:
        case "sync":
            outcome = service.sync(Trigger.CLI, Options(force=order.get("force", False)))
        case "resume":
            outcome = service.resume(Trigger.TIMER) or service.sync(Trigger.CLI)
        case "undo":
            outcome = service.undo(order["sync_id"], through=order["through"])
        case "restore":
            at = datetime.fromisoformat(order["at"]) if order["at"] else None
            with mock.patch.object(relaying, "FEWEST_BACK", order.get("fewest", relaying.FEWEST_BACK)):
                outcome = service.restore(
                    RestoreSpec(at=at, run=order.get("run"), overwrite_newer=True, delete_extra=True)
                )
    run = outcome.run
    return {
        "sync_id": run.sync_id,
        "status": run.status,
        "counts": (run.counts.inserted, run.counts.updated, run.counts.deleted, run.counts.skipped),
        "verified": run.verified,
        "error": run.error,
    }


# --- in the process ---------------------------------------------------------------------------------------------------


_METHODS: dict[type, tuple[str, ...]] = {
    SqlCatalog: ("drift", "adapt"),
    CosmosCatalog: ("match",),
    SqlStore: ("fingerprint", "stamp_rows", "matching", "close"),
    SqlBuckets: ("stamp_rows",),
    SqlWrites: ("write", "delete"),
    CosmosStore: ("fingerprint", "stamp_rows", "matching", "write", "delete", "close"),
}


@dataclass
class _Steps:
    kill: Point | None
    trace: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def reach(self, step: str) -> None:
        with self._lock:
            self.trace.append(step)
            if self.kill is not None and self.kill == (step, self.trace.count(step)):
                os.kill(os.getpid(), signal.SIGKILL)

    def around(self, owner: type, method: str, step: Callable[[Any], str]) -> None:
        original = getattr(owner, method)

        def stepped(target: Any, *arguments: Any, **named: Any) -> Any:
            self.reach(f"before {step(target)}")
            result = original(target, *arguments, **named)
            self.reach(f"after {step(target)}")
            return result

        setattr(owner, method, stepped)

    def after_each(self, owner: type, method: str, step: Callable[[Any], str]) -> None:
        original = getattr(owner, method)

        def stepped(target: Any, *arguments: Any) -> Iterator[Any]:
            for item in original(target, *arguments):
                self.reach(f"after {step(target)}")
                yield item

        setattr(owner, method, stepped)

    def watch(self) -> None:
        """Makes a step of each call of a store, of history and bin, of the lock, and of each statement and commit."""
        for part, methods in _METHODS.items():
            for method in methods:
                self.around(part, method, lambda target, called=method: f"{_side(target)}.{called}")  # type: ignore[misc]
        for store in (SqlStore, CosmosStore):
            for method in ("read", "images"):
                self.after_each(store, method, lambda target, called=method: f"{_side(target)}.{called}")  # type: ignore[misc]
        for method in ("save", "change"):
            self.around(History, method, lambda _: "history.save")
        sync._SECONDS_BETWEEN_SAVES = float("inf")  # a step must not depend on the clock
        self._watch_bin()
        self._watch_lock()
        self._watch_sql()
        for method in ("create_item", "upsert_item", "delete_item"):
            self.around(ContainerProxy, method, lambda target, called=method: f"{called} {target.id}")  # type: ignore[misc]
        # One request at a time: no request is on its way when the process dies, and arrives later.
        throttle.AT_MOST = 1

    def _watch_bin(self) -> None:
        original = RecycleBin.recorder

        def recorder(recycled: RecycleBin, *arguments: Any, **options: Any) -> Any:
            keep = original(recycled, *arguments, **options)

            def stepped(*images: Any, **options: Any) -> None:
                self.reach("before bin")
                keep(*images, **options)
                self.reach("after bin")

            stepped.entries_to_make = keep.entries_to_make  # type: ignore[attr-defined] # else no server makes images
            return stepped

        setattr(RecycleBin, "recorder", recorder)  # noqa: B010 - mypy would refuse the assignment

    def _watch_lock(self) -> None:
        original = lock._file

        @contextmanager
        def stepped(service: str, backup: str) -> Iterator[CheckLock]:
            with original(service, backup) as still_held:
                self.reach("lock taken")
                yield still_held
                self.reach("before lock release")
            self.reach("after lock release")

        lock._file = stepped

    def _watch_sql(self) -> None:
        commit: Callable[..., None] = DefaultDialect.do_commit

        def sent(cx: sa.Connection, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
            if (table := written_by(statement)) is not None:
                cx.info.setdefault("written", set()).add(table)
                self.reach(f"{statement.split()[0]} {table} sent")

        def do_commit(dialect: DefaultDialect, connection: Any) -> None:
            written = ", ".join(sorted(connection.info.pop("written", ())))
            if written:
                self.reach(f"before commit of {written}")
            commit(dialect, connection)
            if written:
                self.reach(f"after commit of {written}")

        sa.event.listen(sa.Engine, "after_cursor_execute", sent)
        DefaultDialect.do_commit = do_commit  # type: ignore[method-assign]


def _side(part: Any) -> str:
    place = getattr(part, "place", None) or getattr(part, "_place", None)
    label = place.label if place else getattr(part, "access", None) or part._access.label
    return str(getattr(label, "label", label)).split()[0]


def _do(order: dict[str, Any]) -> dict[str, Any]:
    steps = _Steps(Point(*order["kill"]) if order["kill"] else None)
    steps.watch()
    return {**carried_out(order), "trace": steps.trace}


def _in_fork(order: dict[str, Any]) -> dict[str, Any]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, json.dumps(_do(order)).encode())
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    return {"signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, **json.loads(answer or b"{}")}


if __name__ == "__main__":
    prepare_to_fork()
    for line in sys.stdin:
        print(json.dumps(_in_fork(json.loads(line))), flush=True)
