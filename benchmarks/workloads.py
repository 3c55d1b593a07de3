"""What is measured: a task, and what happened to the source since the last copy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.data import Change
from benchmarks.jobs import Task


@dataclass(frozen=True)
class Workload:
    """`change` gives what is changed in a source of so many records before each round, and undone after it.

    `writes`: whether it leaves a backup other than it was.
    """

    name: str
    title: str
    task: Task
    change: Callable[[int], Change | None] = lambda rows: None  # noqa: ARG005 - one for all sizes
    writes: bool = True


def _part(rows: int, share: int) -> int:
    return max(1, rows // share)


WORKLOADS = {
    one.name: one
    for one in (
        Workload("first", "first copy", "copy"),
        Workload("unchanged", "nothing changed", "sync", writes=False),
        Workload("spread", "0.1 % changed, spread", "sync", lambda n: Change("update", n, _part(n, 1000))),
        Workload("end", "0.1 % changed, at the end", "sync", lambda n: Change("update", n, _part(n, 1000), True)),
        Workload("deleted", "1 % deleted", "sync", lambda n: Change("delete", n, _part(n, 100))),
        Workload("force", "everything copied again", "force"),
    )
}

GROWTH = (
    WORKLOADS["first"],
    WORKLOADS["unchanged"],
    Workload("thousand", "1,000 changed, spread", "sync", lambda n: Change("update", n, min(n, 1000))),
)
"""What is measured at every size."""
