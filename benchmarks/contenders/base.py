"""What a contender is. The parent process asks what it can do, a child process has it prepare and do its work."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from benchmarks.jobs import ROOT, EngineName, Job, Work

OTHERS = ROOT / ".venv-bench"
"""Where `make bench` installs the other tools."""


class Contender(ABC):
    """Modules of its own are imported in `prepare`, so that asking about it needs none of them."""

    name: ClassVar[str]
    exact: ClassVar[bool] = True
    """Whether its copies must have the source's values as they are; else only the same meaning."""
    mirrors: ClassVar[bool] = True
    """Whether a turn leaves its backup equal to the source."""

    drives_python: ClassVar[bool] = True
    """Whether it asks through Python's drivers, where SQLite's statements are counted."""

    def parts(self, workload: str) -> tuple[str, ...]:  # noqa: ARG002 - most do the same in all
        """The turns that it takes in each round of the workload."""
        return ("",)

    def cannot(self, engine: EngineName, workload: str) -> str | None:  # noqa: ARG002 - most can
        """Why it has no turn; None if it has."""
        return None

    def interpreter(self) -> Path:
        """The Python that runs it."""
        return Path(sys.executable)

    @abstractmethod
    def prepare(self, job: Job) -> Work:
        """Imports all that the work needs, and gives the work, which is then timed."""
