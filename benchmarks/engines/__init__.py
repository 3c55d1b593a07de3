"""Opens an engine: a server or files that hold the source, and a backup for each contender."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from benchmarks.engines.base import Engine
from benchmarks.jobs import ROOT, EngineName

DATA = ROOT / "data" / "bench"


@contextmanager
def open_engine(name: EngineName, rows: int, folder: Path) -> Iterator[Engine]:
    """The engine, its source built of so many records; its server is started, and ended when left.

    Raises EngineMissing where something has to be installed or named first.
    """
    opened: AbstractContextManager[Engine]
    if name == "sqlite":
        from benchmarks.engines.sqlite import sqlite

        opened = sqlite(rows, folder / name)
    elif name == "cosmos":
        from benchmarks.engines.cosmos import cosmos

        opened = cosmos(rows, folder / name)
    else:
        from benchmarks.engines.server import server

        opened = server(name, rows, folder / name)
    with opened as engine:
        yield engine
