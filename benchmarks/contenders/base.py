"""The base of contenders. The parent process asks what they can do; a child process lets one prepare and work."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from benchmarks.jobs import ROOT, EngineName, Job, Work

OTHERS = ROOT / ".venv-bench"
"""Where `make bench` installs the other tools."""


class Contender(ABC):
    """One way to copy. It imports its own modules in `prepare`, so that the other methods need none of them."""

    name: ClassVar[str]
    exact: ClassVar[bool] = True
    """Whether its copies must have exactly the source's values. If not, the same meaning is enough."""
    mirrors: ClassVar[bool] = True
    """Whether a turn leaves its backup equal to the source."""

    undoes: ClassVar[bool] = False
    """Whether it can take a copy back."""

    drives_python: ClassVar[bool] = True
    """Whether it uses Python's drivers, where `counting` counts SQLite's statements."""

    def parts(self, workload: str) -> tuple[str, ...]:  # noqa: ARG002 - most do the same in all
        """Returns the parts of its work in a round of the workload, a turn each."""
        return ("",)

    def cannot(self, engine: EngineName, workload: str) -> str | None:  # noqa: ARG002 - most can
        """Returns why it cannot take part; None if it can."""
        return None

    def interpreter(self) -> Path:
        """Returns the Python that runs it."""
        return Path(sys.executable)

    @abstractmethod
    def prepare(self, job: Job) -> Work:
        """Imports everything that the work needs. Returns the work, which is timed."""
