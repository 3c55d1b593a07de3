"""Cold start: how long `import function_app` takes, and which database drivers it loads."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.jobs import ROOT

DRIVERS = ("sqlite3", "pyodbc", "psycopg", "azure.cosmos", "sqlalchemy")
_TIMES = 5


@dataclass(frozen=True)
class ColdStart:
    """Medians. `bare_seconds`: an interpreter that does nothing; `import_seconds` does not include it."""

    import_seconds: float
    bare_seconds: float
    drivers_loaded: tuple[str, ...]


def cold_start() -> ColdStart:
    """Measures both in new processes, in turn."""
    bare, whole = [], []
    with TemporaryDirectory() as compiled:
        _seconds("import function_app", compiled)  # compiles everything
        for _ in range(_TIMES):
            bare.append(_seconds("pass", compiled))
            whole.append(_seconds("import function_app", compiled))
    script = "import sys, function_app; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(ran.stdout.split())
    return ColdStart(median(whole) - median(bare), median(bare), tuple(name for name in DRIVERS if name in loaded))


def _seconds(script: str, compiled: str) -> float:
    # With this variable Python would compile everything each time.
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment = {**kept, "PYTHONPYCACHEPREFIX": compiled}
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, stdout=subprocess.DEVNULL, env=environment)
    return time.perf_counter() - started
