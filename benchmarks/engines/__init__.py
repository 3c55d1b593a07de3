"""Opens an engine: a server or files with the source, and with a backup for each contender."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from benchmarks.engines.base import Engine
from benchmarks.jobs import ROOT, EngineName

DATA = ROOT / "data" / "bench"


@contextmanager
def open_engine(name: EngineName, rows: int, folder: Path) -> Iterator[Engine]:
    """Starts the engine and builds its source with so many records; ends the engine at the end.

    Raises EngineMissing when you must install something or set a variable first.
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
