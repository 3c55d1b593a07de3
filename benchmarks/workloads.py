"""The workloads: a task, and the change of the source since the last copy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.data import Change
from benchmarks.jobs import Task


@dataclass(frozen=True)
class Workload:
    """`change` returns, for a source of so many records, the change before each round; the round's end undoes it.

    `writes`: whether the task changes the backup.
    """

    name: str
    title: str
    task: Task
    change: Callable[[int], Change | None] = lambda rows: None  # noqa: ARG005 - no change, whatever the size
    writes: bool = True


def _part(rows: int, share: int) -> int:
    return max(1, rows // share)


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("first", "first copy", "copy"),
        Workload("unchanged", "nothing changed", "sync", writes=False),
        Workload("spread", "0.1 % changed, spread", "sync", lambda n: Change("update", n, _part(n, 1000))),
        Workload("end", "0.1 % changed, at the end", "sync", lambda n: Change("update", n, _part(n, 1000), True)),
        Workload("deleted", "1 % deleted", "sync", lambda n: Change("delete", n, _part(n, 100))),
        Workload("force", "everything copied again", "force"),
        Workload("undo", "the first copy taken back", "undo"),
    )
}

GROWTH = (
    WORKLOADS["first"],
    WORKLOADS["unchanged"],
    Workload("thousand", "1,000 changed, spread", "sync", lambda n: Change("update", n, min(n, 1000))),
)
"""The workloads that are measured at every size."""
